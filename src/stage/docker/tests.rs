use super::*;
use crate::image::Exposed;
use crate::model::action::Action;
use crate::model::process::ProcessSpec;
use crate::unit::Digest;
use std::path::Path;

fn manifest(text: &str) -> Manifest {
    let text = format!("name = \"app\"\nimage.ref = \"ops/app\"\n{text}");
    crate::config::manifest::parse(&text, "app.toml", Path::new("/"))
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn config() -> ImageConfig {
    let port = |port, protocol| Exposed { port, protocol };
    ImageConfig {
        env: vec!["PATH=/opt".into(), "A=image".into(), "=x".into(), "y".into()],
        entrypoint: vec!["/bin/run".into()],
        cmd: vec!["a b".into()],
        workdir: "/srv".into(),
        user: "1000:50".into(),
        ports: vec![port(9000, Protocol::Tcp), port(53, Protocol::Udp), port(80, Protocol::Tcp)],
        ..ImageConfig::default()
    }
}

fn image() -> StagedImage {
    StagedImage {
        digest: Digest::of(b"image"),
        layers: vec![Digest::of(b"layer")],
        bytes: 12 << 20,
        env: config().env,
        volumes: vec!["/data".into()],
        stop_signal: None,
    }
}

fn lrps(text: &str, config: &ImageConfig) -> Result<Vec<DesiredLrp>, StageError> {
    desired_lrps(&manifest(text), &result("ops/app", config)?, &image(), 1)
}

/// What an instance is started with.
fn main_of(lrp: &DesiredLrp) -> &ProcessSpec {
    let Action::Run(run) = &lrp.work.action else { panic!("not one process") };
    &run.process
}

fn dir_of(lrp: &DesiredLrp) -> &str {
    main_of(lrp).dir.as_deref().expect("a directory")
}

fn web(text: &str) -> DesiredLrp {
    lrps(text, &config()).expect("LRPs").remove(0)
}

fn value<'a>(lrp: &'a DesiredLrp, name: &str) -> Option<&'a str> {
    let mut all = lrp.env.iter().rev().filter(|(key, _)| key == name);
    all.next().map(|(_, value)| value.as_str())
}

#[test]
fn staging_records_what_diegos_docker_builder_does() {
    let staged = result("ops/app:1", &config()).expect("staged");
    let text = serde_json::to_value(staged).expect("JSON");
    assert_eq!(text["lifecycle_type"], "docker");
    assert_eq!(text["lifecycle_metadata"]["docker_image"], "ops/app:1");
    assert_eq!(text["process_types"]["web"], "/bin/run a b");
    let wanted = "{\"cmd\":[\"a b\"],\"entrypoint\":[\"/bin/run\"],\"workdir\":\"/srv\",\
                  \"ports\":[{\"Port\":53,\"Protocol\":\"udp\"},{\"Port\":80,\"Protocol\":\"tcp\"},\
                  {\"Port\":9000,\"Protocol\":\"tcp\"}],\"user\":\"1000:50\"}";
    assert_eq!(text["execution_metadata"], wanted);
    let bare = result("x", &ImageConfig::default()).expect("staged");
    assert_eq!(bare.execution_metadata, "{}");
}

/// Section 3 of the reference: ports in order, tcp before udp on a tie, and no ranges.
#[test]
fn ports_are_recorded_in_order_and_ranges_are_an_error() {
    let of = |ports: &str| {
        let diff = Digest::of(b"");
        let text = format!(
            r#"{{"config":{{"ExposedPorts":{{{ports}}}}},"rootfs":{{"diff_ids":["{diff}"]}}}}"#
        );
        let (config, ..) = ImageConfig::read(text.as_bytes()).expect("a configuration");
        result("x", &config)
    };
    let staged = of(r#""53/udp":{},"80/udp":{},"80/tcp":{},"53/tcp":{},"9/sctp":{}"#);
    let staged = staged.expect("staged").execution_metadata;
    let staged: Execution = serde_json::from_str(&staged).expect("JSON");
    let ports: Vec<_> =
        staged.ports.iter().map(|it| format!("{}/{}", it.port, it.protocol)).collect();
    assert_eq!(ports, ["9/sctp", "53/tcp", "53/udp", "80/tcp", "80/udp"]);
    let said = of(r#""80/tcp":{},"9000-9002/tcp":{}"#).expect_err("a range").to_string();
    assert!(
        said.contains("exposes the ports `9000-9002/tcp`") && said.contains("EXPOSE"),
        "{said}"
    );
}

#[test]
fn what_the_manifest_leaves_open_is_the_images() {
    let lrp = web("env.B = \"manifest\"\n");
    assert_eq!((lrp.command.as_str(), lrp.user.as_str()), ("", "1000:50"));
    assert_eq!((lrp.ports.len(), lrp.ports[0].container), (1, 80));
    assert_eq!(lrp.health.check, Check::Port { port: 80 });
    // The image is part of the limit.
    assert_eq!(lrp.limits.disk, Some(Bytes::mib(500)));
    let facts = lrp.image.as_ref().expect("an image");
    assert_eq!((dir_of(&lrp), facts.volumes.as_slice()), ("/srv", &["/data".to_owned()][..]));
    let got = ["PATH", "A", "B", "PORT", "LANG"].map(|name| value(&lrp, name));
    assert!(lrp.env.iter().all(|(name, _)| !name.is_empty() && name != "y"), "{:?}", lrp.env);
    assert_eq!(got, [Some("/opt"), Some("image"), Some("manifest"), Some("80"), None]);
    assert!(value(&lrp, "VCAP_APPLICATION").is_some_and(|text| text.contains("\"disk\":512")));
}

#[test]
fn what_the_manifest_says_wins() {
    let lrp = web("env = { A = \"mine\", LANG = \"C\" }\nport = [{ container = 7000 }]\n\
                   run = { user = \"root\", command = \"sh x\" }\n");
    assert_eq!((lrp.command.as_str(), lrp.user.as_str()), ("sh x", "root"));
    assert_eq!((lrp.ports[0].container, &lrp.health.check), (7000, &Check::Port { port: 7000 }));
    assert_eq!((value(&lrp, "A"), value(&lrp, "LANG")), (Some("mine"), Some("C")));
}

#[test]
fn an_image_that_says_nothing_runs_as_root_on_the_usual_port() {
    let bare = ImageConfig { cmd: vec!["/x".into()], ..ImageConfig::default() };
    let lrp = lrps("", &bare).expect("LRPs").remove(0);
    assert_eq!((lrp.user.as_str(), lrp.ports[0].container), ("root", 8080));
    assert_eq!(dir_of(&lrp), "/");
}

#[test]
fn a_further_process_runs_beside_the_image() {
    let both = lrps("[process.work]\ncommand = \"work\"\n", &config()).expect("LRPs");
    let shown: Vec<_> =
        both.iter().map(|it| (&*it.guid.process, &*it.command, it.ports.len())).collect();
    assert_eq!(shown, [("web", "", 1), ("work", "work", 0)]);
    assert_eq!(both[0].health.check, Check::Port { port: 80 });
    // One that says nothing is told no command: the launcher runs what the image says.
    let silent = lrps("[process.web]\ncommand = \"x\"\n[process.work]\n", &config()).expect("LRPs");
    let shown: Vec<_> = silent.iter().map(|it| (&*it.guid.process, &*it.command)).collect();
    assert_eq!(shown, [("web", "x"), ("work", "")]);
}

#[test]
fn what_cannot_run_is_refused_with_its_cure() {
    let silent = ImageConfig::default();
    let said = lrps("", &silent).expect_err("no command").to_string();
    assert!(
        said.contains("no start command for process `web`") && said.contains("image"),
        "{said}"
    );
    let said = lrps("[process.web]\n[process.w]\n", &silent).expect_err("no command").to_string();
    assert!(said.contains("process `w`, `web`") || said.contains("process `web`, `w`"), "{said}");
    assert!(!said.contains("Procfile"), "{said}");
    let udp =
        ImageConfig { ports: vec![Exposed { port: 53, protocol: Protocol::Udp }], ..config() };
    let said = lrps("", &udp).expect_err("no port").to_string();
    assert!(said.starts_with("the image exposes no TCP port"), "{said}");
    assert!(lrps("port = [{ container = 53 }]\n", &udp).is_ok());
    let nobody = ImageConfig { user: "99999999999:5".into(), ..config() };
    let said = lrps("", &nobody).expect_err("no such user").to_string();
    assert!(said.contains("`99999999999:5`, but ids go from 0 to 65535; write user ="), "{said}");
    assert!(lrps("run.user = \"7\"\n", &nobody).is_ok());
    let said = lrps("run.disk = \"12MiB\"\n", &config()).expect_err("too large").to_string();
    assert!(said.contains("12MiB") && said.contains("disk"), "{said}");
}

/// It is as large as the image and a bit: nothing could be written, not even what makes its root.
#[test]
fn an_image_that_leaves_no_room_for_a_container_is_refused_with_what_would_do() {
    let of = |disk: &str| check_disk(&manifest(&format!("run.disk = \"{disk}\"\n")), &image());
    let said = of("12800KiB").expect_err("too little").to_string();
    assert!(said.starts_with("the image has 12MiB and counts as part of `disk`"), "{said}");
    assert!(said.contains("write 13MiB or more as `disk`"), "{said}");
    assert_eq!(of("13MiB"), Ok(()));
    assert!(of("64MiB\"\nprocess.web.disk = \"12801KiB").is_err(), "any of its processes");
}

#[test]
fn directories_and_users_are_read_as_docker_reads_them() {
    for (text, dir) in [
        ("", "/"),
        ("srv/x/", "/srv/x"),
        ("/a/./b//..", "/a"),
        ("../../x/../y", "/y"),
        ("/..", "/"),
    ] {
        let lrp =
            lrps("", &ImageConfig { workdir: text.into(), ..config() }).expect("LRPs").remove(0);
        assert_eq!(dir_of(&lrp), dir, "{text}");
    }
    for (text, user) in [
        ("", "root"),
        (":", "root"),
        ("ann", "ann"),
        ("7:", "7"),
        (":50", "root:50"),
        ("a:b", "a:b"),
    ] {
        let lrp = lrps("", &ImageConfig { user: text.into(), ..config() }).expect("LRPs").remove(0);
        assert_eq!(lrp.user, user, "{text}");
    }
}

/// Tens of thousands of ports are nothing unusual for telephony, and no business of the launcher.
#[test]
fn any_number_of_ports_fits_into_a_start() {
    let ports = (10_000..=20_000).map(|port| Exposed { port, protocol: Protocol::Udp });
    let many = ImageConfig { ports: ports.chain(config().ports).collect(), ..config() };
    let lrp = lrps("", &many).expect("LRPs").remove(0);
    assert!(main_of(&lrp).args[2].len() < 200, "{}", main_of(&lrp).args[2]);
    assert!(
        main_of(&lrp).args[2].contains("\"entrypoint\":[\"/bin/run\"]"),
        "{}",
        main_of(&lrp).args[2]
    );
    assert_eq!(lrp.ports[0].container, 80);
}

#[test]
fn what_no_process_can_be_given_is_refused_before_it_is_tried() {
    let long = "x".repeat(100 << 10);
    let image = |env: &str, volume: &str| StagedImage {
        env: vec![format!("A={env}")],
        volumes: vec![volume.into()],
        ..image()
    };
    let staged = |cmd: &str| {
        result("x", &ImageConfig { cmd: vec![cmd.into()], ..config() }).expect("staged")
    };
    let of = |image: &StagedImage, cmd: &str| desired_lrps(&manifest(""), &staged(cmd), image, 1);
    assert!(of(&image("b", "/v"), "c").is_ok());
    for (image, cmd) in
        [(image(&long, "/v"), "c"), (image("b", &long), "c"), (image("b", "/v"), &long)]
    {
        let said = of(&image, cmd).expect_err("too much").to_string();
        assert!(said.contains("process `web` take 1") && said.contains("98304"), "{said}");
    }
}

#[test]
fn another_image_is_another_version() {
    let other = StagedImage { digest: Digest::of(b"other"), ..image() };
    let staged = result("ops/app", &config()).expect("staged");
    let after = desired_lrps(&manifest(""), &staged, &other, 1).expect("LRPs");
    assert_ne!(web("").version, after[0].version);
}
