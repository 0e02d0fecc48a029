//! How far the loop file grows, and what a mount table says. Numbers and text in, answer out.

use std::path::{Path, PathBuf};

/// Size of a new loop file, and least growth at a time, in bytes.
pub const STEP: u64 = 256 << 20;
/// Kept free in the store beyond what is asked for: btrfs needs room for its trees to work at all.
pub const SLACK: u64 = 64 << 20;
/// What is never taken of the disk below the loop file: this much, or 5 % of a small disk.
const RESERVE: u64 = 512 << 20;
/// One part in so many of what is written is trees, at worst.
const TREES: u64 = 8;
/// Sizes are whole MiB.
const MIB: u64 = 1 << 20;

/// Everything that decides about growth, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// What shall fit.
    pub need: u64,
    /// How much containers may still write.
    pub promised: u64,
    /// Free in the parts of the store that are for data.
    pub data: u64,
    /// Free in the parts that are for btrfs's own trees; no data goes there.
    pub trees: u64,
    /// Not yet given to data or trees.
    pub unallocated: u64,
    /// The loop file; all zero for a store that has none and cannot grow.
    pub file: FileSize,
}

/// The loop file and the disk that it is on, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSize {
    /// Its length.
    pub len: u64,
    /// Its greatest length.
    pub max: u64,
    /// Free on the disk below.
    pub host_free: u64,
    /// Size of the disk below; 0: it does not say.
    pub host_total: u64,
}

impl Room {
    /// What data finds free.
    pub fn free(&self) -> u64 {
        self.data.saturating_add(self.unallocated)
    }

    /// What must still be given to data and trees for all of this to fit. Trees grow with what is
    /// written: an eighth of it when that is files of 4 KiB. Every block of theirs is kept twice.
    fn lacks(&self, need: u64) -> u64 {
        let outstanding = need.saturating_add(self.promised);
        let data = outstanding.saturating_add(SLACK).saturating_sub(self.data);
        let trees = (outstanding / TREES).saturating_sub(self.trees);
        data.saturating_add(trees.saturating_mul(2))
    }
}

impl FileSize {
    /// What `max` still allows, in whole MiB.
    fn may(&self) -> u64 {
        self.max.saturating_sub(self.len) / MIB * MIB
    }

    /// What the disk below still has to give, in whole MiB.
    fn host_may(&self) -> u64 {
        match self.host_total {
            // Memory file systems and some network ones do not say.
            0 => u64::MAX,
            total => self.host_free.saturating_sub(reserve(total)) / MIB * MIB,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Nothing: it fits.
    Enough,
    /// Make the loop file this long.
    To(u64),
    /// `size_max` forbids it.
    StoreFull,
    /// The disk below has too little.
    HostFull,
}

/// What is kept free of a disk of `total` bytes.
pub fn reserve(total: u64) -> u64 {
    RESERVE.min(total / 20)
}

/// Decides about growth.
pub fn growth(room: &Room) -> Growth {
    let missing = room.lacks(room.need).saturating_sub(room.unallocated);
    if missing == 0 {
        return Growth::Enough;
    }
    let missing = missing.div_ceil(MIB).saturating_mul(MIB);
    let (may, host_may) = (room.file.may(), room.file.host_may());
    if may < missing {
        return Growth::StoreFull;
    }
    if host_may < missing {
        return Growth::HostFull;
    }
    Growth::To(room.file.len + missing.max(STEP).min(may).min(host_may))
}

/// How long the loop file becomes so that `unallocated` bytes of it are neither data's nor trees': by a
/// part of them btrfs lets those who write run ahead of the disk. `None`: they are there, or next to
/// nothing of them can be. Nobody needs it, so it is a quarter of what the disk below could give at most,
/// and nothing of one that does not say what it has: that may be the box's memory.
pub fn widened(room: &Room, unallocated: u64) -> Option<u64> {
    if room.file.host_total == 0 {
        return None;
    }
    let may = room.file.may().min(room.file.host_may() / 4 / MIB * MIB);
    let missing = unallocated.saturating_sub(room.unallocated).div_ceil(MIB).saturating_mul(MIB);
    let more = missing.min(may);
    (more >= STEP).then(|| room.file.len + more)
}

/// What could still be promised or written, growth included.
pub fn left(room: &Room) -> u64 {
    let growth = room.file.may().min(room.file.host_may());
    let budget = room.unallocated.saturating_add(growth);
    let rest = budget.saturating_sub(room.lacks(0)).saturating_add(
        // What the data parts have beyond what is outstanding.
        room.data.saturating_sub(room.promised.saturating_add(SLACK)),
    );
    // Each part of data asks for a quarter of itself for trees, twice an eighth.
    rest / (TREES + 2) * TREES
}

/// What can be written beyond all this without growth.
pub fn spare(room: &Room) -> u64 {
    let promised = room.promised.saturating_add(room.need);
    left(&Room { promised, need: 0, file: FileSize::default(), ..*room })
}

/// How long the loop file should be when it is far longer than it has to be. It ends not before
/// `used_end`, up to where btrfs has taken the device for something, so that nothing is moved.
pub fn shrunk(room: &Room, used_end: u64) -> Option<u64> {
    let keep = room.lacks(0).saturating_add(STEP);
    let spare = room.unallocated.saturating_sub(keep);
    let len = room.file.len.saturating_sub(spare).max(used_end).max(STEP);
    let len = len.div_ceil(MIB).saturating_mul(MIB);
    // A step to and fro is not worth the writes.
    (len.saturating_add(2 * STEP) <= room.file.len).then_some(len)
}

/// A line of /proc/thread-self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// `btrfs`.
    pub kind: String,
    /// `/dev/loop3`.
    pub source: PathBuf,
}

/// What is mounted at `dir` itself, the topmost if there are several. `table` is the text of
/// /proc/thread-self/mountinfo, proc(5).
pub fn mounted_at(table: &[u8], dir: &Path) -> Option<Mounted> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = |field: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(unescape(field)));
    let lines = table.split(|b| *b == b'\n');

    lines.rev().find_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let point = fields.nth(4)?;
        if unescape(point) != dir.as_os_str().as_bytes() {
            return None;
        }
        let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = String::from_utf8_lossy(tail.next()?).into_owned();
        Some(Mounted { kind, source: path(tail.next()?) })
    })
}

/// The number in `/dev/loop3`.
pub fn loop_number(device: &Path) -> Option<u32> {
    device.to_str()?.strip_prefix("/dev/loop")?.parse().ok()
}

/// Undoes `\040`, as the kernel writes a blank in a path.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |b: &u8| matches!(b, b'0'..=b'7');
        if byte == b'\\' && tail.len() >= 3 && tail[..3].iter().all(octal) {
            let value = tail[..3].iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0'));
            out.push(value as u8);
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// With `free_mib` unallocated.
    fn room(need_mib: u64, free_mib: u64) -> Room {
        let file =
            FileSize { len: STEP, max: 10 * GIB, host_free: 100 * GIB, host_total: 200 * GIB };
        let (need, unallocated) = (need_mib * MIB, free_mib * MIB);
        Room { need, promised: 0, data: 0, trees: 32 * MIB, unallocated, file }
    }

    #[test]
    fn growth_is_at_least_a_step_and_covers_the_need() {
        assert_eq!(growth(&room(10, 74)), Growth::Enough);
        assert_eq!(growth(&room(11, 74)), Growth::To(2 * STEP));
        // 1024 of data, 64 of slack, and 128 of trees, of which 32 are there, twice.
        assert_eq!(growth(&room(1024, 64)), Growth::To(STEP + (1024 + 192) * MIB));
    }

    #[test]
    fn what_data_has_is_of_no_use_to_trees() {
        let full = Room { data: 4 * GIB, trees: 0, ..room(1024, 0) };
        assert_eq!(growth(&full), Growth::To(2 * STEP));
        assert_eq!(growth(&Room { trees: 128 * MIB, ..full }), Growth::Enough);
        assert_eq!(growth(&Room { unallocated: 256 * MIB, ..full }), Growth::Enough);
        assert!(shrunk(&Room { unallocated: 700 * MIB, ..full }, GIB).is_none(), "trees need it");
    }

    #[test]
    fn what_is_promised_is_nobody_elses() {
        let promised = |mib: u64| Room { promised: mib * MIB, trees: GIB, ..room(10, 1000) };
        assert_eq!(growth(&promised(926)), Growth::Enough);
        assert_eq!(growth(&promised(927)), Growth::To(2 * STEP));
        assert_eq!(growth(&promised(20 * 1024)), Growth::StoreFull);
    }

    #[test]
    fn limits_hold_and_say_which() {
        let mut near = room(64, 64);
        near.file.max = STEP + 100 * MIB;
        assert_eq!(growth(&near), Growth::To(STEP + 100 * MIB));
        assert_eq!(growth(&Room { need: 200 * MIB, ..near }), Growth::StoreFull);
        let mut tight = room(64, 64);
        tight.file.host_free = 612 * MIB;
        assert_eq!(growth(&tight), Growth::To(STEP + 100 * MIB));
        assert_eq!(growth(&Room { need: 200 * MIB, ..tight }), Growth::HostFull);
        assert_eq!(growth(&Room { need: u64::MAX, ..near }), Growth::StoreFull);
    }

    #[test]
    fn what_is_left_can_be_had_and_not_much_more() {
        for (unallocated, promised, data) in
            [(64, 0, 0), (200, 100, 0), (100, 300, 50), (5000, 0, 2000), (0, 0, 3000)]
        {
            let room = Room {
                promised: promised * MIB,
                data: data * MIB,
                trees: 0,
                ..room(0, unallocated)
            };
            let left = left(&room);
            let with = |need| growth(&Room { need, ..room });
            assert!(matches!(with(left), Growth::Enough | Growth::To(_)), "{room:?}");
            assert_eq!(with(left + left / 8 + 2 * SLACK), Growth::StoreFull, "{room:?}");
        }
    }

    #[test]
    fn what_is_spare_is_there_without_growth() {
        for (unallocated, promised, data) in [(64, 0, 0), (2000, 100, 0), (100, 300, 500)] {
            let parts = (unallocated * MIB, data * MIB);
            let room = Room { promised: promised * MIB, data: parts.1, ..room(10, unallocated) };
            let spare = spare(&room);
            if spare > 0 {
                assert_eq!(growth(&Room { need: room.need + spare, ..room }), Growth::Enough);
            }
            assert_eq!(spare > 0, unallocated == 2000 || data > promised, "{room:?}");
        }
    }

    #[test]
    fn a_file_that_is_far_too_long_is_cut_behind_its_last_use() {
        let mut big = Room { promised: 1024 * MIB, ..room(0, 5000) };
        big.file.len = 6 * GIB;
        let len = shrunk(&big, GIB).expect("5000 MiB free, 1280 of it needed");
        // What goes is free, and what stays covers the promises with a step to spare.
        let gone = (big.file.len - len) / MIB;
        assert_eq!(gone, 5000 - (1024 + 64 + 192) - 256);
        let cut = Room { unallocated: big.unallocated - gone * MIB, ..big };
        assert_eq!(growth(&cut), Growth::Enough);
        assert_eq!(shrunk(&big, 4 * GIB), Some(4 * GIB));
        assert_eq!(shrunk(&big, 6 * GIB), None);
        assert_eq!(shrunk(&Room { promised: 4500 * MIB, ..big }, GIB), None);
        // A fresh store is as small as it gets.
        assert_eq!(shrunk(&room(0, 240), 100 * MIB), None);
    }

    #[test]
    fn a_file_is_widened_by_a_part_of_what_there_is() {
        let at = |free_mib, host_free| {
            let mut room = room(0, free_mib);
            (room.file.len, room.file.max) = (GIB, 8 * GIB);
            (room.file.host_free, room.file.host_total) = (host_free, 100 * GIB);
            widened(&room, 4 * GIB)
        };
        let reserve = reserve(100 * GIB);
        assert_eq!(at(100, 50 * GIB), Some(GIB + 4 * GIB - 100 * MIB));
        assert_eq!(at(100, reserve + 8 * GIB), Some(GIB + 2 * GIB));
        // It is wide already, or would be only a little wider.
        assert_eq!(at(4096, 50 * GIB), None);
        assert_eq!(at(3900, 50 * GIB), None);
        assert_eq!(at(100, reserve + GIB - MIB), None);
        assert_eq!(at(100, 0), None);
        let mut full = room(0, 100);
        (full.file.len, full.file.max) = (GIB, GIB);
        assert_eq!(widened(&full, 4 * GIB), None);
        // A disk that does not say what it has, and a store that has no file.
        let mut silent = room(0, 100);
        (silent.file.len, silent.file.max, silent.file.host_total) = (GIB, 8 * GIB, 0);
        assert_eq!(widened(&silent, 4 * GIB), None);
        assert_eq!(widened(&Room { file: FileSize::default(), ..full }, 4 * GIB), None);
    }

    #[test]
    fn a_small_disk_keeps_a_twentieth() {
        assert_eq!(reserve(2 * GIB), 2 * GIB / 20);
        assert_eq!(reserve(200 * GIB), 512 * MIB);
    }

    #[test]
    fn the_topmost_mount_of_a_path_with_blanks_is_found() {
        let table = b"24 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 24 0:40 / /srv/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/vdb rw\n\
            31 30 0:41 / /srv/a\\040b rw - btrfs /dev/loop12 rw,space_cache=v2\n\n";
        let found = mounted_at(table, Path::new("/srv/a b")).expect("mounted");
        assert_eq!(found, Mounted { kind: "btrfs".into(), source: "/dev/loop12".into() });
        assert_eq!(loop_number(&found.source), Some(12));
        assert_eq!(mounted_at(table, Path::new("/srv")), None);
        assert_eq!(loop_number(Path::new("/dev/loop1p1")), None);
    }
}
