//! The depot: one directory per container with all that must be readable without the records.
//!
//! ```text
//! depot/<handle>/container.json   what was asked for, slot, ports, pid; written before anything is made
//! depot/<handle>/init/            exit statuses and spools, owned by the container's root (0700)
//! depot/<handle>/init.sock        where pid 1 serves
//! depot/<handle>/peas/<disk>      layers below a pea's disk in the store, and its id; written before it is made
//! depot/<handle>/leaving          empty; its removal has begun
//! depot/<handle>/scratch/         empty; pid 1 builds the root there, in its own mount namespace
//! depot/<handle>/{hosts,resolv.conf,hostname}   an app's, shown read-only inside
//! ```

use super::spec::ContainerSpec;
use crate::net::Addresses;
use crate::unit::{Digest, Handle, IdMap, Slot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What `container.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format of this file; readers refuse a newer one.
    pub format: u32,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Names, addresses and ids derive from it.
    pub slot: Slot,
    /// Host port and container port, in the order of `spec.ports`, then of `spec.host_ports`, then
    /// of later requests.
    pub ports: Vec<(u16, u16)>,
    /// What it has of the network that it asked for; `None`: the slot says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// Pid 1 as the box numbers it, and its start time in clock ticks since boot; `None` while
    /// the container is being made.
    pub pid: Option<(i32, u64)>,
    /// The box's boot in which that was: after another one the pid is anybody's.
    #[serde(default)]
    pub boot: String,
}

impl Entry {
    /// The box's ids of those inside.
    pub fn ids(&self) -> IdMap {
        self.spec.posture.ids(self.spec.manner.ids, self.slot)
    }

    /// Pid 1 and its start time, if it was started since the box did.
    pub fn process(&self) -> Option<(i32, u64)> {
        self.pid.filter(|_| self.boot == boot_id())
    }
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// As much of an entry as can be read of one that is not for this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// Names, addresses and ids derive from it.
    pub slot: Option<Slot>,
    /// Host port and container port.
    pub ports: Vec<(u16, u16)>,
    /// What it has of the network that it asked for.
    pub addresses: Option<Addresses>,
    /// What its owner keeps with it.
    pub owner: String,
    /// It is no Garden client's, or nobody knows.
    pub is_apps: bool,
}

/// What the kernel calls this run of the box; random(4).
pub fn boot_id() -> String {
    // Read once: later there may be no descriptor for it, and then all that lives would look dead.
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return id.clone();
    }
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => ID.get_or_init(|| text.trim().to_owned()).clone(),
        Err(_) => String::new(),
    }
}

/// Says that the removal of a container has begun.
const LEAVING: &str = "leaving";

/// Where a container's peas are written down.
const PEAS: &str = "peas";

/// Format that this program writes.
pub const FORMAT: u32 = 1;

/// The directory that holds all containers' directories.
#[derive(Clone, Debug)]
pub struct Depot {
    dir: PathBuf,
}

impl Depot {
    /// Opens the depot, making it (0700) when missing.
    pub fn open(dir: &Path) -> io::Result<Depot> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Depot { dir: dir.to_owned() })
    }

    /// The directory of one container.
    pub fn dir(&self, handle: &Handle) -> PathBuf {
        self.dir.join(handle.as_str())
    }

    /// Makes a container's directory and writes its entry. The handle must be free.
    pub fn make(&self, entry: &Entry) -> io::Result<()> {
        let dir = self.dir(&entry.spec.handle);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        fs::DirBuilder::new().mode(0o700).create(dir.join("scratch"))?;
        fs::DirBuilder::new().mode(0o700).create(dir.join("init"))?;
        let root = Some(entry.ids().root());
        std::os::unix::fs::chown(dir.join("init"), root, root)?;
        self.write(entry)
    }

    /// Replaces a container's entry in one step. It is not forced to the disk: a power cut ends
    /// everything that it speaks of but the writable layer, and that one is swept without an entry
    /// too; a daemon that is killed leaves it in the kernel's hands, whole.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let dir = self.dir(&entry.spec.handle);
        let text = serde_json::to_vec(entry).map_err(io::Error::other)?;
        let temp = dir.join("container.json.new");
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(&text)?;
        fs::rename(&temp, dir.join("container.json"))
    }

    /// Reads one container's entry; `None`: the directory or a whole entry is not there.
    /// `Unsupported`: a newer program has written it; `InvalidData`: it is none.
    pub fn read(&self, handle: &Handle) -> io::Result<Option<Entry>> {
        let text = match fs::read(self.dir(handle).join("container.json")) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let broken = |err| io::Error::new(io::ErrorKind::InvalidData, err);
        // First of all: the rest of a newer one may be anything.
        let Format { format } = serde_json::from_slice(&text).map_err(broken)?;
        if format > FORMAT {
            let why = format!("its entry is of a newer version of this program (format {format})");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        serde_json::from_slice(&text).map(Some).map_err(broken)
    }

    /// What can be told of a container whose entry is not for this program.
    pub fn glimpse(&self, handle: &Handle) -> Glimpse {
        let text = fs::read(self.dir(handle).join("container.json")).unwrap_or_default();
        let all: Value = serde_json::from_slice(&text).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Glimpse {
            slot: serde_json::from_value(all["slot"].clone()).ok(),
            ports: serde_json::from_value(all["ports"].clone()).unwrap_or_default(),
            addresses: serde_json::from_value(all["addresses"].clone()).ok(),
            owner: text(&all["spec"]["owner"]).unwrap_or_default(),
            // An app's is not written down.
            is_apps: all["spec"]["posture"].is_null(),
        }
    }

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

    /// Every container that has a directory, in order of name.
    pub fn list(&self) -> io::Result<Vec<Handle>> {
        let mut handles = Vec::new();
        for item in fs::read_dir(&self.dir)? {
            if let Some(handle) = item?.file_name().to_str().and_then(|name| name.parse().ok()) {
                handles.push(handle);
            }
        }
        handles.sort();
        Ok(handles)
    }

    /// Writes down that a container is about to be removed; one without a directory is gone.
    pub fn mark_leaving(&self, handle: &Handle) -> io::Result<()> {
        match File::create(self.dir(handle).join(LEAVING)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Whether the removal of a container has begun.
    pub fn is_leaving(&self, handle: &Handle) -> io::Result<bool> {
        self.dir(handle).join(LEAVING).try_exists()
    }

    /// Removes a container's directory; gone already is success. The entry goes first: what is found
    /// half-removed is never taken for a container.
    pub fn remove(&self, handle: &Handle) -> io::Result<()> {
        match fs::remove_file(self.dir(handle).join("container.json")) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        crate::sys::fault::point(format_args!("destroy:half-entry"));
        match fs::remove_dir_all(self.dir(handle)) {
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

#[cfg(test)]
mod tests {
    use super::super::spec::ContainerSpec;
    use super::*;

    #[test]
    fn peas_that_are_written_down_at_the_same_time_are_all_there() {
        let dir = std::env::temp_dir().join(format!("depot-peas-{}", std::process::id()));
        let depot = Depot::open(&dir).expect("open");
        let web: Handle = "web-0".parse().expect("handle");
        fs::create_dir(depot.dir(&web)).expect("mkdir");
        let add = |disk: String, pea: &str| {
            let disk = disk.parse().expect("handle");
            depot.add_pea(&web, &disk, pea, &[Digest::of(pea.as_bytes())]).expect("add");
        };
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let add = &add;
                scope.spawn(move || {
                    (0..50)
                        .for_each(|n| add(format!("pea-{writer}-{n}"), &format!("{writer}/{n}")));
                });
            }
        });
        // Of a daemon that was killed before its name was in place.
        fs::write(depot.dir(&web).join("peas/.pea-x"), "half").expect("a draft");
        let peas = depot.peas(&web).expect("peas");
        let layers = depot.pea_layers(&web).expect("layers");
        assert!(peas.iter().all(|(_, pea)| layers.contains(&vec![Digest::of(pea.as_bytes())])));
        fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(peas.len(), 400);
        for (disk, pea) in peas {
            assert_eq!(disk.as_str(), format!("pea-{}", pea.replace('/', "-")));
        }
    }

    #[test]
    fn of_a_newer_entry_as_much_is_told_as_there_is() {
        let dir = std::env::temp_dir().join(format!("depot-newer-{}", std::process::id()));
        let depot = Depot::open(&dir).expect("open");
        let handle: Handle = "web-0".parse().expect("handle");
        let spec =
            ContainerSpec { owner: "me".into(), ..ContainerSpec::new(handle.clone(), vec![]) };
        let (slot, ports) = (Slot::new(7).expect("slot"), vec![(61_001, 80)]);
        let entry = Entry {
            format: FORMAT,
            spec,
            slot,
            ports: ports.clone(),
            addresses: None,
            pid: None,
            boot: String::new(),
        };
        depot.make(&entry).expect("make");
        assert_eq!(depot.read(&handle).expect("read"), Some(entry));
        let file = depot.dir(&handle).join("container.json");
        let edit = |change: &dyn Fn(&mut Value)| {
            let mut all = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
            change(&mut all);
            fs::write(&file, all.to_string()).expect("write");
            (depot.read(&handle).expect_err("refused").kind(), depot.glimpse(&handle))
        };
        let known = Glimpse {
            slot: Some(slot),
            ports,
            owner: "me".into(),
            is_apps: true,
            ..Glimpse::default()
        };
        let (kind, glimpse) = edit(&|all| all["format"] = 2.into());
        assert_eq!((kind, &glimpse), (io::ErrorKind::Unsupported, &known));
        let (kind, glimpse) = edit(&|all| {
            all["spec"]["posture"] = "caged".into();
            all["slot"] = "seven".into();
        });
        assert_eq!(kind, io::ErrorKind::Unsupported);
        assert_eq!(glimpse, Glimpse { slot: None, is_apps: false, ..known });
        fs::write(&file, "{").expect("write");
        assert_eq!(depot.read(&handle).expect_err("broken").kind(), io::ErrorKind::InvalidData);
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn a_handle_that_is_no_name_is_not_listed() {
        let dir = std::env::temp_dir().join(format!("depot-{}", std::process::id()));
        let depot = Depot::open(&dir).expect("open");
        fs::create_dir(dir.join("web-0")).expect("mkdir");
        fs::create_dir(dir.join("..x")).expect("mkdir");
        let found = depot.list().expect("list");
        fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(found, ["web-0".parse().expect("handle")]);
    }
}
