//! What is written down of a container's peas: their disks, and the layers below.

use super::{Depot, PEAS};
use crate::unit::{Digest, Handle};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;

impl Depot {
    /// Writes down that a pea of the container has a disk of this name in the store, and which layers
    /// lie below it.
    pub fn add_pea(
        &self,
        handle: &Handle,
        disk: &Handle,
        pea: &str,
        layers: &[Digest],
    ) -> io::Result<()> {
        let dir = self.dir(handle).join(PEAS);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        // Its own: others are written down at the same time. No disk has such a name.
        let draft = dir.join(format!(".{disk}"));
        let layers: String = layers.iter().map(|layer| format!("{layer}\n")).collect();
        fs::write(&draft, format!("{layers}{pea}"))?;
        fs::rename(&draft, dir.join(disk.as_str()))
    }

    /// The disks of a container's peas, each with the pea's id.
    pub fn peas(&self, handle: &Handle) -> io::Result<Vec<(Handle, String)>> {
        let items = match fs::read_dir(self.dir(handle).join(PEAS)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut peas = Vec::new();
        for item in items {
            let item = item?;
            let disk = item.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(disk) = disk {
                let text = fs::read_to_string(item.path())?;
                let (_, pea) = layers_and_id(&text);
                peas.push((disk, pea.to_owned()));
            }
        }
        Ok(peas)
    }

    /// The layers below each of a container's peas, lowest first.
    pub fn pea_layers(&self, handle: &Handle) -> io::Result<Vec<Vec<Digest>>> {
        let items = match fs::read_dir(self.dir(handle).join(PEAS)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for item in items {
            match fs::read_to_string(item?.path()) {
                Ok(text) => all.push(layers_and_id(&text).0),
                // It has ended meanwhile.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(all)
    }

    /// Forgets a disk; forgotten already is success.
    pub fn remove_pea(&self, handle: &Handle, disk: &Handle) -> io::Result<()> {
        match fs::remove_file(self.dir(handle).join(PEAS).join(disk.as_str())) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// Reads what is written down of a pea: the layers below its disk, a line each, and its id, which
/// goes to the end and may be any text; that before there were layers here is only an id.
fn layers_and_id(text: &str) -> (Vec<Digest>, &str) {
    let (mut layers, mut rest) = (Vec::new(), text);
    while let Some((line, after)) = rest.split_once('\n') {
        let Ok(layer) = line.parse() else { break };
        layers.push(layer);
        rest = after;
    }
    (layers, rest)
}
