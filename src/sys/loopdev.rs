//! Loop devices: a file that the kernel offers as a block device. linux/loop.h, loop(4).

use super::file::make_block_device;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<Info>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<Config>() == 304);

const CTL_GET_FREE: u32 = 0x4c82;
const GET_STATUS64: u32 = 0x4c05;
const SET_CAPACITY: u32 = 0x4c07;
const CONFIGURE: u32 = 0x4c0a;

/// `LO_FLAGS_AUTOCLEAR`: the file is let go when the last user closes the device.
const AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`: the file's pages are not cached a second time. Dropped by the kernel
/// without an error when the file cannot do it.
const DIRECT_IO: u32 = 16;
/// Major number of loop devices, Documentation/admin-guide/devices.txt.
const MAJOR: u32 = 7;

/// Sends one request whose argument is a struct that the kernel reads or fills.
fn request<T>(device: BorrowedFd<'_>, number: u32, arg: &mut T) -> io::Result<()> {
    // SAFETY: each number below goes with the struct that linux/loop.h names for it, whose size
    // is asserted above; the kernel touches only `arg`, during the call.
    let done =
        unsafe { libc::ioctl(device.as_raw_fd(), number as libc::Ioctl, std::ptr::from_mut(arg)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The device file of loop device `number`.
pub fn path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// The number of a loop device that nobody used a moment ago; made when there is none. Others may
/// take it first. `ENOENT`: no loop driver in this kernel or no /dev/loop-control.
pub fn free_number() -> io::Result<u32> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // SAFETY: the request takes no argument; the kernel touches none of our memory.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), CTL_GET_FREE as libc::Ioctl) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Opens loop device `number`; makes its device file where nothing else does (no udev, no
/// devtmpfs). `ENXIO`: no such device.
pub fn open(number: u32) -> io::Result<File> {
    let path = path(number);
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    match open() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            make_block_device(&path, MAJOR, number)?;
            open()
        }
        other => other,
    }
}

/// Puts `backing` behind `device`, to be let go with the device's last user, 4 KiB blocks, direct
/// I/O where possible. `EBUSY`: another file came first. Linux 5.8.
pub fn attach(device: BorrowedFd<'_>, backing: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all fields are integers or arrays of them, for which zero is a value.
    let mut config: Config = unsafe { zeroed() };
    config.fd = u32::try_from(backing.as_raw_fd()).expect("an open descriptor is not negative");
    config.block_size = 4096;
    config.info.flags = AUTOCLEAR | DIRECT_IO;
    match request(device, CONFIGURE, &mut config) {
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
            // A kernel or file that minds the block size or direct I/O takes the plain form.
            config.block_size = 0;
            config.info.flags = AUTOCLEAR;
            request(device, CONFIGURE, &mut config)
        }
        other => other,
    }
}

/// Device and inode number of the file behind `device`. `ENXIO`: none.
pub fn backing(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: all fields are integers or arrays of them, for which zero is a value.
    let mut info: Info = unsafe { zeroed() };
    request(device, GET_STATUS64, &mut info)?;
    Ok((info.device, info.inode))
}

/// Lets `device` see that the file behind it has grown.
pub fn refresh_size(device: BorrowedFd<'_>) -> io::Result<()> {
    request(device, SET_CAPACITY, &mut 0u64)
}
