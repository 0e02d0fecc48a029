//! Who pulls: this program, others, and tar alone.

use super::image::{Image, Packed};
use super::meter::{self, Cost, Standing};
use crate::host;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Until the kernel has removed a tree, and how often we look: it does not tell.
const SETTLES: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// A way to an image's files, as a line for bash: `$1` is the image's name, `$2` an empty directory on
/// btrfs, `$3` a compressed layer and so on.
pub struct Peer {
    pub name: &'static str,
    /// Programs without which it is left out.
    needs: &'static [&'static str],
    cold: &'static str,
    /// Again, right after.
    warm: Option<&'static str>,
    /// Given plain layers instead, or only one kind of packed ones.
    food: Food,
    pub role: Role,
}

/// Which layers a line is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Food {
    Any,
    Only(&'static str),
    Plain,
}

/// What we want to know by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Us.
    Ours,
    /// Who does the same.
    Peer,
    /// Inflating into tar, without a network, a digest or a promise that it is on the disk.
    Inflate,
    /// Fetching alone: what comes is left packed.
    Fetch,
    /// A part of the work, for comparison.
    Part,
}

const PODMAN: &str = "podman --log-level error --root $2/root --runroot $2/run --tmpdir $2/tmp \
    --storage-driver overlay --cgroup-manager cgroupfs pull --quiet --tls-verify=false $1";
const SKOPEO: &str = "skopeo --insecure-policy copy --quiet --src-tls-verify=false \
    docker://$1 oci:$2/layout:a";
const UMOCI: &str = "skopeo --insecure-policy copy --quiet --src-tls-verify=false \
    docker://$1 oci:$2/layout:a && umoci --log error unpack --image $2/layout:a $2/bundle";

const fn peer(
    name: &'static str,
    needs: &'static [&'static str],
    food: Food,
    role: Role,
    cold: &'static str,
) -> Peer {
    Peer { name, needs, cold, warm: None, food, role }
}

const GZIP: Food = Food::Only("gzip");
const ZSTD: Food = Food::Only("zstd");

/// All others. The umoci of Debian 12 knows no zstd.
pub const PEERS: &[Peer] = &[
    Peer {
        warm: Some(SKOPEO),
        ..peer("skopeo + umoci", &["skopeo", "umoci"], GZIP, Role::Peer, UMOCI)
    },
    Peer { warm: Some(PODMAN), ..peer("podman", &["podman"], Food::Any, Role::Peer, PODMAN) },
    peer("skopeo, packed", &["skopeo"], Food::Any, Role::Fetch, SKOPEO),
    peer("gunzip | tar", &["gunzip"], GZIP, Role::Inflate, INTO_TAR[0]),
    peer("pigz | tar", &["pigz"], GZIP, Role::Inflate, INTO_TAR[1]),
    peer("igzip | tar", &["igzip"], GZIP, Role::Inflate, INTO_TAR[2]),
    peer("zstd | tar", &["zstd"], ZSTD, Role::Inflate, INTO_TAR[3]),
    peer("igzip", &["igzip"], GZIP, Role::Part, "for it in ${@:3}; do igzip -dc $it; done"),
    peer("zstd", &["zstd"], ZSTD, Role::Part, "for it in ${@:3}; do zstd -qdc $it; done"),
    peer("tar of plain", &[], Food::Plain, Role::Part, TAR),
    peer("the same, synced", &[], Food::Plain, Role::Part, TAR_SYNC),
];

/// Layers one after the other, as tar is one thread.
const INTO_TAR: [&str; 4] = [
    "for it in ${@:3}; do gunzip -c $it | tar -xp --numeric-owner -C $2; done",
    "for it in ${@:3}; do pigz -dc $it | tar -xp --numeric-owner -C $2; done",
    "for it in ${@:3}; do igzip -dc $it | tar -xp --numeric-owner -C $2; done",
    "for it in ${@:3}; do zstd -qdc $it | tar -xp --numeric-owner -C $2; done",
];
const TAR: &str = "for it in ${@:3}; do tar -xpf $it --numeric-owner -C $2; done";
const TAR_SYNC: &str = "for it in ${@:3}; do tar -xpf $it --numeric-owner -C $2; sync -f $2; done";

impl Peer {
    /// Whether it can be measured with layers packed so.
    pub fn takes(&self, packing: &str) -> bool {
        let eats = !matches!(self.food, Food::Only(only) if only != packing);
        eats && self.missing().is_none()
    }

    /// The program that it lacks.
    pub fn missing(&self) -> Option<&'static str> {
        self.needs.iter().find(|program| host::find(program).is_none()).copied()
    }

    /// One round, in a directory of its own that is gone after: cold and warm.
    pub fn round(
        &self,
        image: &Image,
        packed: &Packed,
        ground: &Path,
    ) -> Result<(Cost, Option<Cost>)> {
        let place = Place::make(ground)?;
        let layers = if self.food == Food::Plain { &image.tars } else { &packed.layers };
        let line = |text: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", &format!("set -e -o pipefail; {text}"), "bash"]);
            bash.arg(&packed.tag).arg(&place.0).args(layers);
            bash
        };
        let cold = meter::measure(&line(self.cold)).with_context(|| self.name.to_owned())?;
        let warm = self.warm.map(|text| meter::measure(&line(text))).transpose()?;
        place.remove()?;
        Ok((cold, warm))
    }
}

/// A subvolume on the ground where peers work.
struct Place(PathBuf);

impl Place {
    fn make(ground: &Path) -> Result<Place> {
        let place = Place(ground.join("place"));
        btrfs(&["subvolume", "create"], &place.0)?;
        Ok(place)
    }

    /// Takes it away, and waits until the kernel has done so: it would work beside who comes next.
    fn remove(self) -> Result<()> {
        // Podman mounts its own directory on itself.
        let mut umount = Command::new("umount");
        let _ = umount.arg(self.0.join("root/overlay")).stderr(Stdio::null()).status();
        btrfs(&["subvolume", "delete"], &self.0)?;
        settled(self.0.parent().unwrap_or(&self.0))
    }
}

/// Waits until all subvolumes of `place` that were removed are gone from the disk. Committing wakes
/// the kernel's thread that does it, which else has a look every half a minute.
fn settled(place: &Path) -> Result<()> {
    btrfs(&["filesystem", "sync"], place)?;
    let begun = Instant::now();
    while !btrfs(&["subvolume", "list", "-d"], place)?.is_empty() {
        if begun.elapsed() > SETTLES {
            bail!("{} still has removed subvolumes", place.display());
        }
        std::thread::sleep(LOOK);
    }
    btrfs(&["filesystem", "sync"], place).map(drop)
}

fn btrfs(what: &[&str], place: &Path) -> Result<String> {
    host::capture(Command::new("btrfs").args(what).arg(place))
}

/// This program: a daemon that runs, and its command line.
pub struct Ours<'a> {
    pub program: &'a Path,
    pub root: &'a Path,
    pub daemon: u32,
}

impl Ours<'_> {
    /// One round: cold and warm, then the image is removed.
    pub fn round(&self, packed: &Packed) -> Result<(Cost, Option<Cost>, u64)> {
        let (cold, rest_kib) = self.pull(packed)?;
        let (warm, _) = self.pull(packed)?;
        host::capture(&mut self.line(&["image", "rm", &packed.tag]))?;
        host::capture(&mut self.line(&["image", "gc"]))?;
        settled(&self.root.join("var/lib/terrarium/store"))?;
        Ok((cold, Some(warm), rest_kib))
    }

    /// The daemon's part and the command line's together; and what the daemon had in memory before.
    fn pull(&self, packed: &Packed) -> Result<(Cost, u64)> {
        let before = Standing::begin(self.daemon)?;
        let cli = meter::measure(&self.line(&["image", "pull", &packed.tag]))?;
        let (cpu_us, rss_kib) = before.end()?;
        let cost = Cost { cpu_us: cli.cpu_us + cpu_us, rss_kib, ..cli };
        Ok((cost, before.rest_kib))
    }

    fn line(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--root").arg(self.root).args(args);
        command
    }
}
