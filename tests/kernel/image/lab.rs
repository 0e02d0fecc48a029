//! Archives made byte by byte, and where they are unpacked.

use crate::volume::{Lab, run, text};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use terrarium::image::unpack::{Options, Summary, UnpackError, unpack};
use terrarium::volume::Store;

/// A tar stream made byte by byte, so that it can say anything.
#[derive(Default)]
pub struct Tar(pub Vec<u8>);

/// A whole archive with one file in it.
pub fn one_file(path: &str, data: &[u8]) -> Vec<u8> {
    Tar::default().raw(b'0', path.as_bytes(), data, |_| ()).end()
}

impl Tar {
    /// An entry of type `kind`; `set` has the last word about its header.
    pub fn raw(mut self, kind: u8, path: &[u8], data: &[u8], set: impl Fn(&mut [u8; 512])) -> Tar {
        let mut block = [0u8; 512];
        block[..path.len()].copy_from_slice(path);
        block[100..107].copy_from_slice(b"0000644");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[136..147].copy_from_slice(format!("{:011o}", 1_000_000_000).as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        set(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, data: &str) -> Tar {
        self.raw(b'0', path.as_bytes(), data.as_bytes(), |_| ())
    }

    pub fn dir(self, path: &str, mode: u32) -> Tar {
        self.raw(b'5', path.as_bytes(), b"", |block| {
            block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        })
    }

    pub fn link(self, kind: u8, path: &str, target: &str) -> Tar {
        self.raw(kind, path.as_bytes(), b"", |block| {
            block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(b'2', path, target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(b'1', path, target)
    }

    pub fn node(self, kind: u8, path: &str, major: u8, minor: u8) -> Tar {
        self.raw(kind, path.as_bytes(), b"", |block| {
            block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
            block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        })
    }

    /// PAX records about the next entry, with true lengths.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            data.extend(format!("{len} {key}=").as_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.raw(b'x', b"pax", &data, |_| ())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A place outside the layer that archives try to reach, as it was before.
pub struct Canary {
    pub dir: PathBuf,
    before: String,
}

impl Canary {
    pub fn new(lab: &Lab) -> Canary {
        let dir = lab.dir.join("canary");
        fs::create_dir(&dir).expect("mkdir");
        fs::write(dir.join("x"), "alive").expect("write");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("chmod");
        let before = Canary::state(&dir);
        Canary { dir, before }
    }

    pub fn state(dir: &Path) -> String {
        let find = ["-printf", "%p %m %u %g %T@ %C@ %n %s\n"];
        run("find", &[&[text(dir)], &find[..]].concat())
    }

    pub fn check(&self, what: &str) {
        assert_eq!(Canary::state(&self.dir), self.before, "{what}: the canary was touched");
        assert_eq!(fs::read_to_string(self.dir.join("x")).expect("read"), "alive");
    }
}

/// An empty directory on the store's file system.
pub fn empty(store: &Store, name: &str) -> PathBuf {
    let dir = store.dir().join("tmp").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("mkdir");
    dir
}

pub fn into(dir: &Path, tar: Vec<u8>) -> Result<Summary, UnpackError> {
    unpack(&mut tar.as_slice(), dir, &Options::default())
}

/// Names below `dir`, sorted, with type and mode.
pub fn listing(dir: &Path) -> String {
    let out = run("find", &[text(dir), "-mindepth", "1", "-printf", "%y%m %P\n"]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_by_key(|line| line.split_once(' ').map(|(_, name)| name));
    lines.join("\n")
}

pub fn chain(err: &dyn std::error::Error) -> String {
    terrarium::log::chain(err)
}

/// Runs `test` with a fresh store and closes it.
pub fn with_store(name: &str, test: impl FnOnce(&Lab, &Store)) {
    let lab = Lab::new(name);
    let store = lab.open();
    test(&lab, &store);
    lab.close(store);
}

pub fn zstd(tar: &[u8], to: &Path) {
    let packed = zstd::stream::encode_all(tar, 3).expect("zstd");
    fs::write(to, packed).expect("write");
}

pub fn gzip(tar: &[u8], to: &Path) {
    let file = fs::File::create(to).expect("create");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(tar).and_then(|()| gzip.try_finish()).expect("gzip");
}
