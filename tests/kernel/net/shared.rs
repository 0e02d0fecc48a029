//! Networks that containers ask for by address, against the kernel.

use super::*;

fn claim(net: &Net, n: u32, network: &str) -> File {
    net.claim(slot(n), network).map_err(|err| chain(&err)).expect("claim");
    container(net, n)
}

/// Rules of a client of Garden, with nothing denied.
fn free(net: &Net, n: u32, ports: &[(u16, u16)]) {
    let ports: Vec<_> =
        ports.iter().map(|&(host, container)| PortMap { host, container }).collect();
    let otherwise = Otherwise::Garden { allow: &[], deny: &[], log: "" };
    net.allow(slot(n), &ports, &[], otherwise).map_err(|err| chain(&err)).expect("allow");
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("address")
}

/// The names of all links but `lo` and the way out.
fn links() -> Vec<String> {
    let links = json("ip", &["-j", "link"]);
    let names = links.as_array().expect("list").iter();
    let names = names.map(|link| link["ifname"].as_str().expect("name").to_owned());
    names.filter(|name| name != "lo" && name != "up0").collect()
}

#[test]
fn containers_of_one_network_reach_each_other_and_no_others() {
    lab();
    let (far, net) = (outside(), open());
    let one = claim(&net, 1, "10.9.1.0/24");
    let two = claim(&net, 2, "10.9.1.7/24");
    let other = claim(&net, 3, "10.9.2.0/24");
    let app = container(&net, 4);
    assert_eq!(address(&net, 1), ip("10.9.1.2"));
    assert_eq!(address(&net, 2), ip("10.9.1.7"));
    for n in 1..=4 {
        free(&net, n, &[]);
    }
    allow(&net, 1, &[], &[]);
    let _servers = [
        serve(&two, "two", Ipv4Addr::UNSPECIFIED, 80),
        serve(&app, "app", Ipv4Addr::UNSPECIFIED, 80),
        serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80),
    ];
    let there = address(&net, 2);
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    for on in ["1", "0"] {
        if fs::exists(switch).expect("proc") {
            fs::write(switch, on).expect("bridge netfilter");
        }
        assert_eq!(talk(&one, there, 80), says("two", address(&net, 1)), "{on}");
        assert_eq!(talk(&two, there, 80), says("two", there), "{on}");
        for from in [&other, &app] {
            assert_eq!(talk(from, there, 80), REFUSED, "{on}");
        }
        assert_eq!(talk(&two, address(&net, 4), 80), REFUSED, "{on}");
    }
    assert_eq!(talk(&one, FAR, 80), REFUSED, "an app's default holds here too");
    for from in [&two, &other] {
        assert_eq!(talk(from, FAR, 80), says("far", BOX));
    }
    inside(&far, || run("ip route add 10.9.0.0/16 via 198.51.100.1"));
    assert_eq!(talk(&far, there, 80), SILENCE, "nobody routes into a container");
    let _ssh = serve(&here(), "ssh", Ipv4Addr::UNSPECIFIED, 22);
    for to in [BOX, ip("10.9.1.1")] {
        assert_eq!(talk(&two, to, 22), REFUSED, "{to}");
    }
    // More is opened behind the neighbours' rule.
    net.open_more(slot(1), &[tcp(&[FAR], &[(80, 80)])], "").expect("one more");
    assert_eq!(talk(&one, FAR, 80), says("far", BOX));
    assert_eq!(talk(&one, FARTHER, 80), REFUSED);
    assert_eq!(talk(&one, there, 80), says("two", address(&net, 1)));
}

#[test]
fn a_port_of_a_container_on_a_shared_network_answers_as_any_other() {
    lab();
    let (here, far, net) = (here(), outside(), open());
    let one = claim(&net, 1, "10.9.1.0/24");
    let two = claim(&net, 2, "10.9.1.0/24");
    let app = container(&net, 4);
    let _web = serve(&two, "web", Ipv4Addr::UNSPECIFIED, 80);
    free(&net, 1, &[]);
    free(&net, 2, &[(8080, 80)]);
    net.map_port(slot(2), PortMap { host: 8081, container: 80 }).expect("map");
    let gateway = ip("10.9.1.1");
    allow(&net, 4, &[], &[Rule { to: Vec::new(), ..everything() }]);
    for port in [8080, 8081] {
        assert_eq!(talk(&far, BOX, port), says("web", FAR));
        assert_eq!(talk(&here, LOCALHOST, port), says("web", gateway));
        assert_eq!(talk(&one, BOX, port), says("web", gateway), "a neighbour");
        assert_eq!(talk(&two, BOX, port), says("web", gateway), "itself");
        assert_eq!(talk(&app, BOX, port), REFUSED, "'everywhere' is not the other containers");
    }
    free(&net, 4, &[]);
    assert_eq!(talk(&app, BOX, 8080), says("web", gateway));
    net.release(slot(2)).expect("release");
    assert_eq!(talk(&far, BOX, 8080), Err(ErrorKind::ConnectionRefused));
    assert_eq!(talk(&far, BOX, 8081), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_forged_address_on_a_shared_network_gets_nowhere() {
    lab();
    let (far, net) = (outside(), open());
    let one = claim(&net, 1, "10.9.1.0/24");
    let other = claim(&net, 3, "10.9.2.0/24");
    let _far = serve(&far, "far", Ipv4Addr::UNSPECIFIED, 80);
    free(&net, 1, &[]);
    free(&net, 3, &[]);
    assert_eq!(talk(&one, FAR, 80), says("far", BOX));
    // Of its own network, but nobody's; then that of a container elsewhere.
    for (add, from) in [("10.9.1.9/24", "10.9.1.9"), ("10.9.2.2/32", "10.9.2.2")] {
        inside(&one, || {
            run("ip addr flush dev w1-1");
            run(&format!("ip addr add {add} dev w1-1"));
            run("ip route replace 10.9.1.1 dev w1-1");
            run(&format!("ip route replace default via 10.9.1.1 src {from}"));
        });
        assert_eq!(talk(&one, FAR, 80), SILENCE, "{from}");
    }
    assert_eq!(talk(&other, FAR, 80), says("far", BOX));
}

#[test]
fn a_shared_bridge_comes_with_the_first_container_and_goes_with_the_last() {
    lab();
    let (_far, net) = (outside(), open());
    let before = (links(), json("nft", &["-j", "list", "ruleset"]));
    let _one = claim(&net, 1, "10.9.1.0/24");
    let _two = claim(&net, 2, "10.9.1.0/24");
    free(&net, 1, &[(8080, 80)]);
    free(&net, 2, &[]);
    assert_eq!(links(), ["wb-s0a090100", "w1-0", "w2-0"]);
    let addresses = json("ip", &["-j", "addr", "show", "wb-s0a090100"]);
    let address = &addresses[0]["addr_info"][0];
    assert_eq!((&address["local"], &address["prefixlen"]), (&"10.9.1.1".into(), &24.into()));
    let err = net.attach(slot(1), netns().as_fd()).expect_err("twice");
    assert!(matches!(&err, NetError::LinkExists { link } if link == "w1-0"), "{err}");
    let no_netns = File::open("/dev/null").expect("open");
    net.claim(slot(3), "10.9.1.0/24").expect("claim");
    net.attach(slot(3), no_netns.as_fd()).expect_err("not a namespace");
    net.release(slot(3)).expect("release");
    assert_eq!(links(), ["wb-s0a090100", "w1-0", "w2-0"], "the neighbours stay");
    assert!(net.is_allowed(slot(1)).expect("look") && net.is_connected(slot(1)).expect("look"));
    net.release(slot(1)).expect("release");
    assert_eq!(links(), ["wb-s0a090100", "w2-0"]);
    for _ in 0..2 {
        net.release(slot(2)).map_err(|err| chain(&err)).expect("release");
        assert_eq!((links(), json("nft", &["-j", "list", "ruleset"])), before);
    }
    // Given back: the slot is where slots are, the network is free for a wider one.
    assert_eq!(net.addresses(slot(1)).prefix, 30);
    net.claim(slot(1), "10.9.0.0/16").expect("claim");
    net.attach(slot(1), no_netns.as_fd()).expect_err("not a namespace");
    assert_eq!((links(), json("nft", &["-j", "list", "ruleset"])), before);
}

#[test]
fn after_a_restart_a_network_is_held_again_or_swept() {
    lab();
    let (far, first) = (outside(), open());
    let one = claim(&first, 1, "10.9.1.0/24");
    let _two = claim(&first, 2, "10.9.2.0/24");
    let three = claim(&first, 3, "10.9.3.0/24");
    let _web = serve(&one, "web", Ipv4Addr::UNSPECIFIED, 80);
    free(&first, 1, &[(8080, 80)]);
    free(&first, 2, &[(8081, 80)]);
    let had = first.addresses(slot(1));
    drop((first, three));
    // The veth of the third goes with its namespace, which the kernel takes down in its own time.
    until("the veth is gone", || !links().contains(&"w3-0".to_owned()));
    let net = open();
    assert_eq!(links(), ["wb-s0a090100", "w1-0", "wb-s0a090200", "w2-0"], "an empty one is swept");
    assert_eq!(net.slots_on_host().expect("list"), [1, 2].map(slot));
    net.reclaim(slot(1), had).map_err(|err| chain(&err)).expect("reclaim");
    assert!(net.is_allowed(slot(1)).expect("look"));
    assert_eq!(talk(&far, BOX, 8080), says("web", FAR));
    let err = net.claim(slot(5), "10.9.1.2/24").expect_err("held");
    assert!(err.to_string().contains("10.9.1.2 is in use"), "{err}");
    // Its record is lost: the kernel tells where it is.
    net.release(slot(2)).map_err(|err| chain(&err)).expect("release");
    assert_eq!(links(), ["wb-s0a090100", "w1-0"]);
    net.release(slot(1)).expect("release");
    assert_eq!(links(), [] as [String; 0]);
    net.close().expect("close");
    let left = json("nft", &["-j", "list", "ruleset"]);
    assert_eq!(left["nftables"].as_array().expect("list").len(), 1, "the tool's own version");
}

/// Waits for the kernel.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..100 {
        if done() {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("not within 5 s: {what}");
}

#[test]
fn a_network_that_the_box_itself_needs_is_refused() {
    lab();
    let (_far, net) = (outside(), open());
    for (network, word) in [
        ("198.51.100.0/24", "to which this box has a route"),
        ("198.51.0.0/16", "to which this box has a route"),
        ("10.254.9.0/24", "pool"),
        ("10.9.1.1/24", "gateway"),
        ("nonsense", "10.9.1.0/24"),
    ] {
        let err = net.claim(slot(1), network).expect_err(network);
        assert!(matches!(err, NetError::Subnet(_)) && err.to_string().contains(word), "{err}");
    }
    assert_eq!(net.addresses(slot(1)).prefix, 30, "a refusal changes nothing");
    let _one = claim(&net, 1, "10.9.1.0/24");
    let pool = Ipv4Addr::new(10, 254, 0, 0);
    assert_eq!(net::choose_pool(pool, "").expect("pool"), pool, "a shared network is no pool");
    assert_eq!(net::choose_pool(ip("10.9.0.0"), "").expect("pool"), pool, "and is in its way");
}

#[test]
fn the_box_answers_names_at_the_gateway_of_a_shared_network() {
    lab();
    let (here, _far) = (here(), outside());
    let net = open_as(NetConfig { dns_on_gateway: true, ..NetConfig::new("terrarium", "") });
    let one = claim(&net, 1, "10.9.1.0/24");
    let _app = container(&net, 0);
    free(&net, 1, &[]);
    let _own = serve(&here, "own", Ipv4Addr::UNSPECIFIED, 53);
    assert_eq!(talk(&one, ip("10.9.1.1"), 53), says("own", address(&net, 1)));
    for other in [BOX, net.addresses(slot(0)).gateway] {
        assert_eq!(talk(&one, other, 53), REFUSED, "{other}");
    }
}
