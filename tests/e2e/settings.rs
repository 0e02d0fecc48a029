//! What the box's owner sets.

use super::lab::{Lab, fetch, tool};
use serde_json::Value;
use std::net::TcpListener;

const IDLE: &str = "echo up\nexec sleep 100000\n";
const SMALL: &str = "[run]\nmemory = \"64MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

/// What the daemon tells about itself.
fn vars() -> Value {
    let body = fetch("127.0.0.1", 17013, "/debug/vars").expect("an answer");
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn the_daemon_tells_its_figures_where_the_owner_wants_them() {
    let mut lab = Lab::new("figures");
    lab.configure("debug", "[garden]\ndebug = \"127.0.0.1:17013\"\n");
    lab.serve();
    let idle = vars();
    assert_eq!(idle["cmdline"][3], "serve", "{idle}");
    for count in ["numContainers", "depotDirs", "backingStores"] {
        assert_eq!(idle[count], 0, "{count}: {idle}");
    }
    let memory = |of: &str, name: &str| idle[of][name].as_u64().expect("bytes");
    assert!(memory("memstats", "Sys") > memory("memstats", "Alloc"), "{idle}");
    let resident = memory("memory", "resident");
    assert!((1 << 20..256 << 20).contains(&resident), "in bytes: {idle}");
    assert!(idle["numGoRoutines"].as_u64() >= Some(1), "{idle}");

    lab.ok(&["apply", &lab.app("one", IDLE, SMALL)]);
    lab.until_state("one", "running");
    // The container in which it was staged goes a moment after.
    lab.until("one container is left", |_| {
        let vars = vars();
        let counts = ["numContainers", "depotDirs", "backingStores"].map(|count| &vars[count]);
        (counts == [1, 1, 1]).then_some(())
    });
    lab.finish();
    assert_eq!(fetch("127.0.0.1", 17013, "/debug/vars"), None, "it goes with the daemon");
}

#[test]
fn containers_are_told_names_servers_and_the_address_that_the_owner_adds() {
    let mut lab = Lab::new("names");
    lab.configure(
        "net",
        "[net]\nexternal_address = \"192.0.2.10\"\ndns = [\"192.0.2.53\"]\n\
         additional_dns = [\"192.0.2.54\"]\nadditional_hosts = [\"10.0.0.7 db.lan db\"]\n\
         allow_host_access = true\n",
    );
    lab.serve();
    let rules = tool("nft", &["list", "table", "ip", "terrarium"]);
    assert!(rules.contains("192.0.2.53, 192.0.2.54"), "both are let through:\n{rules}");
    assert!(rules.contains("@guests accept"), "the box is open to Garden's containers:\n{rules}");
    lab.ok(&["apply", &lab.app("names", "echo at $CF_INSTANCE_IP\nexec sleep 100000\n", SMALL)]);
    lab.until_state("names", "running");
    let inside = |file: &str| lab.inside("names", &format!("cat {file}")).out;
    assert_eq!(inside("/etc/resolv.conf"), "nameserver 192.0.2.53\nnameserver 192.0.2.54\n");
    let hosts = inside("/etc/hosts");
    assert!(hosts.ends_with("\n10.0.0.7 db.lan db\n"), "{hosts}");
    lab.until("its first line is in the log", |lab| {
        (!lab.logged("names", "at 192.0.2.10").is_empty()).then_some(())
    });
    lab.finish();
}

#[test]
fn a_setting_that_cannot_be_is_refused_at_the_start_with_its_line_or_cure() {
    let lab = Lab::new("refused");
    let refused = |text: &str| {
        lab.configure("bad", text);
        let ran = lab.run(&["serve"]);
        assert_ne!(ran.code, 0, "{text}");
        ran.err
    };
    for (line, message, cure) in [
        ("listen = \"0.0.0.0:7777\"", "other machines", "listen_anywhere = true"),
        ("grace_tim = \"5m\"", "unknown key `grace_tim` in [garden]", "`grace_time`"),
        ("debug = \"17013\"", "`17013` is no address with a port", "127.0.0.1:7777"),
    ] {
        let err = refused(&format!("[garden]\n\n{line}\n"));
        assert!(err.contains("terrarium.toml.d/bad.toml:3:"), "{err}");
        assert!(err.contains(message) && err.contains(cure), "{err}");
    }
    let taken = TcpListener::bind("127.0.0.1:17013").expect("listen");
    let err = refused("[garden]\ndebug = \"127.0.0.1:17013\"\n");
    assert!(err.contains("`debug` of [garden]"), "{err}");
    assert!(err.contains("port 17013 of 127.0.0.1 is taken"), "{err}");
    drop(taken);
    let err = refused("[garden]\ndebug = \"192.0.2.1:17013\"\nlisten_anywhere = true\n");
    assert!(err.contains("192.0.2.1 is no address of this box"), "{err}");
    lab.assert_nothing_left();
    std::fs::remove_dir_all(&lab.root).expect("clean up");
}
