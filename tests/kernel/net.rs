//! The network of containers, against the kernel and checked with `ip` and `nft`.

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use terrarium::netlink::Route;
use terrarium::netlink::route::message::Veth;

/// Gives the calling test thread an empty network.
fn lab() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: run `cargo xtask test kernel`");
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare net");
}

/// The network namespace of the calling thread.
fn here() -> File {
    File::open("/proc/thread-self/ns/net").expect("own network namespace")
}

/// A new network namespace; the calling thread stays where it is.
fn netns() -> File {
    std::thread::scope(|scope| scope.spawn(|| (lab(), here()).1).join().expect("netns thread"))
}

/// Runs `work` on a thread inside `netns`.
fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        });
        thread.join().expect("inside a namespace")
    })
}

/// The JSON that another tool prints about the network of the calling thread.
fn json(program: &str, args: &[&str]) -> Value {
    let output = Command::new(program).args(args).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    match output.stdout.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&output.stdout).expect("JSON"),
    }
}

#[test]
fn links_addresses_and_routes_are_what_ip_shows() {
    lab();
    let mut route = Route::open().expect("route socket");
    let lo = route.link("lo").expect("get").expect("lo");
    route.set_up(lo.index).expect("lo up");
    route.add_bridge("wb-1", 1400, [2, 0, 0, 0, 0, 1]).expect("bridge");
    assert!(route.add_bridge("wb-1", 1400, [2, 0, 0, 0, 0, 1]).expect_err("twice").exists());
    let bridge = route.link("wb-1").expect("get").expect("bridge");
    assert_eq!((bridge.kind.as_deref(), bridge.mtu, bridge.up), (Some("bridge"), 1400, false));
    let gateway = Ipv4Addr::new(10, 254, 0, 1);
    route.add_address(bridge.index, gateway, 30).expect("address");
    route.set_up(bridge.index).expect("up");
    let netns = netns();
    let veth = Veth {
        outer: "w1-0",
        inner: "w1-1",
        mtu: 1400,
        bridge: bridge.index,
        netns: netns.as_fd(),
    };
    route.add_veth(&veth).expect("veth");
    let port = route.link("w1-0").expect("get").expect("port");
    assert_eq!(port.master, Some(bridge.index));
    route.set_hairpin(port.index).expect("hairpin");
    route.no_ipv6_address(port.index).expect("no address");
    inside(&netns, || {
        let mut route = Route::open().expect("route socket");
        let end = route.link("w1-1").expect("get").expect("inner end");
        route.add_address(end.index, Ipv4Addr::new(10, 254, 0, 2), 30).expect("address");
        assert!(route.add_default_route(end.index, gateway).is_err(), "the link is down");
        route.set_up(end.index).expect("up");
        route.add_default_route(end.index, gateway).expect("route");
        assert!(route.add_default_route(end.index, gateway).expect_err("twice").exists());
        let way = route.way_to(Ipv4Addr::new(1, 2, 3, 4)).expect("lookup").expect("a way");
        assert_eq!(way.source, Some(Ipv4Addr::new(10, 254, 0, 2)));
        let shown = json("ip", &["-j", "route"]);
        assert_eq!(shown[0]["gateway"], "10.254.0.1");
    });
    assert_eq!(route.way_to(Ipv4Addr::new(1, 2, 3, 4)).expect("lookup"), None);
    let shown = json("ip", &["-j", "-d", "link", "show", "w1-0"]);
    assert_eq!(shown[0]["master"], "wb-1");
    assert_eq!(shown[0]["linkinfo"]["info_slave_data"]["hairpin"], true);
    assert_eq!(json("ip", &["-j", "addr", "show", "wb-1"])[0]["addr_info"][0]["prefixlen"], 30);
    assert!(route.routes().expect("routes").iter().any(|r| r.prefix == 30));
    assert_eq!(
        route.links().expect("links").len(),
        json("ip", &["-j", "link"]).as_array().expect("list").len()
    );
    let long = route.link("a-name-that-is-too-long");
    assert!(terrarium::log::chain(&long.expect_err("too long")).contains("kernel: "));
    route.delete_link("wb-1").expect("delete");
    assert!(route.delete_link("wb-1").expect_err("twice").missing());
}
