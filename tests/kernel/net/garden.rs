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
