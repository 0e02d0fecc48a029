//! Ports in, rules out, neighbours.

use super::client::{Process, container, eventually, shell};
use super::lab::get;
use super::place::{EXTERNAL, FARTHER, Garden, OUTSIDE, outside};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A web server in the container that says the container's name.
pub fn serve(garden: &Garden, handle: &str, port: u16) -> Process {
    let script = format!(
        "mkdir -p /tmp/w; echo {handle} > /tmp/w/index.html; exec httpd -f -p {port} -h /tmp/w"
    );
    let process = garden.run(handle, &shell(&script));
    let probe = format!("wget -q -O - http://127.0.0.1:{port}/");
    eventually("it listens", || (garden.sh(handle, &probe).status == 0).then_some(()));
    process
}

fn address(garden: &Garden, handle: &str) -> String {
    garden.info(handle)["ContainerIP"].as_str().expect("an address").to_owned()
}

/// Whether a container reaches a web server.
pub fn reaches(garden: &Garden, from: &str, ip: &str, port: u64) -> bool {
    garden.sh(from, &format!("timeout 5 wget -q -O - http://{ip}:{port}/")).status == 0
}

/// Nothing is open that no rule opens.
pub const DENY: &str = "\n[net]\ndeny = [\"0.0.0.0/0\"]\n";

#[test]
fn a_mapped_port_is_reached_at_the_external_address() {
    let garden = Garden::start("netin");
    garden.make("c");
    let mut server = serve(&garden, "c", 8080);
    let map = |body: Value| garden.ok("POST", "/containers/c/net/in", Some(&body));
    let pool = map(json!({"handle": "c", "container_port": 8080}));
    let port = pool["host_port"].as_u64().expect("a port");
    assert_eq!(pool, json!({"host_port": port, "container_port": 8080}));
    assert!((61001..=65534).contains(&port));
    let chosen = map(json!({"host_port": 7777, "container_port": 8080}));
    assert_eq!(chosen, json!({"host_port": 7777, "container_port": 8080}));
    let same = map(json!({}));
    assert_eq!(same["host_port"], same["container_port"]);
    for at in [port, 7777] {
        assert_eq!(get(EXTERNAL, at).as_deref(), Some("c\n"), "{at}");
    }
    assert!(reaches(&garden, "c", EXTERNAL, port), "hairpin to self");
    garden.make("other");
    assert!(reaches(&garden, "other", EXTERNAL, port), "from a neighbour");
    assert_eq!(
        garden.info("c")["MappedPorts"],
        json!([
            {"HostPort": port, "ContainerPort": 8080},
            {"HostPort": 7777, "ContainerPort": 8080},
            {"HostPort": same["host_port"], "ContainerPort": same["host_port"]},
        ])
    );
    for bad in [json!({"host_port": 70000}), json!({"container_port": 70000})] {
        let (status, kind, _) = garden.fails("POST", "/containers/c/net/in", Some(&bad));
        assert_eq!((status, kind.as_str()), (500, ""), "{bad}");
    }
    server.signal(1);
    server.finish();
    garden.destroy("c");
    assert_eq!(get(EXTERNAL, 7777), None);
    garden.finish();
}

#[test]
fn a_pool_of_ports_has_an_end_and_gets_them_back() {
    let garden = Garden::with("pool", "\n[net]\nports = \"62000-62002\"\n");
    garden.make("c");
    garden.make("d");
    let map = |handle: &str| container(handle, "/net/in");
    for _ in 0..3 {
        garden.ok("POST", &map("c"), Some(&json!({"container_port": 1})));
    }
    let (status, kind, message) = garden.fails("POST", &map("d"), Some(&json!({})));
    assert_eq!((status, kind.as_str()), (500, ""), "{message}");
    garden.destroy("c");
    eventually("a port is free again", || {
        (garden.call("POST", &map("d"), Some("{}")).status() == 200).then_some(())
    });
    garden.finish();
}

#[test]
fn a_port_that_was_given_back_is_not_the_next_one_after_a_restart() {
    let mut garden = Garden::with("nextport", "\n[net]\nports = \"62000-62004\"\n");
    let map = |garden: &Garden| {
        let mapped = garden.ok("POST", &container("c", "/net/in"), Some(&json!({})));
        mapped["host_port"].as_u64().expect("a port")
    };
    for (signal, first) in [(Signal::SIGKILL, 62_000), (Signal::SIGTERM, 62_003)] {
        garden.create(&json!({"handle": "c", "netin": [{"host_port": 0, "container_port": 1}]}));
        assert_eq!(garden.info("c")["MappedPorts"][0]["HostPort"], first);
        assert_eq!(map(&garden), first + 1);
        garden.destroy("c");
        garden.restart(signal);
        garden.make("c");
        // 62000 to 62002, then 62003, 62004 and again from the beginning.
        assert_eq!(map(&garden), if first == 62_000 { 62_002 } else { 62_000 });
        garden.destroy("c");
    }
    garden.finish();
}

#[test]
fn what_a_rule_lets_through_is_logged_under_the_containers_handle() {
    let garden = Garden::with("netlog", DENY);
    garden.make("web/1");
    let path = container("web/1", "/net/out");
    garden.does("POST", &path, Some(&json!({"protocol": 1, "log": true})));
    let rules = super::lab::tool("nft", &["list", "ruleset"]);
    let logs = rules.lines().filter(|line| line.contains("log prefix \"web/1 \"")).count();
    assert!(logs > 0, "{rules}");
    garden.does("POST", &path, Some(&json!({"protocol": 2})));
    let rules = super::lab::tool("nft", &["list", "ruleset"]);
    let again = rules.lines().filter(|line| line.contains("log prefix")).count();
    assert_eq!(again, logs, "the second asks for nothing of the kind: {rules}");
    garden.finish();
}

#[test]
fn rules_open_what_the_box_denies() {
    let garden = Garden::with("netout", DENY);
    outside();
    garden.make("c");
    let opens = |rule: Value| garden.does("POST", "/containers/c/net/out", Some(&rule));
    assert!(!reaches(&garden, "c", OUTSIDE, 8080));
    opens(json!({"protocol": 2, "networks": [{"start": OUTSIDE}]}));
    opens(json!({"protocol": 1, "networks": [{"start": "192.0.2.1", "end": "192.0.2.9"}]}));
    assert!(!reaches(&garden, "c", OUTSIDE, 8080), "other protocol, other network");
    opens(json!({"protocol": 1, "networks": [{"start": "198.51.100.0", "end": OUTSIDE}],
        "ports": [{"start": 8000, "end": 8080}]}));
    assert!(reaches(&garden, "c", OUTSIDE, 8080));
    assert!(!reaches(&garden, "c", OUTSIDE, 9090), "another port");
    assert!(!reaches(&garden, "c", FARTHER, 8080), "another address");
    let ping = format!("ping -c 1 -W 3 {OUTSIDE}");
    assert_ne!(garden.sh("c", &ping).status, 0);
    let icmp = json!({"protocol": 3, "networks": [{"start": OUTSIDE}],
        "icmps": {"type": 8, "code": 0}});
    opens(icmp);
    assert_eq!(garden.sh("c", &ping).status, 0);
    garden.does(
        "POST",
        "/containers/c/net/out/bulk",
        Some(&json!([
            {"protocol": 1, "ports": [{"start": 9090, "end": 9090}], "log": true},
            {"protocol": 2}
        ])),
    );
    assert!(reaches(&garden, "c", FARTHER, 9090), "everywhere, one port");
    garden.finish();
}

#[test]
fn wrong_rules_are_refused() {
    let garden = Garden::start("badrules");
    garden.make("c");
    let ports = json!([{"start": 1, "end": 2}]);
    for (rule, text) in [
        (json!({"protocol": 0, "ports": ports}), "Ports cannot be specified for Protocol ALL"),
        (json!({"protocol": 3, "ports": ports}), "Ports cannot be specified for Protocol ICMP"),
        (json!({"protocol": 9}), "invalid protocol: 9"),
        (json!({"protocol": 4}), "invalid protocol: 4"),
        (json!({"networks": [{"start": "nonsense"}]}), ""),
        (json!({"protocol": 1, "ports": [{"start": 70000}]}), ""),
    ] {
        let (status, kind, message) = garden.fails("POST", "/containers/c/net/out", Some(&rule));
        assert_eq!((status, kind.as_str()), (500, ""), "{rule}");
        assert!(message.contains(text), "{rule}: {message}");
        let many = json!([{"protocol": 1}, rule]);
        let (status, ..) = garden.fails("POST", "/containers/c/net/out/bulk", Some(&many));
        assert_eq!(status, 500, "{many}");
    }
    garden.does("POST", "/containers/c/net/out/bulk", Some(&json!([])));
    garden.finish();
}

#[test]
fn allowed_networks_win_over_denied_ones() {
    let more = "\n[net]\ndeny = [\"0.0.0.0/0\"]\nallow = [\"203.0.113.0/24\"]\n";
    let garden = Garden::with("allow", more);
    outside();
    garden.make("c");
    assert!(reaches(&garden, "c", FARTHER, 8080));
    assert!(!reaches(&garden, "c", OUTSIDE, 8080));
    garden.finish();
}

#[test]
fn without_denied_networks_everything_is_open() {
    let garden = Garden::start("open");
    outside();
    garden.make("c");
    assert!(reaches(&garden, "c", OUTSIDE, 8080));
    garden.finish();
}

#[test]
fn what_is_denied_anew_is_denied_to_who_lives_from_the_next_start() {
    let mut garden = Garden::start("denylate");
    outside();
    garden.make("c");
    assert!(reaches(&garden, "c", OUTSIDE, 8080));
    garden.lab().configure("late", "[net]\ndeny = [\"0.0.0.0/0\"]\n");
    garden.restart(Signal::SIGTERM);
    assert!(!reaches(&garden, "c", OUTSIDE, 8080));
    garden.finish();
}

#[test]
fn one_subnet_is_one_neighbourhood() {
    let garden = Garden::with("street", DENY);
    for (handle, network) in [("a", "10.9.1.0/24"), ("b", "10.9.1.0/24"), ("x", "10.9.2.0/24")] {
        garden.create(&json!({"handle": handle, "network": network}));
    }
    let _server = serve(&garden, "a", 8080);
    let ip = address(&garden, "a");
    assert!(reaches(&garden, "b", &ip, 8080));
    assert!(!reaches(&garden, "x", &ip, 8080));
    let rule = json!({"protocol": 1, "networks": [{"start": ip}]});
    garden.does("POST", "/containers/x/net/out", Some(&rule));
    assert!(reaches(&garden, "x", &ip, 8080), "a rule names it");
    garden.destroy("b");
    assert!(reaches(&garden, "a", &ip, 8080), "the bridge stays while somebody is there");
    garden.finish();
}

/// Whether a container reaches a listener of the box at its own gateway.
fn reaches_the_box(name: &str, more: &str) -> bool {
    let garden = Garden::with(name, more);
    garden.make("c");
    let gateway = garden.info("c")["HostIP"].as_str().expect("HostIP").to_owned();
    let listener = std::net::TcpListener::bind((gateway.as_str(), 8099)).expect("listen");
    let served = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("accept");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhost\n");
    });
    let reached = reaches(&garden, "c", &gateway, 8099);
    // The listener is let go when nobody came.
    drop(std::net::TcpStream::connect((gateway.as_str(), 8099)));
    served.join().expect("no panic");
    garden.finish();
    reached
}

#[test]
fn the_box_itself_is_closed_to_containers() {
    assert!(!reaches_the_box("hostno", ""));
}

#[test]
fn the_box_itself_can_be_opened_to_containers() {
    assert!(reaches_the_box("hostyes", "\n[net]\nallow_host_access = true\n"));
}

#[test]
fn names_and_resolvers_are_written_for_the_container() {
    let garden = Garden::start("hosts");
    garden.make("web-1");
    let ip = address(&garden, "web-1");
    let hosts = garden.says("web-1", "cat /etc/hosts");
    assert!(hosts.contains("127.0.0.1 localhost"), "{hosts}");
    assert!(hosts.lines().any(|line| line.starts_with(&format!("{ip} "))), "{hosts}");
    assert!(!garden.says("web-1", "hostname").is_empty());
    let resolvers = garden.says("web-1", "cat /etc/resolv.conf");
    assert!(!resolvers.contains("nameserver 127."), "{resolvers}");
    assert_eq!(garden.says("web-1", "cat /sys/class/net/*/mtu | sort -n | head -1"), "1500");
    garden.finish();
}
