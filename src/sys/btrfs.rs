//! Subvolumes, quota and size of a btrfs file system, by ioctl: linux/btrfs.h, magic 0x94.

mod search;

pub use search::{allocated_end, children, count_inodes, subvolume_exists};

use nix::mount::{MntFlags, MsFlags};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// `f_type` of statfs(2), linux/magic.h.
pub const MAGIC: i64 = 0x9123_683e;

/// Inode number of the root directory of every subvolume.
pub const ROOT_INODE: u64 = 256;

/// How a file system counts what its subvolumes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// An extent belongs for life to the subvolume that wrote it. Linux 6.7.
    Simple,
    /// Shared and exclusive bytes of every subvolume are tracked. All kernels.
    Full,
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}
const _: () = assert!(size_of::<VolArgs>() == 4096);

/// `struct btrfs_ioctl_vol_args_v2` with a name.
#[repr(C)]
struct NamedV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}
const _: () = assert!(size_of::<NamedV2>() == 4096);

/// `struct btrfs_ioctl_vol_args_v2`, in its form with a subvolume id instead of a name.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    subvolid: u64,
    rest: [u8; 4032],
}
const _: () = assert!(size_of::<VolArgsV2>() == 4096);

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}
const _: () = assert!(size_of::<InoLookup>() == 4096);

/// `struct btrfs_ioctl_qgroup_limit_args`; `flags` 2 arms `max_excl`, in bytes.
#[repr(C)]
struct QgroupLimit {
    qgroupid: u64,
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv: [u64; 2],
}
const _: () = assert!(size_of::<QgroupLimit>() == 48);

/// `struct btrfs_ioctl_quota_ctl_args` and `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct TwoWords(u64, u64);
const _: () = assert!(size_of::<TwoWords>() == 16);

/// `struct btrfs_ioctl_qgroup_assign_args`.
#[repr(C)]
struct ThreeWords(u64, u64, u64);
const _: () = assert!(size_of::<ThreeWords>() == 24);

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct SubvolumeInfo {
    before: [u64; 39],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    ctransid: u64,
    otransid: u64,
    rest: [u64; 18],
}
const _: () = assert!(size_of::<SubvolumeInfo>() == 504);

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}
const _: () = assert!(size_of::<FsInfo>() == 1024);

const IOC_RESIZE: u32 = 0x5000_9403; // _IOW(0x94, 3, VolArgs)
const IOC_SYNC: u32 = 0x0000_9408; // _IO(0x94, 8)
const IOC_SUBVOL_CREATE: u32 = 0x5000_940e; // _IOW(0x94, 14, VolArgs)
const IOC_SNAP_DESTROY: u32 = 0x5000_940f; // _IOW(0x94, 15, VolArgs)
const IOC_INO_LOOKUP: u32 = 0xd000_9412; // _IOWR(0x94, 18, InoLookup)
const IOC_SNAP_CREATE_V2: u32 = 0x5000_9417; // _IOW(0x94, 23, NamedV2)
const IOC_SUBVOL_GETFLAGS: u32 = 0x8008_9419; // _IOR(0x94, 25, u64)
const IOC_SUBVOL_SETFLAGS: u32 = 0x4008_941a; // _IOW(0x94, 26, u64)
const IOC_FS_INFO: u32 = 0x8400_941f; // _IOR(0x94, 31, FsInfo)
const IOC_QUOTA_CTL: u32 = 0xc010_9428; // _IOWR(0x94, 40, TwoWords)
const IOC_QGROUP_ASSIGN: u32 = 0x4018_9429; // _IOW(0x94, 41, ThreeWords)
const IOC_QGROUP_CREATE: u32 = 0x4010_942a; // _IOW(0x94, 42, TwoWords)
const IOC_QGROUP_LIMIT: u32 = 0x8030_942b; // _IOR(0x94, 43, QgroupLimit)
const IOC_GET_SUBVOL_INFO: u32 = 0x81f8_943c; // _IOR(0x94, 60, SubvolumeInfo)
const IOC_SNAP_DESTROY_V2: u32 = 0x5000_943f; // _IOW(0x94, 63, VolArgsV2)

/// `BTRFS_SUBVOL_RDONLY`.
const SUBVOL_RDONLY: u64 = 1 << 1;
/// `BTRFS_SUBVOL_SPEC_BY_ID`.
const SPEC_BY_ID: u64 = 1 << 4;
/// Sends one request whose argument the kernel reads, writes or both.
fn request<T>(fd: BorrowedFd<'_>, number: u32, arg: &mut T) -> io::Result<()> {
    // SAFETY: every caller here and in `search` pairs the number with the struct whose size the number
    // carries (asserted above; for `SearchV2` the number and `buf_size` together), so the kernel
    // touches only `arg`, and only during the call.
    let done =
        unsafe { libc::ioctl(fd.as_raw_fd(), number as libc::Ioctl, std::ptr::from_mut(arg)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A `VolArgs` with a name; `EINVAL` when it is empty, too long or holds `/` or NUL.
fn named(name: &str) -> io::Result<VolArgs> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || bytes.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    args.name[..bytes.len()].copy_from_slice(bytes);
    Ok(args)
}

/// Makes the empty subvolume `name` in the directory `dir`. `EEXIST`.
pub fn create_subvolume(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    request(dir, IOC_SUBVOL_CREATE, &mut named(name)?)
}

/// Makes `name` in the directory `dir` a writable snapshot of the subvolume whose root directory
/// `source` is. Commits. `EEXIST`; `EXDEV`: of another file system.
pub fn create_snapshot(dir: BorrowedFd<'_>, name: &str, source: BorrowedFd<'_>) -> io::Result<()> {
    let VolArgs { name: long, .. } = named(name)?;
    let mut args = NamedV2 {
        fd: i64::from(source.as_raw_fd()),
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };
    args.name.copy_from_slice(&long[..4040]);
    request(dir, IOC_SNAP_CREATE_V2, &mut args)
}

/// Where a subvolume comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// It is a snapshot of another one.
    pub snapshot: bool,
    /// The transaction that made it.
    pub transaction: u64,
}

/// Where the subvolume comes from whose root directory `root` is. Linux 4.18.
pub fn origin(root: BorrowedFd<'_>) -> io::Result<Origin> {
    // SAFETY: all fields are integers or arrays of them, for which zero is a value.
    let mut info: SubvolumeInfo = unsafe { zeroed() };
    request(root, IOC_GET_SUBVOL_INFO, &mut info)?;
    Ok(Origin { snapshot: info.parent_uuid != [0; 16], transaction: info.otransid })
}

/// Removes the subvolume `name` of the directory `dir` with all it holds; its space comes back
/// later. `ENOENT`; `ENOTEMPTY`: another subvolume is inside.
pub fn destroy_subvolume(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    request(dir, IOC_SNAP_DESTROY, &mut named(name)?)
}

/// As [`destroy_subvolume`], wherever in the file system of `any` it is. `any` must not be inside
/// it. `ENOENT`, `ENOTEMPTY`. Linux 5.7.
pub fn destroy_subvolume_by_id(any: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let mut args = VolArgsV2 {
        fd: 0,
        transid: 0,
        flags: SPEC_BY_ID,
        unused: [0; 4],
        subvolid: id,
        rest: [0; 4032],
    };
    request(any, IOC_SNAP_DESTROY_V2, &mut args)
}

/// The id of the subvolume that `inside` belongs to; also the number of its quota group 0/id.
pub fn subvolume_id(inside: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = InoLookup { treeid: 0, objectid: ROOT_INODE, name: [0; 4080] };
    request(inside, IOC_INO_LOOKUP, &mut args)?;
    Ok(args.treeid)
}

/// Whether the subvolume whose root directory `root` is takes no writes.
pub fn is_read_only(root: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags = 0u64;
    request(root, IOC_SUBVOL_GETFLAGS, &mut flags)?;
    Ok(flags & SUBVOL_RDONLY != 0)
}

/// Makes the subvolume whose root directory `root` is refuse all writes: `EROFS`.
pub fn set_read_only(root: BorrowedFd<'_>) -> io::Result<()> {
    let mut flags = 0u64;
    request(root, IOC_SUBVOL_GETFLAGS, &mut flags)?;
    flags |= SUBVOL_RDONLY;
    request(root, IOC_SUBVOL_SETFLAGS, &mut flags)
}

/// Writes everything of the file system of `any` to its device and commits. Slow.
pub fn sync(any: BorrowedFd<'_>) -> io::Result<()> {
    // Not BTRFS_IOC_SYNC: that one starts delayed writes of all roots, but syncfs(2) also reports
    // write errors seen since the descriptor was opened.
    nix::unistd::syncfs(any)?;
    request(any, IOC_SYNC, &mut 0u64)
}

/// Switches quota on. Simple: `EINVAL` or `ENOTTY` before Linux 6.7, `EEXIST` when full quota is
/// on. Full: scans what is there, in the background.
pub fn enable_quota(any: BorrowedFd<'_>, kind: QuotaKind) -> io::Result<()> {
    let command = match kind {
        QuotaKind::Full => 1,   // BTRFS_QUOTA_CTL_ENABLE
        QuotaKind::Simple => 4, // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
    };
    request(any, IOC_QUOTA_CTL, &mut TwoWords(command, 0))
}

/// The number of the quota group `level`/`id`.
pub const fn qgroup(level: u16, id: u64) -> u64 {
    (level as u64) << 48 | id
}

/// Limits what a quota group may hold for itself alone, in bytes, or lifts that limit; writers get
/// `EDQUOT`. `ENOENT`: quota is on but the group is not there; `ENOTCONN`: quota is off.
pub fn limit_exclusive(any: BorrowedFd<'_>, qgroup: u64, max_bytes: Option<u64>) -> io::Result<()> {
    // All ones lift a limit.
    let max_excl = max_bytes.unwrap_or(u64::MAX);
    let mut args = QgroupLimit { qgroupid: qgroup, flags: 2, max_rfer: 0, max_excl, rsv: [0; 2] };
    request(any, IOC_QGROUP_LIMIT, &mut args)
}

/// Makes a quota group of level 1 or above. `EEXIST`.
pub fn create_qgroup(any: BorrowedFd<'_>, qgroup: u64) -> io::Result<()> {
    request(any, IOC_QGROUP_CREATE, &mut TwoWords(1, qgroup))
}

/// Lets `parent` count what `member` counts, or no longer. `EEXIST`: it does; `ENOENT`: it does
/// not, or one of them is not there. With full quota only members that share nothing with others
/// can come and go without all being counted anew.
pub fn assign_qgroup(
    any: BorrowedFd<'_>,
    member: u64,
    parent: u64,
    belongs: bool,
) -> io::Result<()> {
    request(any, IOC_QGROUP_ASSIGN, &mut ThreeWords(belongs.into(), member, parent))
}

/// Removes a quota group. `ENOENT`; `EBUSY`: it has members, or it is a subvolume's that is not
/// cleaned up yet: newer kernels remove that group themselves afterwards.
pub fn remove_qgroup(any: BorrowedFd<'_>, qgroup: u64) -> io::Result<()> {
    request(any, IOC_QGROUP_CREATE, &mut TwoWords(0, qgroup))
}

/// Writes everything that is dirty in the file system of `any` to its device and commits, so that
/// quota groups have counted it. Slow; what [`sync`] adds are errors of
/// earlier writes.
pub fn flush(any: BorrowedFd<'_>) -> io::Result<()> {
    request(any, IOC_SYNC, &mut 0u64)
}

/// Grows the file system of `any` to the size of its device.
pub fn resize_to_device(any: BorrowedFd<'_>) -> io::Result<()> {
    request(any, IOC_RESIZE, &mut named("max")?)
}

/// Makes the file system of `any`, which has one device, `len` bytes long. What lies behind is
/// moved first, and `ENOSPC` when it fits nowhere. `EINVAL` below 256 MiB.
pub fn resize(any: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    request(any, IOC_RESIZE, &mut named(&len.to_string())?)
}

/// The file system's id, as its directory in /sys/fs/btrfs is named.
pub fn filesystem_id(any: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = FsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 992] };
    request(any, IOC_FS_INFO, &mut info)?;
    let mut text = String::with_capacity(36);
    for (at, byte) in info.fsid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

/// Mounts the btrfs on `device` at `dir`: no access times, no device nodes, no setuid, and no
/// discards, which would give the blocks of a preallocated backing file away again. mount(2).
pub fn mount(device: &Path, dir: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    Ok(nix::mount::mount(Some(device), dir, Some("btrfs"), flags, Some("nodiscard"))?)
}

/// Unmounts `dir`. `EBUSY`: something in it is open or mounted; `EINVAL`: not a mount point.
pub fn unmount(dir: &Path) -> io::Result<()> {
    Ok(nix::mount::umount2(dir, MntFlags::UMOUNT_NOFOLLOW)?)
}
