//! The network of containers, against the kernel and checked with `ip`, `nft` and `tc`.

mod garden;
mod shared;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};
use terrarium::log::chain;
use terrarium::model::egress::{Protocol, Rule};
use terrarium::net::{self, Bandwidth, Net, NetConfig, NetError, Otherwise, PortMap};
use terrarium::netlink::route::message::{Bridge, Veth};
use terrarium::netlink::{self, Route, Socket};
use terrarium::unit::Slot;

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
    let bridge = Bridge { name: "wb-1", mtu: 1400, mac: [2, 0, 0, 0, 0, 1], group: 77 };
    route.add_bridge(&bridge).expect("bridge");
    assert!(route.add_bridge(&bridge).expect_err("twice").exists());
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
    assert!(chain(&long.expect_err("too long")).contains("kernel: "));
    route.delete_link("wb-1").expect("delete");
    assert!(route.delete_link("wb-1").expect_err("twice").missing());
}

/// Runs a tool that must succeed.
fn run(command: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect(program);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The outside of the box: 198.51.100.2 and .3, one cable away from the box's 198.51.100.1.
fn outside() -> File {
    let far = netns();
    run("ip link set lo up");
    let pid = std::process::id();
    let path = format!("/proc/{pid}/fd/{}", far.as_raw_fd());
    run(&format!("ip link add up0 type veth peer name far0 netns {path}"));
    run("ip addr add 198.51.100.1/24 dev up0");
    run("ip link set up0 up");
    inside(&far, || {
        run("ip link set lo up");
        run("ip addr add 198.51.100.2/24 dev far0");
        run("ip addr add 198.51.100.3/24 dev far0");
        run("ip link set far0 up");
    });
    run("ip route add default via 198.51.100.2");
    far
}

/// Returns when the kernel says that a link is up: it does so some time after it was set so.
fn is_up(link: &str) {
    let begun = Instant::now();
    while json("ip", &["-j", "link", "show", link])[0]["operstate"] != "UP" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{link} does not come up");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Longer than the second after which a lost packet is sent again.
const PATIENCE: Duration = Duration::from_millis(1500);
const BOX: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const FARTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn open() -> Net {
    open_as(NetConfig::new("terrarium", ""))
}

fn open_as(cfg: NetConfig) -> Net {
    Net::open(cfg).map_err(|err| chain(&err)).expect("open")
}

fn slot(n: u32) -> Slot {
    Slot::new(n).expect("slot")
}

/// Gives a slot a network namespace that is set up as a container's.
fn container(net: &Net, n: u32) -> File {
    container_as(net, n, "")
}

fn container_as(net: &Net, n: u32, tag: &str) -> File {
    let netns = netns();
    net.attach(slot(n), netns.as_fd()).map_err(|err| chain(&err)).expect("attach");
    let addresses = net.addresses(slot(n));
    inside(&netns, || {
        let mut route = Route::open().expect("route socket");
        for name in ["lo", &slot(n).veth_inside(tag)] {
            let link = route.link(name).expect("get").expect(name);
            if name != "lo" {
                let (address, prefix) = (addresses.container, addresses.prefix);
                route.add_address(link.index, address, prefix).expect("address");
            }
            route.set_up(link.index).expect("up");
            if name != "lo" {
                route.add_default_route(link.index, addresses.gateway).expect("route");
            }
        }
    });
    assert!(net.settle(slot(n)).expect("settle"));
    netns
}

fn address(net: &Net, n: u32) -> Ipv4Addr {
    net.addresses(slot(n)).container
}

fn allow(net: &Net, n: u32, ports: &[(u16, u16)], rules: &[Rule]) {
    try_allow(net, n, ports, rules).map_err(|err| chain(&err)).expect("allow");
}

fn try_allow(net: &Net, n: u32, ports: &[(u16, u16)], rules: &[Rule]) -> Result<(), NetError> {
    let ports: Vec<_> = ports
        .iter()
        .map(|(host, container)| PortMap { host: *host, container: *container })
        .collect();
    net.allow(slot(n), &ports, rules, Otherwise::Deny)
}

fn tcp(to: &[Ipv4Addr], ports: &[(u16, u16)]) -> Rule {
    let to = to.iter().map(|address| (*address, *address)).collect();
    Rule { protocol: Protocol::Tcp, to, ports: ports.to_vec(), icmp: None, log: false }
}

/// Every address there is, named.
fn everything() -> Rule {
    let to = vec![(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)];
    Rule { protocol: Protocol::All, to, ports: Vec::new(), icmp: None, log: false }
}

/// Answers every connection with a name and the peer's address, until it is dropped.
struct Server(Arc<TcpListener>, Option<thread::JoinHandle<()>>);

fn serve(netns: &File, name: &'static str, address: Ipv4Addr, port: u16) -> Server {
    let listener = inside(netns, || TcpListener::bind((address, port)).expect("listen"));
    let listener = Arc::new(listener);
    let accepting = Arc::clone(&listener);
    let thread = thread::spawn(move || {
        while let Ok((mut stream, peer)) = accepting.accept() {
            let _ = write!(stream, "{name} {}", peer.ip());
        }
    });
    Server(listener, Some(thread))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

/// What a server says to a client in `netns`, or how the connection fails: `HostUnreachable` and
/// `ConnectionRefused` come from an answer, `TimedOut` from silence.
fn talk(netns: &File, to: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    inside(netns, || {
        let to = SocketAddr::from((to, port));
        let mut stream = match TcpStream::connect_timeout(&to, PATIENCE) {
            // The standard library saw that there was an error, and it was gone when it asked which.
            Err(err) if err.raw_os_error().is_none() && err.kind() != ErrorKind::TimedOut => {
                TcpStream::connect_timeout(&to, PATIENCE)
            }
            connected => connected,
        }
        .map_err(|err| err.kind())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|err| err.kind())?;
        Ok(text)
    })
}

/// What a server of this name says to a client that it sees as `peer`.
fn says(name: &str, peer: Ipv4Addr) -> Result<String, ErrorKind> {
    Ok(format!("{name} {peer}"))
}

const REFUSED: Result<String, ErrorKind> = Err(ErrorKind::HostUnreachable);
const SILENCE: Result<String, ErrorKind> = Err(ErrorKind::TimedOut);

#[test]
fn a_published_port_answers_on_loopback_on_the_own_address_and_to_the_outside() {
    lab();
    let (here, far, net) = (here(), outside(), open());
    let app = container(&net, 5);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 5, &[(8080, 80)], &[]);
    let gateway = net.addresses(slot(5)).gateway;
    assert_eq!(talk(&here, LOCALHOST, 8080), says("web", gateway));
    assert_eq!(talk(&here, BOX, 8080), says("web", BOX));
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR), "the app sees who calls");
    assert_eq!(talk(&here, address(&net, 5), 80), says("web", gateway));
    assert_eq!(talk(&far, BOX, 80), Err(ErrorKind::ConnectionRefused), "only the host port");
    let _ssh = serve(&here, "ssh", Ipv4Addr::UNSPECIFIED, 22);
    assert_eq!(talk(&far, BOX, 22), says("ssh", FAR), "the box's own services go on");
    inside(&far, || run("ip route add 10.254.0.0/16 via 198.51.100.1"));
    assert_eq!(talk(&far, address(&net, 5), 80), SILENCE, "nobody routes into a container");
    let (received, sent) = net.traffic(slot(5)).expect("traffic").expect("a link");
    assert!(received > 0 && sent > 0);
}

#[test]
fn a_container_reaches_what_its_rules_open_and_nothing_else() {
    lab();
    let (here, far, net) = (here(), outside(), open());
    let app = container(&net, 0);
    let _far = serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80);
    let _tls = serve(&far, "tls", Ipv4Addr::UNSPECIFIED, 443);
    let _ssh = serve(&here, "ssh", Ipv4Addr::UNSPECIFIED, 22);
    assert_eq!(talk(&app, FAR, 80), SILENCE, "no rules yet");
    allow(&net, 0, &[], &[]);
    assert_eq!(talk(&app, FAR, 80), REFUSED, "nothing declared");
    allow(&net, 0, &[], &[tcp(&[FAR], &[(80, 80)])]);
    assert_eq!(talk(&app, FAR, 80), says("far", BOX));
    assert_eq!(talk(&app, FARTHER, 80), REFUSED);
    assert_eq!(talk(&app, FAR, 443), REFUSED);
    assert_eq!(talk(&app, FAR, 81), REFUSED);
    allow(
        &net,
        0,
        &[],
        &[Rule {
            protocol: Protocol::Tcp,
            to: vec![(FAR, FARTHER)],
            ports: vec![(1, 100), (443, 500)],
            icmp: None,
            log: true,
        }],
    );
    assert_eq!(talk(&app, FARTHER, 80), says("far", BOX));
    assert_eq!(talk(&app, FARTHER, 443), says("tls", BOX));
    assert_eq!(talk(&app, FARTHER, 101), REFUSED);
    allow(&net, 0, &[], &[Rule { to: vec![], ..everything() }]);
    assert_eq!(talk(&app, FAR, 80), says("far", BOX));
}

#[test]
fn the_box_and_link_local_addresses_stay_closed_whatever_is_opened() {
    lab();
    let (here, far, net) = (here(), outside(), open());
    let app = container(&net, 0);
    allow(&net, 0, &[], &[everything(), Rule { to: Vec::new(), ..everything() }]);
    let _ssh = serve(&here, "ssh", Ipv4Addr::UNSPECIFIED, 22);
    let _far = serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80);
    inside(&far, || run("ip addr add 169.254.169.254/32 dev far0"));
    assert_eq!(talk(&app, FAR, 80), says("far", BOX));
    assert_eq!(talk(&app, Ipv4Addr::new(169, 254, 169, 254), 80), REFUSED);
    let gateway = net.addresses(slot(0)).gateway;
    for address in [BOX, gateway] {
        assert_eq!(talk(&app, address, 22), REFUSED, "{address}");
    }
}

#[test]
fn a_forged_source_address_gets_nowhere() {
    lab();
    let (far, net) = (outside(), open());
    let (app, sibling) = (container(&net, 0), container(&net, 1));
    let everywhere = Rule { to: Vec::new(), ..everything() };
    allow(&net, 0, &[], std::slice::from_ref(&everywhere));
    allow(&net, 1, &[], &[everywhere]);
    let socket = inside(&far, || UdpSocket::bind((FAR, 5353)).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
    let tell = |from: &File, what: &str| {
        inside(from, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            socket.send_to(what.as_bytes(), (FAR, 5353)).expect("send");
        });
    };
    // What is told first arrives first, if it arrives.
    let told = || {
        let mut bytes = [0; 16];
        // Another test's child that ends at this moment interrupts the call.
        let len = loop {
            match socket.recv(&mut bytes) {
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.expect("a message"),
            }
        };
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    tell(&app, "honest");
    assert_eq!(told(), "honest");
    inside(&app, || {
        run("ip addr del 10.254.0.2/30 dev w0-1");
        // The sibling's address.
        run("ip addr add 10.254.0.6/32 dev w0-1");
        run("ip route add 10.254.0.1 dev w0-1");
        run("ip route add default via 10.254.0.1");
    });
    for check in ["1", "0"] {
        let file = "/proc/sys/net/ipv4/conf/wb-0/rp_filter";
        assert!(check == "0" || fs::read_to_string(file).expect("rp_filter").trim() == check);
        // Without the kernel's own check the rule still holds.
        fs::write(file, check).expect("rp_filter");
        tell(&app, "forged");
        tell(&sibling, "honest");
        assert_eq!(told(), "honest", "rp_filter {check}");
    }
    inside(&app, || run("ip addr add 203.0.113.9/32 dev w0-1"));
    run("nft flush chain ip terrarium pass");
    run("nft flush chain ip terrarium raw");
    tell(&app, "forged");
    assert_eq!(told(), "forged", "without the rule it would arrive");
}

#[test]
fn a_forged_answer_does_not_reach_the_boxs_own_conversations() {
    lab();
    let (_far, net) = (outside(), open());
    let app = container(&net, 0);
    // The loose check, as Ubuntu sets it for the whole box: it takes any source with a route.
    fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").expect("rp_filter");
    inside(&app, || {
        run(&format!("ip addr add {FAR}/32 dev w0-1"));
    });
    // The box asks the outside, as for a name; whoever answers first is believed.
    let ask = UdpSocket::bind((BOX, 0)).expect("bind");
    ask.connect((FAR, 5353)).expect("connect");
    ask.send(b"who?").expect("send");
    let port = ask.local_addr().expect("address").port();
    ask.set_read_timeout(Some(Duration::from_millis(500))).expect("time-out");
    let lie = || {
        inside(&app, || {
            let socket = UdpSocket::bind((FAR, 5353)).expect("bind");
            socket.send_to(b"me", (BOX, port)).expect("send");
        });
        // The answer of nobody at FAR may be in the way: a refusal is read once.
        (0..2).find_map(|_| ask.recv(&mut [0; 8]).ok())
    };
    assert_eq!(lie(), None);
    run("nft flush chain ip terrarium raw");
    assert_eq!(lie(), Some(2), "without the rule it would arrive");
}

#[test]
fn a_sibling_is_reached_through_a_port_that_both_sides_opened_or_not_at_all() {
    lab();
    let (far, net) = (outside(), open());
    let (app, sibling) = (container(&net, 0), container(&net, 1));
    let there = address(&net, 1);
    let _web = serve(&sibling, "web", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 1, &[(8080, 80)], &[]);
    allow(&net, 0, &[], &[Rule { to: Vec::new(), ..everything() }]);
    assert_eq!(talk(&app, there, 80), REFUSED);
    assert_eq!(talk(&app, BOX, 8080), REFUSED, "'everywhere' is not the other containers");
    allow(&net, 0, &[], &[tcp(&[there], &[(80, 80)])]);
    assert_eq!(talk(&app, there, 80), REFUSED, "named, but not through the port");
    let gateway = net.addresses(slot(1)).gateway;
    assert_eq!(talk(&app, BOX, 8080), says("web", gateway));
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR));
}

#[test]
fn a_container_reaches_its_own_published_port_with_and_without_bridge_netfilter() {
    lab();
    let (_far, net) = (outside(), open());
    let app = container(&net, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 0, &[(8080, 80)], &[]);
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    for on in ["1", "0"] {
        if fs::exists(switch).expect("proc") {
            fs::write(switch, on).expect("bridge netfilter");
        }
        assert_eq!(talk(&app, BOX, 8080), says("web", net.addresses(slot(0)).gateway), "{on}");
    }
}

#[test]
fn a_published_port_is_spread_over_the_instances_and_follows_them() {
    lab();
    let (far, net) = (outside(), open());
    let here = here();
    let (one, two) = (container(&net, 1), container(&net, 2));
    let _servers = [
        serve(&one, "one", Ipv4Addr::UNSPECIFIED, 80),
        serve(&two, "two", Ipv4Addr::UNSPECIFIED, 81),
    ];
    allow(&net, 1, &[], &[]);
    allow(&net, 2, &[], &[]);
    let both = [(address(&net, 1), 80), (address(&net, 2), 81)];
    let tally = |from: &File, ports: &[u16]| {
        let mut tally = BTreeMap::new();
        for _ in 0..6 {
            for port in ports {
                let said = talk(from, BOX, *port).expect("answer");
                let name = said.split(' ').next().expect("name").to_owned();
                *tally.entry((*port, name)).or_insert(0) += 1;
            }
        }
        tally
    };
    let share = |port: u16, name: &str, n: i32| ((port, name.to_owned()), n);
    net.publish(9000, &both).expect("publish");
    net.publish(9001, &both).expect("publish");
    // Two ports asked in turn: each counts for itself.
    let fair = [
        share(9000, "one", 3),
        share(9000, "two", 3),
        share(9001, "one", 3),
        share(9001, "two", 3),
    ];
    assert_eq!(tally(&far, &[9000, 9001]), BTreeMap::from(fair));
    net.publish(9000, &both[1..]).expect("publish");
    assert_eq!(tally(&here, &[9000]), BTreeMap::from([share(9000, "two", 6)]));
    assert_eq!(net.published_ports().expect("list").len(), 2);
    net.publish(9000, &[]).expect("unpublish");
    net.publish(9000, &[]).expect("again");
    assert_eq!(talk(&far, BOX, 9000), Err(ErrorKind::ConnectionRefused));
    assert_eq!(net.published_ports().expect("list"), [9001]);
    let many: Vec<_> = (0..300).map(|n| (address(&net, 1), 1000 + n)).collect();
    net.publish(9001, &many).expect("more than a handful");
}

#[test]
fn release_leaves_no_link_rule_element_or_connection_and_can_be_repeated() {
    lab();
    let (far, net) = (outside(), open());
    is_up("up0");
    let before = (json("ip", &["-j", "link"]), json("nft", &["-j", "list", "ruleset"]));
    let app = container(&net, 3);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 3, &[(8080, 80), (8081, 80)], &[everything()]);
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR));
    let other = container(&net, 5);
    let _other = serve(&other, "other", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 5, &[(8085, 80)], &[everything()]);
    assert_eq!(talk(&far, BOX, 8085), says("other", FAR));
    let connections = |address: &str| {
        let list = fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("conntrack");
        list.lines().filter(|line| line.contains(address)).count()
    };
    assert_eq!((connections("10.254.0.14"), connections("10.254.0.22")), (1, 1));
    assert_eq!(net.slots_on_host().expect("list"), [slot(3), slot(5)]);
    for _ in 0..2 {
        net.release(slot(3)).map_err(|err| chain(&err)).expect("release");
        assert_eq!(net.slots_on_host().expect("list"), [slot(5)]);
        assert_eq!((connections("10.254.0.14"), connections("10.254.0.22")), (0, 1));
    }
    net.release(slot(5)).map_err(|err| chain(&err)).expect("release");
    net.release(slot(4)).expect("a slot that never was");
    let after = (json("ip", &["-j", "link"]), json("nft", &["-j", "list", "ruleset"]));
    assert_eq!(before, after);
    container(&net, 3);
    allow(&net, 3, &[(8080, 80)], &[]);
}

#[test]
fn a_crash_between_any_two_steps_is_swept_by_release() {
    lab();
    run("ip link set lo up");
    let net = open();
    // Rules without links; links without rules; the veth alone.
    allow(&net, 1, &[(8080, 80)], &[]);
    container(&net, 2);
    run("ip link add w3-0 type veth peer name w3-1");
    run("ip link add w3x-0 type veth peer name other");
    let slots: Vec<_> = [1, 2, 3].map(slot).into();
    assert_eq!(net.slots_on_host().expect("list"), slots);
    for slot in slots {
        net.release(slot).map_err(|err| chain(&err)).expect("release");
    }
    assert_eq!(net.slots_on_host().expect("list"), []);
    run("ip link show w3x-0");
}

#[test]
fn a_daemon_that_comes_back_keeps_the_rules_of_live_containers_and_renews_its_own() {
    lab();
    let (far, first) = (outside(), open());
    let app = container(&first, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    let _far = serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80);
    let _dns = serve(&far, "dns", Ipv4Addr::UNSPECIFIED, 53);
    allow(&first, 0, &[(8080, 80)], &[tcp(&[FAR], &[(80, 80)])]);
    first.publish(9000, &[(address(&first, 0), 80)]).expect("publish");
    let before = json("nft", &["-j", "list", "chain", "ip", "terrarium", "c0"]);
    drop(first);
    run("nft flush chain ip terrarium local");
    let cfg = NetConfig { resolvers: vec![FARTHER], ..NetConfig::new("terrarium", "") };
    let net = open_as(cfg.clone());
    drop(net);
    let net = open_as(cfg);
    assert_eq!(before, json("nft", &["-j", "list", "chain", "ip", "terrarium", "c0"]));
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR));
    assert_eq!(talk(&far, BOX, 9000), says("web", FAR));
    assert_eq!(talk(&app, FAR, 80), says("far", BOX));
    assert_eq!(talk(&app, FARTHER, 80), REFUSED);
    assert_eq!(talk(&app, FARTHER, 53), says("dns", BOX), "the new resolver");
    assert_eq!(talk(&app, BOX, 22), REFUSED, "the flushed chain is back");
    assert_eq!(net.slots_on_host().expect("list"), [slot(0)]);
    let listing = json("nft", &["-j", "list", "chain", "ip", "terrarium", "pass"]);
    assert_eq!(listing["nftables"].as_array().expect("list").len(), 2 + 6, "no rule twice");
}

#[test]
fn loopback_services_of_the_box_stay_out_of_reach_while_published_ports_answer_there() {
    lab();
    let (here, _far, net) = (here(), outside(), open());
    let app = container(&net, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    let _secret = serve(&here, "secret", LOCALHOST, 7777);
    allow(&net, 0, &[(8080, 80)], &[everything()]);
    inside(&app, || {
        run("ip link set lo down");
        run("ip route flush table local");
        run("ip route add local 10.254.0.2 dev w0-1 table local");
        for link in ["all", "w0-1"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").expect("set");
        }
        run("ip route add 127.0.0.0/8 via 10.254.0.1");
    });
    assert_eq!(talk(&app, LOCALHOST, 7777), SILENCE);
    assert_eq!(talk(&app, LOCALHOST, 8080), SILENCE);
    assert_eq!(talk(&here, LOCALHOST, 8080), says("web", net.addresses(slot(0)).gateway));
    // The trick works but for our two chains, so this test would see a hole.
    run("nft flush chain ip terrarium raw");
    assert_eq!(talk(&app, LOCALHOST, 7777), REFUSED);
    run("nft flush chain ip terrarium local");
    assert_eq!(talk(&app, LOCALHOST, 7777), says("secret", address(&net, 0)));
}

#[test]
fn a_port_clash_names_the_port_and_changes_nothing() {
    lab();
    run("ip link set lo up");
    let net = open();
    allow(&net, 1, &[(8080, 80)], &[]);
    net.publish(9000, &[(address(&net, 1), 80)]).expect("publish");
    let before = json("nft", &["-j", "list", "ruleset"]);
    for ports in [[(8081, 80), (8080, 80)], [(8082, 80), (9000, 80)]] {
        let err = try_allow(&net, 2, &ports, &[]).expect_err("clash");
        assert!(matches!(err, NetError::PortTaken { port } if port == ports[1].0), "{err}");
        assert_eq!(before, json("nft", &["-j", "list", "ruleset"]));
    }
    let err = net.publish(8080, &[(address(&net, 2), 80)]).expect_err("clash");
    assert!(err.to_string().contains("host port 8080 is in use"), "{err}");
    let err = try_allow(&net, 2, &[(8085, 80), (8085, 81)], &[]).expect_err("twice in one list");
    assert!(matches!(err, NetError::PortTaken { port: 8085 }), "{err}");
    assert_eq!(before, json("nft", &["-j", "list", "ruleset"]));
    // A second call for the same slot replaces; what it had is no clash.
    allow(&net, 1, &[(8080, 81), (8083, 80)], &[everything()]);
    let err = try_allow(&net, 1, &[(9000, 80)], &[]).expect_err("clash");
    assert!(matches!(err, NetError::PortTaken { port: 9000 }), "{err}");
    allow(&net, 1, &[], &[]);
    allow(&net, 2, &[(8080, 80), (8083, 80)], &[]);
}

#[test]
fn a_failed_attach_leaves_no_link() {
    lab();
    let net = open();
    let before = json("ip", &["-j", "link"]);
    let no_netns = File::open("/dev/null").expect("open");
    let err = net.attach(slot(1), no_netns.as_fd()).expect_err("not a namespace");
    assert!(chain(&err).contains("w1-0"), "{}", chain(&err));
    assert_eq!(before, json("ip", &["-j", "link"]));
    // Links go with their namespace, a moment after it.
    let _app = container(&net, 1);
    let before = json("ip", &["-j", "link"]);
    let err = net.attach(slot(1), netns().as_fd()).expect_err("twice");
    assert!(matches!(&err, NetError::LinkExists { link } if link == "wb-1"), "{err}");
    assert_eq!(before, json("ip", &["-j", "link"]), "the first one is not touched");
}

#[test]
fn every_call_works_in_the_namespace_of_open_whichever_thread_makes_it() {
    lab();
    let (here, net) = (here(), open());
    let elsewhere = netns();
    // Links go with their namespace, a moment after it.
    let _app = inside(&elsewhere, || {
        let app = container(&net, 0);
        allow(&net, 0, &[(8080, 80)], &[]);
        assert_eq!(json("ip", &["-j", "link"]).as_array().expect("list").len(), 1);
        app
    });
    for (setting, want) in [
        ("ipv4/conf/wb-0/route_localnet", "1"),
        ("ipv6/conf/wb-0/disable_ipv6", "1"),
        ("ipv6/conf/w0-0/disable_ipv6", "1"),
        ("ipv4/ip_forward", "1"),
    ] {
        let path = format!("/proc/sys/net/{setting}");
        assert_eq!(fs::read_to_string(path).expect("setting").trim(), want, "{setting}");
    }
    inside(&elsewhere, || net.release(slot(0)).expect("release"));
    inside(&here, || assert_eq!(json("ip", &["-j", "link"]).as_array().expect("list").len(), 1));
}

#[test]
fn two_daemons_share_a_box_when_tag_table_and_pool_differ() {
    lab();
    let (far, one) = (outside(), open());
    let app = container(&one, 1);
    allow(&one, 1, &[(8080, 80)], &[]);
    assert_eq!(
        net::choose_pool(Ipv4Addr::new(10, 254, 0, 0), "").expect("pool"),
        Ipv4Addr::new(10, 254, 0, 0)
    );
    let pool = net::choose_pool(Ipv4Addr::new(10, 254, 0, 0), "a").expect("pool");
    assert_eq!(pool, Ipv4Addr::new(10, 253, 0, 0));
    let two = open_as(NetConfig { pool: (pool, 16), ..NetConfig::new("terrarium-a", "a") });
    let other = container_as(&two, 1, "a");
    allow(&two, 1, &[(8081, 80)], &[everything()]);
    let _servers = [
        serve(&app, "one", Ipv4Addr::UNSPECIFIED, 80),
        serve(&other, "two", Ipv4Addr::UNSPECIFIED, 80),
    ];
    assert_eq!(talk(&far, BOX, 8080), says("one", FAR));
    assert_eq!(talk(&far, BOX, 8081), says("two", FAR));
    assert_eq!(talk(&other, address(&one, 1), 80), SILENCE, "the other daemon's rules hold");
    assert_eq!(
        (one.slots_on_host().expect("list"), two.slots_on_host().expect("list")),
        (vec![slot(1)], vec![slot(1)])
    );
    one.close().expect("close");
    assert_eq!(talk(&far, BOX, 8080), says("one", FAR), "close spares a table in use");
    one.release(slot(1)).expect("release");
    one.close().expect("close");
    one.close().expect("again");
    assert_eq!(talk(&far, BOX, 8081), says("two", FAR));
    two.release(slot(1)).expect("release");
    two.close().expect("close");
    let left = json("nft", &["-j", "list", "tables"]);
    assert_eq!(left["nftables"].as_array().expect("list").len(), 1, "only the tool's own version");
}

#[test]
fn name_servers_are_reached_even_at_link_local_addresses_and_the_box_if_it_says_so() {
    lab();
    let (here, far) = (here(), outside());
    let metadata = Ipv4Addr::new(169, 254, 169, 253);
    inside(&far, || run("ip addr add 169.254.169.253/32 dev far0"));
    let cfg = NetConfig { resolvers: vec![metadata], ..NetConfig::new("terrarium", "") };
    let net = open_as(cfg.clone());
    let app = container(&net, 0);
    allow(&net, 0, &[], &[]);
    let _servers = [
        serve(&far, "dns", Ipv4Addr::UNSPECIFIED, 53),
        serve(&far, "web", Ipv4Addr::UNSPECIFIED, 80),
    ];
    let _own = serve(&here, "own", Ipv4Addr::UNSPECIFIED, 53);
    let gateway = net.addresses(slot(0)).gateway;
    assert_eq!(talk(&app, metadata, 53), says("dns", BOX));
    assert_eq!(talk(&app, metadata, 80), REFUSED);
    assert_eq!(talk(&app, FAR, 53), REFUSED);
    assert_eq!(talk(&app, gateway, 53), REFUSED);
    let question = inside(&far, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).expect("bind"));
    inside(&app, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        socket.send_to(b"?", (metadata, 53)).expect("send");
    });
    question.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
    assert_eq!(question.recv_from(&mut [0; 8]).expect("the question").0, 1);
    let net = open_as(NetConfig { dns_on_gateway: true, ..cfg });
    assert_eq!(talk(&app, gateway, 53), says("own", address(&net, 0)));
    assert_eq!(talk(&app, BOX, 53), REFUSED, "at the gateway only");
}

#[test]
fn the_tool_nft_reads_back_what_it_lists() {
    lab();
    let net = open();
    container(&net, 0);
    allow(
        &net,
        0,
        &[(8080, 80)],
        &[Rule { log: true, ..tcp(&[FAR, BOX], &[(1, 2), (3, 3)]) }, everything()],
    );
    net.publish(9000, &[(FAR, 1), (FAR, 2)]).expect("publish");
    let list = || Command::new("nft").args(["list", "ruleset"]).output().expect("nft").stdout;
    let before = list();
    let file = std::env::temp_dir().join(format!("terrarium-net-{}.nft", std::process::id()));
    fs::write(&file, &before).expect("write");
    run("nft flush ruleset");
    run(&format!("nft -f {}", file.display()));
    fs::remove_file(&file).expect("remove");
    assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&list()));
    // And the daemon goes on with what the tool has restored.
    let net = open();
    allow(&net, 0, &[(8080, 80)], &[]);
    net.release(slot(0)).expect("release");
}

#[test]
fn the_largest_set_of_egress_rules_fits_one_transaction() {
    lab();
    let net = open();
    let rule = |n: usize| tcp(&vec![FAR; 64], &vec![(1, 2); n]);
    let err = try_allow(&net, 0, &[], &[rule(64), rule(1)]).expect_err("too many");
    assert!(matches!(err, NetError::TooManyRules { count: 4160 }), "{err}");
    allow(&net, 0, &[(8080, 80)], &[rule(64)]);
    allow(&net, 0, &[(8080, 80)], &[rule(63)]);
    net.release(slot(0)).expect("release");
}

#[test]
fn a_config_that_cannot_work_is_refused_before_anything_is_changed() {
    lab();
    let good = NetConfig::new("terrarium", "");
    for (cfg, word) in [
        (NetConfig { tag: "a1".to_owned(), ..good.clone() }, "tag"),
        (NetConfig { tag: "abc".to_owned(), ..good.clone() }, "tag"),
        (NetConfig { pool: (Ipv4Addr::new(10, 1, 1, 0), 16), ..good.clone() }, "pool"),
        (NetConfig { pool: (Ipv4Addr::new(10, 1, 0, 0), 24), ..good.clone() }, "pool"),
        (NetConfig { mtu: 10, ..good.clone() }, "mtu"),
        (NetConfig { table: "a b".to_owned(), ..good.clone() }, "table"),
    ] {
        let err = Net::open(cfg).map(drop).expect_err(word);
        assert!(err.to_string().contains(word), "{err}");
    }
    assert_eq!(
        json("nft", &["-j", "list", "tables"])["nftables"].as_array().expect("list").len(),
        1
    );
}

#[test]
fn the_box_knows_the_address_that_the_world_sees() {
    lab();
    assert_eq!(net::host_address(), None);
    let _far = outside();
    assert_eq!(net::host_address(), Some(BOX));
}

#[test]
fn ipv6_of_a_container_ends_at_its_bridge() {
    lab();
    let (here, net) = (here(), open());
    let app = container(&net, 0);
    allow(&net, 0, &[], &[everything()]);
    let addresses = json("ip", &["-j", "-6", "addr"]);
    assert!(!addresses.to_string().contains("inet6"), "{addresses}");
    // Somebody switches it on again: the rules still hold.
    fs::write("/proc/sys/net/ipv6/conf/wb-0/disable_ipv6", "0").expect("IPv6");
    run("ip addr add fd00::1/64 dev wb-0 nodad");
    let _listener = inside(&here, || TcpListener::bind("[fd00::1]:80").expect("listen"));
    inside(&app, || {
        run("ip addr add fd00::2/64 dev w0-1 nodad");
        let to = "[fd00::1]:80".parse().expect("address");
        let err = TcpStream::connect_timeout(&to, PATIENCE).expect_err("open");
        assert_eq!(err.kind(), ErrorKind::TimedOut);
    });
    run("nft flush chain ip6 terrarium local");
    inside(&app, || TcpStream::connect("[fd00::1]:80").expect("without the rule it is open"));
}

#[test]
fn rules_that_somebody_flushed_are_seen_and_put_back() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    assert!(!net.is_allowed(slot(0)).expect("look"));
    allow(&net, 0, &[(8080, 80)], &[]);
    assert!(net.is_allowed(slot(0)).expect("look"));
    run("nft flush ruleset");
    assert!(!net.is_allowed(slot(0)).expect("look"));
    allow(&net, 0, &[(8080, 80)], &[]);
    assert!(net.is_allowed(slot(0)).expect("look"));
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR));
    run("nft flush ruleset");
    net.release(slot(0)).map_err(|err| chain(&err)).expect("nothing to remove");
    net.publish(9000, &[]).expect("nothing to remove");
}

#[test]
fn a_foreign_firewall_that_drops_what_passes_through_is_named() {
    lab();
    let net = open();
    assert_eq!(net.other_firewalls().expect("list"), [] as [String; 0]);
    run("nft add table inet fw");
    run("nft add chain inet fw through { type filter hook forward priority 0 ; policy drop ; }");
    run("nft add chain inet fw out { type filter hook output priority 0 ; policy drop ; }");
    assert_eq!(net.other_firewalls().expect("list"), ["fw through"]);
}
