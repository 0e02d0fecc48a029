//! `[sidecar.X]`, `[stop]`, `[[volume]]` and `[[file]]`.

use super::*;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        ("[sidecar.a]", "3:1 `command` is missing in [sidecar.a] | add command"),
        ("[sidecar.A]\ncommand = \"a\"", "3:10 sidecar `A` is not good"),
        (
            "[sidecar.a]\ncommand = \"a\"\nmemory = \"256MiB\"",
            "5:10 `sidecar.a.memory` is as much as process `web` has, 256MiB | it is part of that",
        ),
        ("[[service]]", "3:1 `name` is missing in [service] | add name = \"SERVICE\""),
        (
            "[[service]]\nname = \"a\"\n[[service]]\nname = \"a\"",
            "6:8 `service.name` is the name of another service | rename one of them",
        ),
        (
            "[[service]]\nname = \"a\"\ncredentials = \"x\"",
            "5:15 `service.credentials` must be a table, not a string | write { password",
        ),
        (
            "[[service]]\nname = \"a\"\ncredentials = {}\ncredentials_file = \"x\"",
            "6:20 `service.credentials_file` stands beside `credentials` | a service has one",
        ),
        (
            "[sidecar.a]\ncommand = \"a\"\nprocesses = [\"b\"]",
            "5:14 there is no process `b` | declared: web",
        ),
        (
            "[stop]\nsignal = \"SIGFOO\"",
            "4:10 `SIGFOO` is no signal | such as \"TERM\", \"INT\" or \"QUIT\"",
        ),
        ("[stop]\ntimeout = \"2h\"", "4:11 `stop.timeout` is 2h, out of range | 0s to 1h"),
        ("[[volume]]\nto = \"/a\"", "3:1 `from` is missing in [volume] | add from"),
        ("[[volume]]\nfrom = \"/a\"", "3:1 `to` is missing in [volume] | add to"),
        (
            "[[volume]]\nfrom = \"/a/../b\"\nto = \"/a\"",
            "4:8 `/a/../b` is not a path for this | it is absolute",
        ),
        (
            "[[volume]]\nfrom = \"/a\"\nto = \"/proc/a\"",
            "5:6 `volume.to` lies in /proc, which is the container's own | name another path",
        ),
        ("[[file]]\npath = \"/a\"", "3:1 `content` is missing in [file] | add content"),
        (
            "[[file]]\npath = \"/a\"\ncontent = \"\"\nsource = \"x\"",
            "6:10 a file has `content` or `source`, not both | remove one",
        ),
        (
            "[[file]]\npath = \"/a\"\ncontent = \"\"\nmode = \"0600\"",
            "6:8 `0600` is not a mode | such as \"0400\"",
        ),
        (
            "[[file]]\npath = \"/a\"\ncontent = \"\"\n[[file]]\npath = \"/a\"\ncontent = \"\"",
            "7:8 `file.path` names /a for the second time | remove one",
        ),
        (
            "[stop]\nsignal = \"STOP\"",
            "4:10 `STOP` only halts a process, which then could not end in good order | write",
        ),
        ("[stop]\nsignal = \"20\"", "4:10 `20` only halts a process"),
        (
            "[[file]]\npath = \"/etc/passwd\"\ncontent = \"x\"",
            "4:8 `file.path` would hide /etc/passwd, by which the container's users are known | name",
        ),
        ("[[volume]]\nfrom = \"/srv/a\"\nto = \"/etc\"", "5:6 `volume.to` would hide /etc/passwd"),
    ]);
}

#[test]
fn checks_sidecars_and_mounts_are_read_as_they_are_written() {
    let it = good(&format!(
        "{HEAD}[health]\ntype = \"exec\"\ncommand = \"test -e /ok\"\nfailures = 3\n\
         [[health.check]]\ntype = \"http\"\npath = \"/up\"\ntimeout = \"2s\"\n\
         [readiness]\npath = \"/ready\"\ntype = \"http\"\ninterval = \"5s\"\n\
         [process.web]\n[process.job]\nhealth = {{ type = \"watchdog\", interval = \"10s\" }}\n\
         [[port]]\n[sidecar.relay]\ncommand = \"relay\"\nprocesses = [\"web\"]\n\
         [stop]\nsignal = \"SIGQUIT\"\n[[volume]]\nfrom = \"/srv/a\"\nto = \"/a\"\n\
         [[file]]\npath = \"/run/s\"\nsource = \"s.txt\"\nmode = \"0444\"\n"
    ));
    let web = &it.processes["web"];
    let words = ["/bin/sh", "-c", "test -e /ok"].map(str::to_owned).to_vec();
    assert_eq!((&web.health.check, web.health.failures), (&Check::Exec { command: words }, 3));
    let also = &web.health.also[0];
    assert_eq!(also.check, Check::Http { port: 8080, path: "/up".into() });
    assert_eq!((also.timeout.as_secs(), also.interval.as_secs()), (2, 30));
    let ready = web.readiness.as_ref().expect("readiness");
    assert_eq!(ready.check, Check::Http { port: 8080, path: "/ready".into() });
    assert_eq!(ready.interval_healthy, Duration::from_secs(5));
    let job = &it.processes["job"];
    assert_eq!((&job.health.check, job.readiness.is_none()), (&Check::Watchdog, true));
    assert_eq!(it.sidecars["relay"].processes, ["web"]);
    assert_eq!((it.stop.signal, it.stop.timeout), (Some(3), None));
    assert_eq!((it.volumes[0].to.as_str(), it.volumes[0].read_only), ("/a", false));
    assert_eq!(it.files[0].mode, 0o444);
    let text =
        format!("{:?}", good(&format!("{HEAD}[[file]]\npath = \"/s\"\ncontent = \"pssst\"\n")));
    assert!(text.contains("/s") && !text.contains("pssst"), "{text}");
}

#[test]
fn services_are_read_with_typed_credentials() {
    let text = "name = \"web\"\nsource.path = \".\"\nfeatures.file_based_services = true\n\
                [[service]]\nname = \"db\"\nlabel = \"postgresql\"\nplan = \"small\"\ntags = [\"sql\"]\n\
                binding_name = \"main\"\nvolume_mounts = [{ container_dir = \"/data\" }]\n\
                credentials = { port = 0x1538, ratio = 1.5, tls = true, hosts = [\"a\", \"b\"] }\n\
                [[service]]\nname = \"x\"\ncredentials_file = \"x.json\"\n";
    let it = parse(text, "web.toml", Path::new("/apps")).expect("good");
    assert!(it.file_based_services);
    let [db, x] = &it.services[..] else { panic!("{:?}", it.services) };
    let credentials =
        serde_json::json!({"port": 5432, "ratio": 1.5, "tls": true, "hosts": ["a", "b"]});
    assert_eq!(serde_json::Value::Object(db.credentials.clone()), credentials);
    assert_eq!(db.volume_mounts, [serde_json::json!({"container_dir": "/data"})]);
    let words = (&*db.label, db.plan.as_deref(), db.binding_name.as_deref(), &*db.tags[0]);
    assert_eq!(words, ("postgresql", Some("small"), Some("main"), "sql"));
    assert_eq!(
        (&*x.label, x.credentials_file.as_deref()),
        ("user-provided", Some(Path::new("/apps/x.json")))
    );
}
