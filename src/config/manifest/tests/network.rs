//! `[[port]]` and `[[egress]]`.

use super::*;

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        ("[port]\ncontainer = 1", "3:1 `port` is a list | write [[port]]"),
        (
            "[[port]]\ncontainer = 70000",
            "4:13 `port.container` is 70000, out of range | 1 to 65535",
        ),
        (
            "[[port]]\npublish = \"0.0.0.0:80\"",
            "4:11 publishing on one address is not supported by this version yet | write 80",
        ),
        (
            "[[port]]\npublish = true",
            "4:11 `publish = true` names no port | write the number of one, or leave `publish` out: `terrarium push` \
             finds a free one",
        ),
        (
            "[[port]]\npublish = \"80\"",
            "4:11 `port.publish` must be a number, not a string | write 80 without quotes",
        ),
        (
            "[[port]]\nname = \"a\"\ncontainer = 2\n[[port]]\nname = \"a\"\ncontainer = 1",
            "7:8 port name `a` is used twice",
        ),
        (
            "[[port]]\nname=\"a\"\ncontainer=1\n[[port]]\nname=\"b\"\ncontainer=1",
            "8:11 container port `1` is used twice",
        ),
        (
            "[[port]]\nname=\"a\"\ncontainer=1\npublish=9\n[[port]]\nname=\"b\"\ncontainer=2\npublish=9",
            "10:9 published port `9` is used twice",
        ),
        (
            "[[port]]\ncontainer=1\n[[port]]\nname=\"b\"\ncontainer=2",
            "3:1 `name` is missing in [port]",
        ),
        ("[[port]]\nname = \"Web\"", "4:8 port `Web` is not good"),
        ("[[egress]]", "3:1 `allow` is missing in [egress]"),
        ("[[egress]]\nallow = \"http\"", "4:9 `egress.allow` cannot be \"http\""),
        ("[[egress]]\nallow = \"icmp\"\nports = [1]", "5:9 only \"tcp\" and \"udp\" have ports"),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.1/8\"]",
            "5:7 `10.0.0.1/8` is not the start of its network | write \"10.0.0.0/8\"",
        ),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.9-10.0.0.1\"]",
            "5:7 range `10.0.0.9-10.0.0.1` is backwards",
        ),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"backup.lan\"]",
            "5:7 `backup.lan`: names are not supported here yet",
        ),
        ("[[egress]]\nallow = \"tcp\"\nto = [\"fe80::1\"]", "5:7 `fe80::1`: IPv6 is not supported"),
        ("[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.0/33\"]", "5:7 `10.0.0.0/33` is no address"),
        ("[[egress]]\nallow = \"tcp\"\nto = []", "5:6 `egress.to` is empty | remove it"),
        ("[[egress]]\nallow = \"tcp\"\nports = [\"9-8\"]", "5:10 `9-8` is no port range"),
        ("[[egress]]\nallow = \"tcp\"\nports = [0]", "5:10 `egress.ports` is 0, out of range"),
        (
            "uris = [\"https://a.example.org\"]",
            "3:9 `https://a.example.org` begins with https | write \"a.example.org\"",
        ),
        ("uris = [\"a b\"]", "3:9 `a b` is no name of an app | write HOST, HOST:PORT or HOST/PATH"),
        ("uris = [\"a:0\"]", "3:9 `a:0` is no name of an app"),
        ("uris = [\"a\", \"a\"]", "3:14 `a` is named twice | remove one"),
        ("[[egress]]\nallow = \"tcp\"\nlog = 1", "5:7 `egress.log` must be true or false"),
    ]);
}

#[test]
fn web_has_every_port_that_no_other_process_lists() {
    let it = good(&format!(
        "{HEAD}[process.web]\n[process.admin]\nports = [\"admin\"]\n\
         [[port]]\nname = \"web\"\ncontainer = 1\npublish = 80\n\
         [[port]]\nname = \"admin\"\ncontainer = 2\npublish = 81\n"
    ));
    assert_eq!(it.processes["web"].ports, ["web"]);
    assert_eq!(it.processes["admin"].health.check, Check::Port { port: 2 });
}

#[test]
fn names_are_taken_as_routes_of_cf_are_written() {
    let all = ["*.example.org", "tcp.example.org:9000", "shop.example.org/api/v1", "localhost"];
    assert_eq!(good(&format!("{HEAD}uris = {all:?}\n")).uris, all);
}
