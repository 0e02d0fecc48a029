//! An image's configuration: what its processes are run with. Text in, checked values out.

use super::bounded::{self, ENTRIES_MAX};
use super::manifest::{self, clean};
use super::platform::Platform;
use crate::unit::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Most ports: all of one protocol are some images' way to say any.
const PORTS_MAX: usize = 1 << 16;
/// Longest text of a list, in bytes.
const TEXT_MAX: usize = 128 << 10;
/// What the layers of an image of the first version may say together of environment and volumes, in
/// bytes: as much as one document.
const TOGETHER_MAX: usize = 4 << 20;

/// What an image says of its processes. Empty is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `K=V`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Further arguments, or all of it without an entrypoint.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Where they start.
    #[serde(default)]
    pub workdir: String,
    /// `name`, `uid`, `name:group`, `uid:gid`.
    #[serde(default)]
    pub user: String,
    /// What is listened on, without order.
    #[serde(default)]
    pub ports: Vec<Exposed>,
    /// The first of them that stands for several, as it is written. Who stages apps refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<String>,
    /// Directories that are to be the container's own.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// What ends it; a name or a number.
    #[serde(default)]
    pub stop_signal: String,
    /// Free text about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A port of `ExposedPorts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exposed {
    /// Its number, not 0.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `/tcp`, or nothing.
    Tcp,
    /// `/udp`.
    Udp,
    /// `/sctp`.
    Sctp,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    config: Option<Inner>,
    rootfs: Option<Rootfs>,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(deserialize_with = "diff_ids")]
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inner {
    #[serde(deserialize_with = "env")]
    env: Vec<String>,
    #[serde(deserialize_with = "entrypoint")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "cmd")]
    cmd: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    #[serde(deserialize_with = "exposed_ports")]
    exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "volumes")]
    volumes: BTreeMap<String, IgnoredAny>,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
}

fn diff_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded::list(from, "diff_ids", ENTRIES_MAX)
}

fn env<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded::list(from, "Env", ENTRIES_MAX)
}

fn entrypoint<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded::words(from, "Entrypoint", ENTRIES_MAX)
}

fn cmd<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded::words(from, "Cmd", ENTRIES_MAX)
}

fn exposed_ports<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, IgnoredAny>, D::Error> {
    bounded::map(from, "ExposedPorts", PORTS_MAX)
}

fn volumes<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, IgnoredAny>, D::Error> {
    bounded::map(from, "Volumes", ENTRIES_MAX)
}

fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    bounded::map(from, "Labels", ENTRIES_MAX)
}

impl ImageConfig {
    /// Reads a configuration: itself, where it runs, and the digests of what is in its layers,
    /// lowest first.
    pub fn read(json: &[u8]) -> Result<(ImageConfig, Platform, Vec<Digest>), String> {
        let whole: Whole = manifest::read(json, "a configuration")?;
        let rootfs = whole.rootfs.ok_or("its configuration names no layers")?;
        let diff = |text: &String| manifest::digest(text, "a layer's content");
        let diffs = rootfs.diff_ids.iter().map(diff).collect::<Result<_, String>>()?;
        let platform = Platform {
            os: whole.os.unwrap_or_default(),
            architecture: whole.architecture.unwrap_or_default(),
            variant: whole.variant.unwrap_or_default(),
        };
        Ok((whole.config.unwrap_or_default().checked()?, platform, diffs))
    }

    /// This one, of a layer of the first version, above that of the layers below: what they say of
    /// environment and volumes goes on, where this one says nothing else. All of it together is bounded
    /// as what one of them says.
    pub fn over(mut self, below: ImageConfig) -> Result<ImageConfig, String> {
        fn name(entry: &str) -> &str {
            entry.split('=').next().unwrap_or_default()
        }
        let own: BTreeSet<&str> = self.env.iter().map(|entry| name(entry)).collect();
        let (mut env, mut volumes) = (below.env, below.volumes);
        env.retain(|entry| !own.contains(name(entry)));
        let own: BTreeSet<&String> = self.volumes.iter().collect();
        volumes.retain(|path| !own.contains(path));
        env.append(&mut self.env);
        volumes.append(&mut self.volumes);
        let bytes: usize = env.iter().chain(&volumes).map(String::len).sum();
        let most = [("Env", env.len()), ("Volumes", volumes.len())];
        if let Some((name, _)) = most.iter().find(|(_, count)| *count > ENTRIES_MAX) {
            return Err(format!(
                "the configurations of its layers have more than {ENTRIES_MAX} entries in `{name}`"
            ));
        }
        if bytes > TOGETHER_MAX {
            return Err(format!(
                "the configurations of its layers have more than {TOGETHER_MAX} bytes in `Env` and \
                 `Volumes`"
            ));
        }
        Ok(ImageConfig { env, volumes, ..self })
    }

    /// Reads what an image of the first version says of one of its layers.
    pub fn read_first(json: &[u8]) -> Result<(ImageConfig, Platform), String> {
        let whole: Whole = manifest::read(json, "a configuration")?;
        let platform = Platform {
            os: whole.os.unwrap_or_default(),
            architecture: whole.architecture.unwrap_or_default(),
            variant: String::new(),
        };
        Ok((whole.config.unwrap_or_default().checked()?, platform))
    }
}

impl Inner {
    fn checked(self) -> Result<ImageConfig, String> {
        let (ports, port_range) = all_exposed(&self.exposed_ports)?;
        let config = ImageConfig {
            env: self.env,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            workdir: self.working_dir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            ports,
            port_range,
            volumes: self.volumes.into_keys().collect(),
            stop_signal: self.stop_signal.unwrap_or_default(),
            labels: self.labels,
        };
        let lists = [&config.env, &config.entrypoint, &config.cmd, &config.volumes];
        let texts = lists.into_iter().flatten().chain([&config.workdir, &config.user]);
        for text in texts {
            if text.len() > TEXT_MAX || text.contains('\0') {
                let begin: String = text.chars().take(32).collect();
                return Err(format!(
                    "its configuration has a text that no process can have, `{}...`",
                    clean(&begin)
                ));
            }
        }
        Ok(config)
    }
}

/// All ports of `ExposedPorts`, and the first key that stands for many. They are counted before they are
/// there.
fn all_exposed(
    keys: &BTreeMap<String, IgnoredAny>,
) -> Result<(Vec<Exposed>, Option<String>), String> {
    let (mut ports, mut several) = (Vec::new(), None);
    for text in keys.keys() {
        let (range, protocol) = exposed(text)?;
        if ports.len() + range.len() > PORTS_MAX {
            return Err(format!("its configuration has more than {PORTS_MAX} ports"));
        }
        if text.contains('-') {
            several.get_or_insert_with(|| clean(text));
        }
        ports.extend(range.map(|port| Exposed { port, protocol }));
    }
    Ok((ports, several))
}

/// Reads `80`, `80/tcp`, `8000-8010/udp`.
fn exposed(text: &str) -> Result<(RangeInclusive<u16>, Protocol), String> {
    let wrong = || format!("its configuration has the port `{}`", clean(text));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(wrong()),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(wrong());
    }
    Ok((first..=last, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<ImageConfig, String> {
        let diff = Digest::of(b"");
        let text =
            format!(r#"{{"os":"linux","config":{config},"rootfs":{{"diff_ids":["{diff}"]}}}}"#);
        ImageConfig::read(text.as_bytes()).map(|(config, ..)| config)
    }

    #[test]
    fn configurations_are_read_as_programs_write_them() {
        let text = r#"{"Env":["A=b"],"Entrypoint":["/e"],"Cmd":"one","WorkingDir":"/w","User":"u:g",
            "ExposedPorts":{"80/tcp":{},"53/UDP":null,"9000-9002":{}},"Volumes":{"/v":{}},
            "StopSignal":"SIGINT","Labels":{"a":"b"},"Unknown":1}"#;
        let config = read(text).expect("a configuration");
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec!["/e".to_owned()], vec!["one".to_owned()])
        );
        assert_eq!((config.user.as_str(), config.workdir.as_str()), ("u:g", "/w"));
        let ports: Vec<_> = config.ports.iter().map(|it| (it.port, it.protocol)).collect();
        let tcp = Protocol::Tcp;
        assert_eq!(ports, [(53, Protocol::Udp), (80, tcp), (9000, tcp), (9001, tcp), (9002, tcp)]);
        assert_eq!(config.port_range.as_deref(), Some("9000-9002"));
        assert_eq!(config.volumes, ["/v"]);
        let nothing = r#"{"Env":null,"Cmd":null,"ExposedPorts":null,"Labels":null}"#;
        assert_eq!(read(nothing), Ok(ImageConfig::default()));
        assert_eq!(read("null"), Ok(ImageConfig::default()));
    }

    /// Each key stands for thousands of ports: all of them would be gigabytes.
    #[test]
    fn ports_are_counted_before_they_are_made() {
        let one = r#"{"ExposedPorts":{"1-65535/tcp":{},"1/udp":{}}}"#;
        assert_eq!(read(one).expect("just enough").ports.len(), PORTS_MAX);
        let keys: Vec<String> =
            (1..=20_000).map(|first| format!(r#""{first}-{}":{{}}"#, first + 9_999)).collect();
        let err =
            read(&format!("{{\"ExposedPorts\":{{{}}}}}", keys.join(","))).expect_err("too many");
        assert!(err.contains("more than 65536 ports"), "{err}");
    }

    /// A document of 4 MiB has room for hundreds of thousands of entries, each of them many times as large
    /// in memory.
    #[test]
    fn what_an_image_says_of_itself_is_counted_while_it_is_read() {
        let keys = |more: usize| -> String {
            let keys: Vec<String> = (0..more).map(|n| format!("\"{n}\":\"\"")).collect();
            keys.join(",")
        };
        let words = format!("[{}\"\"]", "\"\",".repeat(ENTRIES_MAX));
        let map = format!("{{{}}}", keys(ENTRIES_MAX + 1));
        let ports = format!("{{{}}}", keys(PORTS_MAX + 1));
        for (name, value) in [
            ("Env", &words),
            ("Entrypoint", &words),
            ("Cmd", &words),
            ("Volumes", &map),
            ("Labels", &map),
            ("ExposedPorts", &ports),
        ] {
            let said = read(&format!("{{\"{name}\":{value}}}")).expect_err(name);
            let expected = format!("a configuration cannot be read: `{name}` has more than ");
            assert!(said.starts_with(&expected), "{said}");
        }
        let just = format!("{{\"Labels\":{{{}}}}}", keys(ENTRIES_MAX));
        assert_eq!(read(&just).expect("just enough").labels.len(), ENTRIES_MAX);
        let diffs = format!(r#"{{"rootfs":{{"diff_ids":{words}}}}}"#);
        let said = ImageConfig::read(diffs.as_bytes()).expect_err("layers");
        assert!(said.contains("`diff_ids` has more than 10000"), "{said}");
    }

    /// Each layer of the first version says something of its own.
    #[test]
    fn what_layers_say_together_is_bounded_as_what_one_says() {
        let of = |env: Vec<String>, volumes: Vec<String>| ImageConfig {
            env,
            volumes,
            ..ImageConfig::default()
        };
        let texts =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let below = of(texts(&["A=1", "B=1", "A=0"]), texts(&["/a", "/b"]));
        let above = of(texts(&["B=2", "C=2"]), texts(&["/b", "/c"]));
        let both = above.over(below).expect("little");
        assert_eq!(both.env, ["A=1", "A=0", "B=2", "C=2"]);
        assert_eq!(both.volumes, ["/a", "/b", "/c"]);

        let layer = |at: usize| (0..9000).map(|n| format!("{at}-{n}")).collect::<Vec<_>>();
        let said = |env: bool| {
            let of = |at| if env { of(layer(at), vec![]) } else { of(vec![], layer(at)) };
            of(1).over(of(0)).expect_err("too many")
        };
        assert!(said(true).contains("more than 10000 entries in `Env`"), "{}", said(true));
        assert!(said(false).contains("more than 10000 entries in `Volumes`"), "{}", said(false));
        let large =
            |at| of((0..30).map(|n| format!("{at}-{n}={}", "x".repeat(100_000))).collect(), vec![]);
        let said = large(1).over(large(0)).expect_err("too large");
        assert!(said.contains("more than 4194304 bytes in `Env` and `Volumes`"), "{said}");
    }

    #[test]
    fn what_no_process_can_have_is_refused() {
        for bad in [
            r#"{"Env":["A=\u0000"]}"#,
            r#"{"ExposedPorts":{"0/tcp":{}}}"#,
            r#"{"ExposedPorts":{"80/x":{}}}"#,
            r#"{"ExposedPorts":{"9-8":{}}}"#,
            r#"{"ExposedPorts":{"1-65536":{}}}"#,
            r#"{"Env":"A=b"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(ImageConfig::read(b"{}").is_err());
        assert!(ImageConfig::read(br#"{"rootfs":{"diff_ids":["sha256:.."]}}"#).is_err());
    }
}
