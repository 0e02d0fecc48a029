//! `[ssh]`: who may come into the app's containers, and by which port of the box.

use super::super::cursor::Section;
use super::network::{PortDraft, publish_number};
use super::places::Places;
use crate::model::manifest::{SidecarCommand, Ssh};
use crate::model::work::{SSH_PORT, SSHD};
use crate::unit::public_line;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most keys of one app.
const KEYS_MAX: usize = 32;

/// How long a connection may be idle, if that is limited.
const IDLE_MIN: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads `[ssh]`; a relative file starts at `dir`. `None`: something was noted.
pub(super) fn read(
    top: &mut Section<'_>,
    dir: &Path,
    ports: Option<&[PortDraft<'_>]>,
    sidecars: Option<&BTreeMap<String, SidecarCommand>>,
    places: &mut Places,
) -> Option<Option<Ssh>> {
    let Some(value) = top.take("ssh") else { return Some(None) };
    places.ssh = Some(value.place.span());
    let taken = ports.into_iter().flatten().any(|port| port.model.container == SSH_PORT);
    if taken {
        let text = format!("needs port {SSH_PORT} of the container, which a [[port]] has");
        value.fail(text, "let the app listen elsewhere, or remove [ssh]");
    }
    if sidecars.is_some_and(|all| all.contains_key(SSHD)) {
        let text = format!("brings a sidecar called `{SSHD}`, and there is one already");
        value.fail(text, "call the other one differently");
    }
    let mut section = value.section()?;
    let keys = match section.take("authorized_keys") {
        Some(list) => {
            let items = list.list(KEYS_MAX)?;
            if items.is_empty() {
                list.fail("is empty", "write the line of your ~/.ssh/id_ed25519.pub");
            }
            let count = items.len();
            let keys = items
                .iter()
                .filter_map(|item| item.parsed(|text| public_line(text).map(str::to_owned)));
            Some(keys.collect::<Vec<_>>()).filter(|keys| count > 0 && keys.len() == count)
        }
        // The file alone will do.
        None if section.has("authorized_keys_file") => Some(Vec::new()),
        None => {
            let cure =
                "add authorized_keys = [\"LINE OF YOUR .pub FILE\"], or authorized_keys_file";
            section.missing("authorized_keys", cure.into());
            None
        }
    };
    let file = section.take("authorized_keys_file").map(|value| {
        let path = dir.join(value.filled(4096)?).components().collect::<PathBuf>();
        places.ssh_file = Some((path.clone(), value.place.span()));
        Some(path)
    });
    let publish = section.take("publish").map(|value| {
        let port = publish_number(&value)?;
        if places.published.iter().any(|(other, _)| *other == port) {
            value.fail(format!("publishes port {port} for the second time"), "choose another one");
            return None;
        }
        places.published.push((port, value.place.span()));
        Some(port)
    });
    let forwards = section.take("forwarding").map(|value| value.truth());
    let idle = section.take("idle_timeout").map(|value| value.time(IDLE_MIN, IDLE_MAX));
    section.later(&["user", "port"]);
    section.finish();
    let publish = match publish {
        Some(port) => Some(port?),
        None => None,
    };
    let authorized_keys_file = match file {
        Some(file) => Some(file?),
        None => None,
    };
    match taken {
        true => None,
        false => Some(Some(Ssh {
            authorized_keys: keys?,
            authorized_keys_file,
            no_forwarding: !forwards.unwrap_or(Some(true))?,
            idle_timeout: idle.map_or(Some(None), |idle| idle.map(Some))?,
            publish,
        })),
    }
}
