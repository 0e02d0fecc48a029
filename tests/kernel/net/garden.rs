//! What Garden's clients need of the network, against the kernel.

use super::*;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Echo request, timestamp request, and the answers to them and of a refusal.
const ECHO: u8 = 8;
const TIMESTAMP: u8 = 13;
const ECHO_REPLY: u8 = 0;
const TIMESTAMP_REPLY: u8 = 14;
const UNREACHABLE: u8 = 3;

/// Asks an ICMP question of this type and code, and returns the type of what comes back.
fn ask(netns: &File, to: Ipv4Addr, kind: u8, code: u8) -> Option<u8> {
    inside(netns, || {
        let icmp = SockProtocol::Icmp;
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), icmp);
        let socket = socket.expect("raw socket");
        let patience = TimeVal::new(1, 500_000);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).expect("time-out");
        let mut packet = [0; 20];
        (packet[0], packet[1]) = (kind, code);
        // Type and code alone are not zero, so their complement is the checksum.
        packet[2..4].copy_from_slice(&(!u16::from_be_bytes([kind, code])).to_be_bytes());
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()).expect("send");
        let mut answer = [0; 128];
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        answer[..len].get(20).copied()
    })
}

#[test]
fn an_icmp_rule_may_open_one_type_or_one_code_of_it() {
    lab();
    let (_far, net) = (outside(), open());
    let app = container(&net, 0);
    let icmp = |icmp| Rule { protocol: Protocol::Icmp, icmp, ..tcp(&[FAR], &[]) };
    for (rule, echo, timestamp) in [
        (icmp(None), ECHO_REPLY, TIMESTAMP_REPLY),
        (icmp(Some((ECHO, None))), ECHO_REPLY, UNREACHABLE),
        (icmp(Some((ECHO, Some(0)))), ECHO_REPLY, UNREACHABLE),
        (icmp(Some((ECHO, Some(1)))), UNREACHABLE, UNREACHABLE),
        (icmp(Some((TIMESTAMP, Some(0)))), UNREACHABLE, TIMESTAMP_REPLY),
    ] {
        allow(&net, 0, &[], &[rule]);
        // Else the second question belongs to the conversation of an earlier one.
        conntrack_forget(&net, 0);
        assert_eq!(ask(&app, FAR, ECHO, 0), Some(echo));
        assert_eq!(ask(&app, FAR, TIMESTAMP, 0), Some(timestamp));
    }
    let listing = Command::new("nft").args(["list", "chain", "ip", "terrarium", "c0"]).output();
    let listing = String::from_utf8(listing.expect("nft").stdout).expect("text");
    assert!(listing.contains("icmp type timestamp-request icmp code"), "{listing}");
}

/// Makes the kernel forget the conversations of a slot.
fn conntrack_forget(net: &Net, n: u32) {
    let mut socket = Socket::open(netlink::Protocol::Netfilter).expect("socket");
    netlink::conntrack::forget(&mut socket, address(net, n)).expect("forget");
}

#[test]
fn more_is_opened_while_what_is_open_stays_and_the_last_opening_is_looked_at_first() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    let _servers = [80, 81, 82, 83].map(|port| serve(&far, "far", Ipv4Addr::UNSPECIFIED, port));
    let port = |port| tcp(&[FAR], &[(port, port)]);
    let err = net.open_more(slot(0), &[port(80)], "").expect_err("no rules");
    assert!(matches!(&err, NetError::NoRules { slot: s } if *s == slot(0)), "{err}");
    allow(&net, 0, &[], &[port(80)]);
    assert_eq!(talk(&app, FAR, 81), REFUSED);
    net.open_more(slot(0), &[port(81)], "").expect("one more");
    net.open_more(slot(0), &[port(82), Rule { log: true, ..port(83) }], "").expect("two more");
    net.open_more(slot(0), &[], "").expect("none");
    for port in [80, 81, 82, 83] {
        assert_eq!(talk(&app, FAR, port), says("far", BOX), "{port}");
    }
    assert_eq!(talk(&app, FARTHER, 81), REFUSED);
    let rules = dports("c0");
    assert_eq!(rules, [83, 83, 82, 81, 80], "a logged one is two rules");
    // The rules that all containers share stay ahead.
    inside(&far, || run("ip addr add 169.254.169.254/32 dev far0"));
    net.open_more(slot(0), &[everything()], "").expect("all");
    assert_eq!(talk(&app, Ipv4Addr::new(169, 254, 169, 254), 80), REFUSED);
    allow(&net, 0, &[], &[port(80)]);
    assert_eq!(dports("c0"), [80], "allow replaces all of it");
}

/// The destination ports in a chain, in order.
fn dports(chain: &str) -> Vec<u64> {
    let listing = json("nft", &["-j", "list", "chain", "ip", "terrarium", chain]);
    let rules = listing["nftables"].as_array().expect("list").iter();
    let exprs = rules.filter_map(|rule| rule["rule"]["expr"].as_array()).flatten();
    let dports = exprs.filter(|expr| expr["match"]["left"]["payload"]["field"] == "dport");
    dports.filter_map(|expr| expr["match"]["right"].as_u64()).collect()
}

#[test]
fn openings_without_end_are_refused_as_a_whole() {
    lab();
    let net = open();
    container(&net, 0);
    let rule = |n: usize| tcp(&vec![FAR; 64], &vec![(1, 2); n]);
    allow(&net, 0, &[], &[rule(32)]);
    net.open_more(slot(0), &[rule(32)], "").expect("4096 in all");
    let before = json("nft", &["-j", "list", "chain", "ip", "terrarium", "c0"]);
    let err = net.open_more(slot(0), &[rule(1)], "").expect_err("too many");
    assert!(matches!(err, NetError::TooManyRules { count: 4160 }), "{err}");
    assert_eq!(before, json("nft", &["-j", "list", "chain", "ip", "terrarium", "c0"]));
}

#[test]
fn a_port_is_mapped_while_the_container_runs_unless_it_leads_somewhere() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    let map = |host| PortMap { host, container: 80 };
    let err = net.map_port(slot(0), map(8080)).expect_err("no rules");
    assert!(matches!(err, NetError::NoRules { .. }), "{err}");
    allow(&net, 0, &[(8080, 80)], &[]);
    net.map_port(slot(0), map(8081)).map_err(|err| chain(&err)).expect("map");
    for port in [8080, 8081] {
        assert_eq!(talk(&far, BOX, port), says("web", FAR), "{port}");
    }
    net.publish(9000, &[(address(&net, 0), 80)]).expect("publish");
    allow(&net, 1, &[(8090, 80)], &[]);
    for taken in [8080, 8081, 8090, 9000] {
        let err = net.map_port(slot(0), map(taken)).expect_err("taken");
        assert!(matches!(err, NetError::PortTaken { port } if port == taken), "{err}");
    }
    net.release(slot(0)).expect("release");
    net.map_port(slot(1), map(8081)).expect("free again");
}

const EVERYWHERE: &[(Ipv4Addr, Ipv4Addr)] = &[(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)];

fn garden<'a>(
    allow: &'a [(Ipv4Addr, Ipv4Addr)],
    deny: &'a [(Ipv4Addr, Ipv4Addr)],
) -> Otherwise<'a> {
    Otherwise::Garden { allow, deny, log: "" }
}

#[test]
fn with_gardens_default_openings_beat_allowed_networks_and_these_beat_denied_ones() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    let _servers = [80, 81].map(|port| serve(&far, "far", Ipv4Addr::UNSPECIFIED, port));
    let reach = |to, port| talk(&app, to, port) == says("far", BOX);
    let set = |rules: &[Rule], otherwise| {
        net.allow(slot(0), &[], rules, otherwise).map_err(|err| chain(&err)).expect("allow");
    };
    set(&[], garden(&[], &[]));
    assert!(reach(FAR, 80) && reach(FARTHER, 81), "nothing is denied");
    set(&[], garden(&[], EVERYWHERE));
    assert_eq!(talk(&app, FAR, 80), REFUSED);
    set(&[], garden(&[], &[(FAR, FAR)]));
    assert_eq!((talk(&app, FAR, 80), reach(FARTHER, 80)), (REFUSED, true));
    set(&[], garden(&[(FAR, FAR)], EVERYWHERE));
    assert_eq!((reach(FAR, 80), talk(&app, FARTHER, 80)), (true, REFUSED));
    set(&[tcp(&[FARTHER], &[(80, 80)])], garden(&[], EVERYWHERE));
    assert_eq!((reach(FARTHER, 80), talk(&app, FARTHER, 81)), (true, REFUSED));
    net.open_more(slot(0), &[tcp(&[FARTHER], &[(81, 81)])], "").expect("one more");
    assert!(reach(FARTHER, 80) && reach(FARTHER, 81));
    assert_eq!(talk(&app, FAR, 80), REFUSED);
    assert_eq!(dports("c0"), [81, 80]);
    // The same openings given at once lie in the same order, as after a restart.
    let both = [tcp(&[FARTHER], &[(80, 80)]), tcp(&[FARTHER], &[(81, 81)])];
    set(&both, garden(&[], EVERYWHERE));
    assert_eq!(dports("c0"), [81, 80]);
    let many = vec![(FAR, FAR); 4096];
    let err = net.allow(slot(0), &[], &[], garden(&[], &many)).expect_err("too many");
    assert!(matches!(err, NetError::TooManyRules { count: 4097 }), "{err}");
}

#[test]
fn an_established_connection_goes_on_when_its_network_is_denied() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    net.allow(slot(0), &[], &[], garden(&[], &[])).expect("allow");
    let listener = inside(&far, || TcpListener::bind((FAR, 80)).expect("listen"));
    let mut stream = inside(&app, || TcpStream::connect((FAR, 80)).expect("connect"));
    let (mut server, _) = listener.accept().expect("accept");
    net.allow(slot(0), &[], &[], garden(&[], EVERYWHERE)).expect("allow");
    stream.write_all(b"still").expect("write");
    server.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
    let mut text = [0; 5];
    server.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"still");
    assert_eq!(talk(&app, FAR, 80), REFUSED, "a new one does not");
}

#[test]
fn gardens_containers_reach_the_box_when_the_operator_says_so_and_apps_never() {
    lab();
    let here = here();
    let _far = outside();
    for access in [true, false] {
        let net =
            open_as(NetConfig { allow_host_access: access, ..NetConfig::new("terrarium", "") });
        let (guest, app) = (container(&net, 0), container(&net, 1));
        net.allow(slot(0), &[], &[], garden(&[], &[])).expect("allow");
        allow(&net, 1, &[], &[everything()]);
        let _ssh = serve(&here, "ssh", Ipv4Addr::UNSPECIFIED, 22);
        let want = if access { says("ssh", address(&net, 0)) } else { REFUSED };
        for to in [BOX, net.addresses(slot(0)).gateway] {
            assert_eq!(talk(&guest, to, 22), want, "{to} {access}");
            assert_eq!(talk(&app, to, 22), REFUSED, "{to} {access}");
        }
        // Whoever loses the default loses the way.
        allow(&net, 0, &[], &[everything()]);
        assert_eq!(talk(&guest, BOX, 22), REFUSED);
        net.allow(slot(0), &[], &[], garden(&[], &[])).expect("allow");
        for n in [0, 1] {
            net.release(slot(n)).expect("release");
        }
        let left = json("nft", &["-j", "list", "set", "ip", "terrarium", "guests"]);
        assert!(left["nftables"][1]["set"]["elem"].is_null(), "{left}");
    }
}

#[test]
fn link_local_addresses_and_other_containers_stay_closed_with_gardens_default() {
    lab();
    let (far, net) = (outside(), open());
    let (app, sibling) = (container(&net, 0), container(&net, 1));
    net.allow(slot(0), &[], &[], garden(&[], &[])).expect("allow");
    net.allow(slot(1), &[PortMap { host: 8080, container: 80 }], &[], garden(&[], &[]))
        .expect("allow");
    let _web = serve(&sibling, "web", Ipv4Addr::UNSPECIFIED, 80);
    let _far = serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80);
    inside(&far, || run("ip addr add 169.254.169.254/32 dev far0"));
    assert_eq!(talk(&app, Ipv4Addr::new(169, 254, 169, 254), 80), REFUSED);
    let there = address(&net, 1);
    assert_eq!(talk(&app, there, 80), REFUSED);
    net.allow(slot(0), &[], &[], garden(EVERYWHERE, &[])).expect("allow");
    assert_eq!(talk(&app, there, 80), REFUSED, "an allowed network is no opening");
    let gateway = net.addresses(slot(1)).gateway;
    assert_eq!(talk(&app, BOX, 8080), says("web", gateway), "through its port");
}

#[test]
fn an_opening_opens_another_container_to_gardens_and_not_to_apps() {
    lab();
    let (_far, net) = (outside(), open());
    let (client, app, sibling) = (container(&net, 0), container(&net, 1), container(&net, 2));
    net.allow(slot(2), &[], &[], garden(&[], EVERYWHERE)).expect("allow");
    let _servers = [80, 81].map(|port| serve(&sibling, "web", Ipv4Addr::UNSPECIFIED, port));
    let there = address(&net, 2);
    let rules = [tcp(&[there], &[(80, 80)])];
    net.allow(slot(0), &[], &rules, garden(&[], EVERYWHERE)).expect("allow");
    allow(&net, 1, &[], &rules);
    assert_eq!(talk(&client, there, 80), says("web", address(&net, 0)), "with its own address");
    assert_eq!(talk(&client, there, 81), REFUSED, "another port");
    assert_eq!(talk(&app, there, 80), REFUSED, "an app's containers are apart");
    net.open_more(slot(0), &[tcp(&[there], &[(81, 81)])], "").expect("one more");
    assert_eq!(talk(&client, there, 81), says("web", address(&net, 0)));
    assert_eq!(talk(&sibling, address(&net, 0), 80), REFUSED, "one way only");
}

#[test]
fn a_bandwidth_limit_is_in_the_kernel_is_changed_in_place_and_goes_with_the_container() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    let _web = serve(&app, "web", Ipv4Addr::UNSPECIFIED, 80);
    allow(&net, 0, &[(8080, 80)], &[]);
    let limit = |rate_bytes, burst_bytes| Some(Bandwidth { rate_bytes, burst_bytes });
    let set = |limit| {
        net.limit_bandwidth(slot(0), limit).map_err(|err| chain(&err)).expect("limit");
        net.bandwidth(slot(0)).map_err(|err| chain(&err)).expect("bandwidth")
    };
    assert_eq!(net.bandwidth(slot(0)).expect("bandwidth"), None);
    for (wanted, got) in [
        (limit(1_000_000, 50_000), limit(1_000_000, 50_000)),
        (limit(6_000_000_000, 200_000), limit(6_000_000_000, 200_000)),
        (limit(20_000, 1), limit(20_000, 1514)),
    ] {
        assert_eq!(set(wanted), got);
        let got = got.expect("some");
        if let Some(queue) = queue() {
            assert_eq!((&queue["kind"], &queue["root"]), (&"tbf".into(), &true.into()));
            assert_eq!(queue["options"]["rate"], got.rate_bytes);
        }
        assert_eq!(policer(), Some((got.rate_bytes, got.burst_bytes)));
        assert_eq!(talk(&far, BOX, 8080), says("web", FAR), "what is small passes");
    }
    // A daemon that comes back reads the same.
    let again = open();
    assert_eq!(again.bandwidth(slot(0)).expect("bandwidth"), limit(20_000, 1514));
    for none in [None, limit(0, 0)] {
        assert_eq!(set(limit(10_000, 3000)), limit(10_000, 3000));
        for _ in 0..2 {
            assert_eq!((set(none), policer()), (None, None));
        }
    }
    set(limit(10_000, 3000));
    run("nft flush ruleset");
    assert_eq!(net.bandwidth(slot(0)).expect("bandwidth"), None, "only half of it is left");
    assert_eq!(set(limit(10_000, 3000)), limit(10_000, 3000));
    net.release(slot(0)).expect("release");
    assert_eq!((net.bandwidth(slot(0)).expect("bandwidth"), policer()), (None, None));
    assert!(net.limit_bandwidth(slot(0), limit(1, 1)).is_err(), "no link");
    assert_eq!(policer(), None);
    net.limit_bandwidth(slot(0), None).expect("nothing to remove");
    net.close().expect("close");
    let left = json("nft", &["-j", "list", "ruleset"]);
    assert_eq!(left["nftables"].as_array().expect("list").len(), 1, "the tool's own version");
}

/// The queue of slot 0's link as `tc` shows it; some systems have that tool in a package of its own.
fn queue() -> Option<Value> {
    Command::new("tc").arg("-V").output().ok()?;
    Some(json("tc", &["-j", "-s", "qdisc", "show", "dev", "w0-0"])[0].clone())
}

/// Bytes a second and burst of slot 0's policer.
fn policer() -> Option<(u64, u64)> {
    let listing = json("nft", &["-j", "list", "ruleset"]);
    let objects = listing["nftables"].as_array().expect("list");
    let is_policer = |rule: &&Value| rule["rule"]["family"] == "netdev";
    let rule = objects.iter().find(is_policer)?;
    let limit = &rule["rule"]["expr"][0]["limit"];
    assert_eq!((&limit["inv"], &limit["per"]), (&true.into(), &"second".into()), "{rule}");
    assert!(rule["rule"]["expr"][1].get("drop").is_some(), "{rule}");
    let bytes = |number: &Value, unit: &Value| {
        let unit = match unit.as_str().expect("unit") {
            "bytes" => 1,
            "kbytes" => 1 << 10,
            "mbytes" => 1 << 20,
            unit => panic!("{unit}"),
        };
        number.as_u64().expect("number") * unit
    };
    Some((bytes(&limit["rate"], &limit["rate_unit"]), bytes(&limit["burst"], &limit["burst_unit"])))
}

#[test]
fn what_comes_faster_than_the_limit_is_dropped_on_the_way_out_and_waits_on_the_way_in() {
    lab();
    let (far, net) = (outside(), open());
    let app = container(&net, 0);
    net.allow(slot(0), &[], &[], garden(&[], &[])).expect("allow");
    let limit = Bandwidth { rate_bytes: 1000, burst_bytes: 3000 };
    net.limit_bandwidth(slot(0), Some(limit)).expect("limit");
    let sent = 64;
    let send = |from: &File, to| {
        inside(from, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            for _ in 0..sent {
                // A full queue is a full queue.
                let _ = socket.send_to(&[0; 1000], (to, 5353));
            }
        });
    };
    send(&app, FAR);
    let (_, passed) = net.traffic(slot(0)).expect("traffic").expect("a link");
    assert!(passed >= 64_000, "the link took all of it: {passed}");
    let up = json("ip", &["-j", "-s", "link", "show", "up0"]);
    let out = up[0]["stats64"]["tx"]["bytes"].as_u64().expect("bytes");
    assert!(out < 32_000, "but not the box: {out}");
    inside(&far, || run("ip route add 10.254.0.0/16 via 198.51.100.1"));
    let here = here();
    send(&here, address(&net, 0));
    if let Some(queue) = queue() {
        assert!(queue["drops"].as_u64().expect("drops") > 32, "{queue}");
    }
}
