//! Real software in images: Debian's redis, nginx, mosquitto and postgres run under limits, as the
//! image's user, answer their own clients, outlive the daemon, and stop when they are told.

use super::super::lab::{Lab, Ran, fetch};
use super::super::server::{Registry, Setup};
use super::oci::{self, directory, file};
use super::{lab, push};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

/// Writes a manifest of an image with one published port.
fn manifest(lab: &Lab, name: &str, image: &str, port: u16, memory: &str, disk: &str) -> String {
    let path = lab.root.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\nimage.{image}\nport = [{{ publish = {port} }}]\n\n\
         [run]\nmemory = \"{memory}\"\ndisk = \"{disk}\"\npids = 64\n"
    );
    fs::write(&path, text).expect("manifest");
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// The oldest process called `name` in the app's container: pid, start time and user inside.
fn process(lab: &Lab, app: &str, name: &str) -> Option<(u32, u64, u32)> {
    let handle = lab.instance(app, 0)["handle"].as_str()?.to_owned();
    let mut all = Vec::new();
    for item in fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = item.file_name().to_str().and_then(|it| it.parse().ok()) else { continue };
        let read = |file: &str| fs::read_to_string(item.path().join(file)).unwrap_or_default();
        if !read("cgroup").contains(&handle) || read("comm").trim() != name {
            continue;
        }
        let stat = read("stat");
        let started = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
        let uid = read("status");
        let uid: u32 = uid
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        let map = read("uid_map");
        let base: u32 = map.split_whitespace().nth(1)?.parse().ok()?;
        all.push((started, pid, uid - base));
    }
    let (started, pid, uid) = all.into_iter().min()?;
    Some((pid, started, uid))
}

/// Runs the app's own client in its instance.
fn inside(lab: &Lab, app: &str, words: &[&str]) -> Ran {
    lab.run(&[&["exec", app, "--"][..], words].concat())
}

/// The daemon is killed and comes back: the same process as before, as `user`, runs on.
fn outlives_the_daemon(lab: &mut Lab, app: &str, name: &str, user: u32) {
    let before = process(lab, app, name).unwrap_or_else(|| panic!("no process {name}"));
    assert_eq!(before.2, user, "{name} runs as another user");
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    lab.until_state(app, "running");
    assert_eq!(process(lab, app, name), Some(before), "{name} is another process");
}

/// It is stopped, and says `last` as one that was told to.
fn stops(lab: &Lab, app: &str, last: &str) {
    lab.ok(&["stop", app]);
    lab.until(&format!("{app} says: {last}"), |lab| {
        (!lab.logged(app, last).is_empty()).then_some(())
    });
    let killed = lab.logged(app, "Exit status 137");
    assert!(killed.is_empty(), "{killed:?}");
}

#[test]
fn redis_answers_its_own_client_until_it_is_stopped() {
    let (mut lab, dir) = lab("redis");
    let registry = Registry::start(&dir, Setup::Plain);
    // Found by PATH, for there is no shell.
    let config = json!({
        "User": "redis", "WorkingDir": "/data", "Volumes": { "/data": {} },
        "ExposedPorts": { "6379/tcp": {} },
        "Entrypoint": ["redis-server"], "Cmd": ["--protected-mode", "no"],
    });
    push(&oci::layout(&dir, "redis", &[directory("data", 0o755, 999)], &config), "redis");
    let image = "ref = \"127.0.0.1:5000/ops/app:redis\"";
    lab.ok(&["apply", &manifest(&lab, "cache", image, 6379, "64MiB", "96MiB")]);
    lab.until_state("cache", "running");
    registry.stop();
    let cli = |lab: &Lab, words: &[&str]| {
        let ran = inside(lab, "cache", &[&["redis-cli"][..], words].concat());
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.err);
        ran.out.trim().to_owned()
    };
    assert_eq!(cli(&lab, &["PING"]), "PONG");
    assert_eq!(cli(&lab, &["SET", "a", "b"]), "OK");
    // It forks and writes into its volume.
    assert_eq!(cli(&lab, &["SAVE"]), "OK");
    assert_eq!(cli(&lab, &["CONFIG", "GET", "dir"]), "dir\n/data");
    outlives_the_daemon(&mut lab, "cache", "redis-server", 999);
    // Through the published port, in the protocol's own words.
    let said = lab.until("redis answers at its port", |_| speak(6379, "GET a\r\nQUIT\r\n"));
    assert_eq!(said, "$1\r\nb\r\n+OK\r\n");
    // Its data ends with the instance.
    lab.ok(&["restart", "cache"]);
    lab.until("redis is another one", |_| {
        speak(6379, "GET a\r\nQUIT\r\n").filter(|said| said.starts_with("$-1"))
    });
    stops(&lab, "cache", "ready to exit, bye bye");
    lab.finish();
}

/// What a server at a port of the box says to `words` until it closes the connection.
fn speak(port: u16, words: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).ok()?;
    stream.write_all(words.as_bytes()).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    (!said.is_empty()).then_some(said)
}

/// One worker, nothing as root, and logs where containers have them: opened by path.
const NGINX: &str = "\
daemon off;
worker_processes 1;
pid /run/nginx/pid;
error_log /dev/stderr notice;
events {}
http {
    access_log /dev/stdout;
    server { listen 8080; root /srv; }
}
";

#[test]
fn nginx_serves_a_page_and_logs_to_its_standard_streams_by_path() {
    let (mut lab, dir) = lab("nginx");
    let config = json!({
        "User": "www-data", "ExposedPorts": { "8080/tcp": {} },
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["nginx", "-c", "/etc/nginx/own.conf"], "StopSignal": "SIGQUIT",
    });
    let entries = [
        file("etc/nginx/own.conf", 0o644, NGINX),
        file("srv/index.html", 0o644, "a page\n"),
        directory("var/lib/nginx", 0o755, 33),
        directory("var/log/nginx", 0o755, 33),
        directory("run/nginx", 0o755, 33),
    ];
    let layout = oci::layout(&dir, "nginx", &entries, &config);
    let image = format!("archive = \"{}\"", layout.display());
    lab.ok(&["apply", &manifest(&lab, "web", &image, 8080, "64MiB", "96MiB")]);
    lab.until_state("web", "running");
    let page = |lab: &Lab| lab.until("nginx answers", |_| fetch("127.0.0.1", 8080, "/"));
    assert_eq!(page(&lab), "a page\n");
    outlives_the_daemon(&mut lab, "web", "nginx", 33);
    assert_eq!(page(&lab), "a page\n");
    lab.until("the request is in the log", |lab| {
        (!lab.logged("web", "\"GET / HTTP/1.0\" 200 7").is_empty()).then_some(())
    });
    stops(&lab, "web", "signal 3 (SIGQUIT) received");
    lab.finish();
}

const MOSQUITTO: &str = "\
listener 1883
allow_anonymous true
persistence true
persistence_location /var/lib/mosquitto/
pid_file /run/mosquitto/mosquitto.pid
log_dest stdout
";

#[test]
fn mosquitto_passes_messages_on_and_keeps_them_over_a_restart_of_the_daemon() {
    let (mut lab, dir) = lab("mosquitto");
    let config = json!({
        "User": "mosquitto", "ExposedPorts": { "1883/tcp": {} },
        "Volumes": { "/var/lib/mosquitto": {} },
        "Cmd": ["/usr/sbin/mosquitto", "-c", "/etc/mosquitto/own.conf"],
    });
    let entries = [
        file("etc/mosquitto/own.conf", 0o644, MOSQUITTO),
        directory("var/lib/mosquitto", 0o755, 101),
        directory("run/mosquitto", 0o755, 101),
    ];
    let archive = dir.join("mosquitto.tar");
    oci::packed(&oci::layout(&dir, "mosquitto", &entries, &config), &archive);
    let image = format!("archive = \"{}\"", archive.display());
    lab.ok(&["apply", &manifest(&lab, "mq", &image, 1883, "32MiB", "96MiB")]);
    lab.until_state("mq", "running");
    // Who has subscribed waits; the message comes by another connection, over the daemon's death.
    let to = ["-h", "127.0.0.1", "-t", "a/topic"];
    let subscribe = ["mosquitto_sub", "-i", "ann", "-q", "1", "-c", "-C", "1", "-W", "60"];
    let ran = inside(&lab, "mq", &[&subscribe[..], &to, &["-E"]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let publish = ["mosquitto_pub", "-q", "1", "-m", "hello ann"];
    let ran = inside(&lab, "mq", &[&publish[..], &to].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    outlives_the_daemon(&mut lab, "mq", "mosquitto", 101);
    let ran = inside(&lab, "mq", &[&subscribe[..], &to].concat());
    assert_eq!((ran.code, ran.out.as_str()), (0, "hello ann\n"), "{}", ran.err);
    stops(&lab, "mq", "terminating");
    lab.finish();
}

/// As the official image: the first start makes the database.
const POSTGRES: &str = "#!/bin/sh
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
test -s \"$PGDATA/PG_VERSION\" || initdb --no-sync --no-instructions -A trust --no-locale -E UTF8
exec postgres -c listen_addresses='*' -c shared_buffers=32MB -c dynamic_shared_memory_type=posix \\
    -c unix_socket_directories=/var/run/postgresql -c fsync=off
";

#[test]
fn postgres_makes_its_database_and_answers_queries() {
    let (mut lab, dir) = lab("postgres");
    let config = json!({
        "User": "postgres", "ExposedPorts": { "5432/tcp": {} },
        "Env": ["PGDATA=/var/lib/postgresql/data"], "Volumes": { "/var/lib/postgresql/data": {} },
        "Entrypoint": ["/usr/local/bin/start"], "StopSignal": "SIGINT",
    });
    let psql = "#!/bin/sh\nexec /usr/lib/postgresql/*/bin/psql -h \"${1}\" -At -c \"$2\"\n";
    let entries = [
        file("usr/local/bin/start", 0o755, POSTGRES),
        file("usr/local/bin/query", 0o755, psql),
        directory("var/lib/postgresql/data", 0o700, 105),
        directory("var/run", 0o755, 0),
        directory("var/run/postgresql", 0o2775, 105),
    ];
    let layout = oci::layout(&dir, "postgres", &entries, &config);
    let image = format!("archive = \"{}\"", layout.display());
    lab.ok(&["apply", &manifest(&lab, "db", &image, 5432, "192MiB", "320MiB")]);
    lab.until_state("db", "running");
    let query = |lab: &Lab, at: &str, text: &str| {
        let ran = inside(lab, "db", &["/usr/local/bin/query", at, text]);
        assert_eq!(ran.code, 0, "{text}: {}{}", ran.out, ran.err);
        ran.out
    };
    query(&lab, "127.0.0.1", "create table t as select generate_series(1, 100000) as n");
    outlives_the_daemon(&mut lab, "db", "postgres", 105);
    // By its socket, and in parallel, which takes shared memory.
    let parallel = "set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; \
                    set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; \
                    select sum(n) from t";
    let sum = query(&lab, "/var/run/postgresql", parallel);
    assert!(sum.ends_with("5000050000\n"), "{sum}");
    stops(&lab, "db", "database system is shut down");
    lab.finish();
}
