//! What an app may see and reach.

use super::WEB;
use super::lab::{Lab, get, tool};
use super::neighbour::Neighbour;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

const IDLE: &str = "echo up\nexec sleep 100000\n";
const SMALL: &str = "[run]\nmemory = \"64MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

#[test]
fn app_cannot_see_host_processes() {
    let lab = Lab::start("processes");
    lab.ok(&["apply", &lab.app("nosy", IDLE, SMALL)]);
    lab.until_state("nosy", "running");
    let ran = lab.inside("nosy", "cd /proc && ls -d [0-9]* | wc -l; id -u; cat 1/cmdline");
    let mut lines = ran.out.lines();
    let count: u32 = lines.next().expect("a count").trim().parse().expect("a number");
    assert!(count < 10, "{}", ran.out);
    assert_eq!(lines.next(), Some("2000"), "runs as vcap");
    let host = std::process::id();
    let ran = lab.inside("nosy", &format!("kill -0 {host}"));
    assert_ne!(ran.code, 0, "a process of the box can be signalled");
    lab.finish();
}

#[test]
fn even_root_inside_cannot_reach_the_box() {
    let lab = Lab::start("root");
    lab.ok(&["apply", &lab.app("root", IDLE, SMALL)]);
    lab.until_state("root", "running");
    for (script, why) in [
        ("mount -t tmpfs x /mnt", "mount"),
        ("mknod /tmp/sda b 8 0", "device nodes"),
        ("unshare -U true", "user namespaces"),
        ("echo x > /proc/sys/kernel/core_pattern", "sysctl"),
        ("echo b > /proc/sysrq-trigger", "sysrq"),
        ("cat /proc/1/environ", "pid 1"),
        ("ls /proc/1/fd", "pid 1's descriptors"),
        ("test -s /proc/kcore", "kernel memory"),
        ("hostname other", "host name"),
        ("ip link set lo down", "links"),
        ("chroot /proc/1/root true", "pid 1's root"),
    ] {
        let ran = lab.run(&["exec", "root", "-u", "root", "--", "sh", "-c", script]);
        assert_ne!(ran.code, 0, "{why}: `{script}` worked: {}", ran.out);
    }
    let ran = lab.run(&["exec", "root", "-u", "root", "--", "cat", "/proc/self/status"]);
    let field = |name: &str| {
        let line = ran.out.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("CapBnd:"), "00000000000405fb", "garden's list less four");
    lab.finish();
}

/// Row 58: nothing but what is declared.
#[test]
fn undeclared_egress_is_refused() {
    let lab = Lab::start("egress");
    let neighbour = Neighbour::new("egress");
    let mut servers = ["8081", "8082"].map(|port| {
        neighbour.within(move || {
            let args = ["httpd", "-f", "-p", port, "-h", "/etc"];
            Command::new("busybox").args(args).spawn().expect("a service")
        })
    });
    let open =
        format!("{SMALL}\n[[egress]]\nallow = \"tcp\"\nto = [\"192.0.2.2\"]\nports = [8081]\n");
    lab.ok(&["apply", &lab.app("open", IDLE, &open)]);
    lab.ok(&["apply", &lab.app("closed", IDLE, SMALL)]);
    lab.until_state("open", "running");
    lab.until_state("closed", "running");
    let fetch = |app: &str, port: u16| {
        lab.inside(app, &format!("wget -q -O - http://192.0.2.2:{port}/hostname")).code
    };
    lab.until("the service is up and the declared way is open", |_| {
        (fetch("open", 8081) == 0).then_some(())
    });
    assert_ne!(fetch("open", 8082), 0, "a port that is not declared");
    assert_ne!(fetch("closed", 8081), 0, "nothing is declared");
    let ran = lab.inside("closed", "wget -q -O - http://192.0.2.1/ 2>&1");
    assert!(!ran.out.contains("timed out"), "refused at once, no hang: {}", ran.out);
    for server in &mut servers {
        server.kill().expect("end the service");
        server.wait().expect("end the service");
    }
    drop(neighbour);
    lab.finish();
}

#[test]
fn published_ports_answer_on_loopback_and_no_other_service_of_the_box_is_reachable() {
    let lab = Lab::start("loopback");
    let secret = TcpListener::bind("127.0.0.1:9999").expect("a service of the box");
    let everywhere = TcpListener::bind("0.0.0.0:9998").expect("another one");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    lab.ok(&["apply", &lab.app("web", WEB, manifest)]);
    lab.until_state("web", "running");
    assert!(get("127.0.0.1", 8000).is_some());
    let gateway = tool("ip", &["-o", "-4", "addr"]);
    let gateway = gateway
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/30"))
        .expect("the gateway's address");
    // The tool works: the app's own port answers from inside.
    let own = lab.run(&["exec", "web", "--", "sh", "-c", "echo | nc -w 3 127.0.0.1 8080"]);
    assert_eq!(own.code, 0, "{}", own.err);
    for (host, port) in [("127.0.0.1", 9999), (gateway, 9999), (gateway, 9998)] {
        let script = format!("echo hello | nc -w 3 {host} {port}");
        let ran = lab.run(&["exec", "web", "-u", "root", "--", "sh", "-c", &script]);
        assert_ne!(ran.code, 0, "{host}:{port} is reachable");
    }
    for listener in [&secret, &everywhere] {
        listener.set_nonblocking(true).expect("nonblocking");
        assert!(listener.accept().is_err(), "somebody came in");
    }
    lab.finish();
}

#[test]
fn rules_that_somebody_empties_come_back_while_apps_run() {
    let lab = Lab::start("flushed");
    let everywhere = TcpListener::bind("0.0.0.0:9998").expect("a service of the box");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    lab.ok(&["apply", &lab.app("web", WEB, manifest)]);
    lab.until_state("web", "running");
    assert!(get("127.0.0.1", 8000).is_some());
    tool("nft", &["flush", "ruleset"]);
    lab.until("it is noticed", |lab| lab.daemon_log().contains("net.rules_mended").then_some(()));
    lab.until("the published port answers again", |_| get("127.0.0.1", 8000));
    let gateway = tool("ip", &["-o", "-4", "addr"]);
    let gateway = gateway
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/30"))
        .expect("the gateway's address");
    let script = format!("echo hello | nc -w 3 {gateway} 9998");
    let ran = lab.run(&["exec", "web", "-u", "root", "--", "sh", "-c", &script]);
    assert_ne!(ran.code, 0, "the box is reachable");
    everywhere.set_nonblocking(true).expect("nonblocking");
    assert!(everywhere.accept().is_err(), "somebody came in");
    lab.finish();
}

#[test]
fn secrets_of_the_environment_are_not_in_the_daemons_log() {
    let lab = Lab::start("secret");
    let manifest = format!("{SMALL}\n[env]\nTOKEN = \"s3cr3t-t0ken\"\n");
    lab.ok(&["apply", &lab.app("secret", IDLE, &manifest)]);
    lab.until_state("secret", "running");
    assert_eq!(lab.inside("secret", "echo $TOKEN").out.trim(), "s3cr3t-t0ken");
    assert!(!lab.daemon_log().contains("s3cr3t"));
    std::io::stdout().flush().expect("flush");
    lab.finish();
}
