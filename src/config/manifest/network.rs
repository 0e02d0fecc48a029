//! `[[port]]` and `[[egress]]`.

use super::super::address;
use super::super::cursor::{Section, Value};
use super::super::sink::Place;
use super::super::words::{plain_name, shown};
use super::Places;
use crate::model::egress::{Protocol, Rule};
use crate::model::manifest::Port;
use toml::de::DeValue;

/// Most ports of one app.
const PORTS_MAX: usize = 32;
/// Most egress rules of one app, and most ranges in one of them.
const RULES_MAX: usize = 64;

/// Most names of one app, and the longest.
const URIS_MAX: usize = 64;
const URI_MAX: usize = 512;

/// A port with the place of its table, for errors of other sections.
pub(super) struct PortDraft<'a> {
    pub(super) model: Port,
    pub(super) place: Place<'a>,
    /// Nobody wrote it: an app from an image has one all the same.
    pub(super) implied: bool,
}

/// The number of a port that is whatever the image exposes; its staging finds out.
pub(super) const IMAGES_OWN: u16 = 0;

/// Reads every `[[port]]`. `image`: where the app's image stands, if it has one; then a port that
/// has no number is the image's own, and there is one when none is written. `None`: something is
/// wrong with them, so their names mean nothing.
pub(super) fn read_ports<'a>(
    top: &mut Section<'a>,
    image: Option<&Place<'a>>,
    places: &mut Places,
) -> Option<Vec<PortDraft<'a>>> {
    let sections = top.sections("port", PORTS_MAX)?;
    if let (true, Some(place)) = (sections.is_empty(), image) {
        let model = Port { name: "web".into(), container: IMAGES_OWN, publish: None };
        return Some(vec![PortDraft { model, place: place.clone(), implied: true }]);
    }
    // One alone needs no number.
    let usual = if image.is_some() { IMAGES_OWN } else { 8080 };
    let usual = (sections.len() == 1).then_some(usual);
    let mut seen = Seen::default();
    let ports: Vec<_> =
        sections.into_iter().map(|section| read_port(section, usual, &mut seen)).collect();
    places.published = seen.published.iter().map(|(port, at)| (*port, at.span())).collect();
    ports.into_iter().collect()
}

/// What earlier `[[port]]`s have taken, and where.
#[derive(Default)]
struct Seen<'a> {
    names: Vec<(String, Place<'a>)>,
    containers: Vec<(u16, Place<'a>)>,
    published: Vec<(u16, Place<'a>)>,
}

fn read_port<'a>(
    mut section: Section<'a>,
    usual: Option<u16>,
    seen: &mut Seen<'a>,
) -> Option<PortDraft<'a>> {
    let place = section.place.clone();
    let name = match section.take("name") {
        Some(value) => {
            let name = value.parsed(|text| plain_name("port", text, 20));
            once(&mut seen.names, &value, name, "port name")
        }
        None if usual.is_some() => Some("web".to_owned()),
        None => {
            section.missing("name", "each of several ports needs a name".into());
            None
        }
    };
    let container = match section.take("container") {
        Some(value) => {
            let port = port_number(&value);
            once(&mut seen.containers, &value, port, "container port")
        }
        None if usual.is_some() => usual,
        None => {
            section.missing("container", "each of several ports needs its number".into());
            None
        }
    };
    let publish = section.take("publish").and_then(|value| match value.inner {
        // As without the key, but for `push`, which gives a port to those that say nothing.
        DeValue::Boolean(false) => None,
        DeValue::Boolean(true) => {
            let cure = "write the number of one, or leave `publish` out: `terrarium push` finds a free one";
            value.place.fail("`publish = true` names no port", cure);
            None
        }
        _ => {
            let port = publish_number(&value);
            once(&mut seen.published, &value, port, "published port")
        }
    });
    section.later(&["protocol", "address", "tls", "host"]);
    section.finish();
    let model = Port { name: name?, container: container?, publish };
    Some(PortDraft { model, place, implied: false })
}

/// Notes a value that was there before.
fn once<'a, T: PartialEq + Clone + std::fmt::Display>(
    seen: &mut Vec<(T, Place<'a>)>,
    value: &Value<'a>,
    key: Option<T>,
    what: &str,
) -> Option<T> {
    let key = key?;
    if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == key) {
        value.place.clash(format!("{what} `{key}` is used twice"), first);
        return None;
    }
    seen.push((key.clone(), value.place.clone()));
    Some(key)
}

fn port_number(value: &Value<'_>) -> Option<u16> {
    value.number(1, 65_535).map(|number| number as u16)
}

/// A number; the address form of the later format gets its own answer.
pub(super) fn publish_number(value: &Value<'_>) -> Option<u16> {
    let text = match value.inner {
        DeValue::String(text) => text.as_ref(),
        _ => "",
    };
    match text.rsplit_once(':').map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(port)) => {
            let text = "publishing on one address is not supported by this version yet";
            value.place.fail(text, format!("write {port}"));
            None
        }
        _ => port_number(value),
    }
}

/// Reads every `[[egress]]`.
pub(super) fn read_egress(top: &mut Section<'_>) -> Vec<Rule> {
    let sections = top.sections("egress", RULES_MAX).unwrap_or_default();
    sections.into_iter().filter_map(read_rule).collect()
}

fn read_rule(mut section: Section<'_>) -> Option<Rule> {
    let protocol = match section.take("allow") {
        Some(value) => value.one_of(&[
            ("tcp", Protocol::Tcp),
            ("udp", Protocol::Udp),
            ("icmp", Protocol::Icmp),
            ("all", Protocol::All),
        ]),
        None => {
            section.missing("allow", "add allow = \"tcp\", \"udp\", \"icmp\" or \"all\"".into());
            None
        }
    };
    let to = section.take("to").map_or(Vec::new(), |value| {
        nonempty(&value).iter().filter_map(|item| item.parsed(address::range)).collect()
    });
    let mut ports = Vec::new();
    if let Some(value) = section.take("ports") {
        if matches!(protocol, Some(Protocol::Icmp | Protocol::All)) {
            value.place.fail("only \"tcp\" and \"udp\" have ports", "remove it or change `allow`");
        } else {
            ports = nonempty(&value).iter().filter_map(port_range).collect();
        }
    }
    let log = section.take("log").and_then(|value| value.truth()).unwrap_or(false);
    section.later(&["icmp", "deny"]);
    section.finish();
    Some(Rule { protocol: protocol?, to, ports, icmp: None, log })
}

/// An empty list would mean "everything" below, which nobody means by writing it.
fn nonempty<'a>(value: &Value<'a>) -> Vec<Value<'a>> {
    let items = value.list(RULES_MAX);
    if items.as_ref().is_some_and(Vec::is_empty) {
        value.fail("is empty", "remove it to open all of them");
    }
    items.unwrap_or_default()
}

/// `443` or `"8000-9000"`.
fn port_range(value: &Value<'_>) -> Option<(u16, u16)> {
    if !matches!(value.inner, DeValue::String(_)) {
        return port_number(value).map(|port| (port, port));
    }
    value.parsed(|text| {
        let bad = || format!("`{}` is no port range; write 443 or \"8000-9000\"", shown(text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok((first, last)),
            _ => Err(bad()),
        }
    })
}

/// Reads `uris`: names, each once.
pub(super) fn read_uris(top: &mut Section<'_>) -> Vec<String> {
    let items = top.take("uris").and_then(|list| list.list(URIS_MAX)).unwrap_or_default();
    let mut uris: Vec<String> = Vec::new();
    for item in items {
        match item.parsed(read_uri) {
            Some(uri) if uris.contains(&uri) => {
                item.place.fail(format!("`{}` is named twice", shown(&uri)), "remove one");
            }
            Some(uri) => uris.push(uri),
            None => {}
        }
    }
    uris
}

/// As a route of Cloud Foundry is written: `HOST`, `HOST:PORT` or `HOST/PATH`.
pub(super) fn read_uri(text: &str) -> Result<String, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!(
            "`{}` begins with {}; write \"{}\"",
            shown(text),
            shown(scheme),
            shown(rest)
        ));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let is_host = !plain.is_empty() && plain.bytes().all(safe);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_path = path.bytes().all(|b| b.is_ascii_graphic());
    match text.len() <= URI_MAX && is_host && is_port && is_path {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{}` is no name of an app; write HOST, HOST:PORT or HOST/PATH",
            shown(text)
        )),
    }
}
