//! Diego's egress rules as JSON. Pure.

use super::action::{BadAction, Fields};
use crate::model::egress::{Protocol, Rule};
use serde_json::Value;
use std::net::Ipv4Addr;

/// Destinations of one rule, and ports, each after commas are undone.
const PARTS_MAX: usize = 256;

type Read<T> = Result<T, BadAction>;

fn invalid<T>(field: &str) -> Read<T> {
    Err(BadAction(format!("Invalid field: {field}")))
}

/// Reads the list. As in Diego, later rules count as well as earlier ones: all of them allow.
pub fn decode(list: &[Value]) -> Read<Vec<Rule>> {
    list.iter().map(rule).collect()
}

fn rule(value: &Value) -> Read<Rule> {
    let Some(object) = value.as_object() else { return invalid("egress_rules") };
    let fields = Fields(object);
    let mut to = Vec::new();
    for text in fields.texts("destinations")? {
        for part in text.split(',') {
            to.push(range(part.trim()).map_or_else(|| invalid("destinations"), Ok)?);
        }
    }
    if to.is_empty() || to.len() > PARTS_MAX {
        return invalid("destinations");
    }
    let ports = ports(&fields)?;
    let info = fields.object("icmp_info")?;
    let (protocol, icmp) = match fields.text("protocol")?.as_str() {
        "tcp" if !ports.is_empty() && info.is_none() => (Protocol::Tcp, None),
        "udp" if !ports.is_empty() && info.is_none() => (Protocol::Udp, None),
        "tcp" | "udp" if info.is_some() => return invalid("icmp_info"),
        "tcp" | "udp" => return invalid("ports"),
        "icmp" if ports.is_empty() => match info {
            Some(info) => (Protocol::Icmp, icmp(&info)?),
            None => return invalid("icmp_info"),
        },
        "all" if ports.is_empty() && info.is_none() => (Protocol::All, None),
        "icmp" | "all" => return invalid("ports"),
        _ => return invalid("protocol"),
    };
    Ok(Rule { protocol, to, ports, icmp, log: fields.truth("log")? })
}

/// `ports` or `port_range`, not both.
fn ports(fields: &Fields<'_>) -> Read<Vec<(u16, u16)>> {
    let port = |number: Option<u64>| match number.and_then(|it| u16::try_from(it).ok()) {
        Some(port @ 1..) => Ok(port),
        _ => invalid("ports"),
    };
    let list = fields.list("ports")?;
    if list.len() > PARTS_MAX {
        return invalid("ports");
    }
    let single = |item: &Value| port(item.as_u64()).map(|port| (port, port));
    let mut ports: Vec<(u16, u16)> = list.iter().map(single).collect::<Read<_>>()?;
    if let Some(range) = fields.object("port_range")? {
        let end = |name| port(range.get(name).and_then(Value::as_u64));
        let (start, end) = (end("start")?, end("end")?);
        if start > end || !ports.is_empty() {
            return invalid("port_range");
        }
        ports.push((start, end));
    }
    Ok(ports)
}

/// A type and, of it, a code; -1 and 255 are every one.
fn icmp(info: &Fields<'_>) -> Read<Option<(u8, Option<u8>)>> {
    let number = |name| match info.get(name).map(Value::as_i64) {
        None => Ok(0),
        Some(Some(-1 | 255)) => Ok(255),
        Some(Some(it @ 0..=254)) => Ok(it as u8),
        Some(_) => invalid("icmp_info"),
    };
    Ok(match (number("type")?, number("code")?) {
        (255, _) => None,
        (kind, 255) => Some((kind, None)),
        (kind, code) => Some((kind, Some(code))),
    })
}

/// `a.b.c.d`, `a.b.c.d-e.f.g.h` or `a.b.c.d/n`; of a network the whole, whatever address of it is
/// named, as Diego takes it.
fn range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
        return (first <= last).then_some((first, last));
    }
    let Some((base, bits)) = text.split_once('/') else {
        let one = text.parse().ok()?;
        return Some((one, one));
    };
    let (base, bits): (Ipv4Addr, u32) = (base.parse().ok()?, bits.parse().ok()?);
    let hosts = (bits <= 32).then(|| u32::MAX.checked_shr(bits).unwrap_or(0))?;
    let base = base.to_bits();
    Some((Ipv4Addr::from_bits(base & !hosts), Ipv4Addr::from_bits(base | hosts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Read<Rule> {
        decode(&[serde_json::from_str(text).expect("JSON")]).map(|mut rules| rules.remove(0))
    }

    #[test]
    fn row_58_rules_are_read_as_diego_writes_them() {
        let all = one(r#"{"protocol":"all","destinations":["0.0.0.0-9.255.255.255"],"log":false}"#);
        let (first, last) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(9, 255, 255, 255));
        assert_eq!(all.expect("a rule").to, [(first, last)]);
        let tcp = one(r#"{"protocol":"tcp","destinations":["0.0.0.0/0","10.1.2.3, 10.2.0.9/16"],
                "ports":[53,80],"log":true}"#)
        .expect("a rule");
        assert_eq!((tcp.to.len(), &tcp.ports[..], tcp.log), (3, &[(53, 53), (80, 80)][..], true));
        assert_eq!(tcp.to[2].1, Ipv4Addr::new(10, 2, 255, 255));
        let udp =
            r#"{"protocol":"udp","destinations":["1.1.1.1"],"port_range":{"start":5,"end":9}}"#;
        assert_eq!(one(udp).expect("a rule").ports, [(5, 9)]);
        let ping = |info: &str| {
            let text =
                format!(r#"{{"protocol":"icmp","destinations":["1.1.1.1"],"icmp_info":{info}}}"#);
            one(&text).expect("a rule").icmp
        };
        assert_eq!(ping(r#"{"type":8,"code":0}"#), Some((8, Some(0))));
        assert_eq!(ping(r#"{"type":8,"code":-1}"#), Some((8, None)));
        assert_eq!(ping(r#"{"type":255,"code":255}"#), None);
    }

    #[test]
    fn rules_that_diego_refuses_are_refused() {
        for (text, field) in [
            (r#"{"protocol":"tcp","destinations":["1.1.1.1"]}"#, "ports"),
            (r#"{"protocol":"tcp","destinations":["1.1.1.1"],"ports":[0]}"#, "ports"),
            (r#"{"protocol":"tcp","destinations":["1.1.1.1"],"ports":[65536]}"#, "ports"),
            (r#"{"protocol":"all","destinations":["1.1.1.1"],"ports":[1]}"#, "ports"),
            (r#"{"protocol":"all","destinations":[]}"#, "destinations"),
            (r#"{"protocol":"all"}"#, "destinations"),
            (r#"{"protocol":"all","destinations":["1.1.1.2-1.1.1.1"]}"#, "destinations"),
            (r#"{"protocol":"all","destinations":["1.1.1.1/33"]}"#, "destinations"),
            (r#"{"protocol":"all","destinations":["host"]}"#, "destinations"),
            (r#"{"protocol":"icmp","destinations":["1.1.1.1"]}"#, "icmp_info"),
            (r#"{"protocol":"sctp","destinations":["1.1.1.1"]}"#, "protocol"),
            (
                r#"{"protocol":"tcp","destinations":["1.1.1.1"],"ports":[1],
                    "port_range":{"start":1,"end":2}}"#,
                "port_range",
            ),
            (
                r#"{"protocol":"tcp","destinations":["1.1.1.1"],"port_range":{"start":3,"end":2}}"#,
                "port_range",
            ),
            (
                r#"{"protocol":"tcp","destinations":["1.1.1.1"],"ports":[1],"icmp_info":{}}"#,
                "icmp_info",
            ),
        ] {
            assert_eq!(one(text), Err(BadAction(format!("Invalid field: {field}"))), "{text}");
        }
    }
}
