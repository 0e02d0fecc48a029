//! What is read from a btrfs's trees: linux/btrfs_tree.h.

use super::{ROOT_INODE, request};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::BorrowedFd;

/// `struct btrfs_ioctl_search_args`: a key range in, packed items out.
#[repr(C)]
struct Search {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_words: [u64; 4],
    found: [u8; 3992],
}
const _: () = assert!(size_of::<Search>() == 4096);

/// Items that a long search returns at once, in bytes: the largest item is a quarter of it.
const ITEMS: usize = 64 << 10;

/// `struct btrfs_ioctl_search_args_v2` with its buffer, which does not count for the number.
#[repr(C)]
struct SearchV2 {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_words: [u64; 4],
    buf_size: u64,
    found: [u8; ITEMS],
}
const _: () = assert!(size_of::<SearchV2>() == 112 + ITEMS);

const IOC_TREE_SEARCH: u32 = 0xd000_9411; // _IOWR(0x94, 17, Search)
const IOC_TREE_SEARCH_V2: u32 = 0xc070_9411; // _IOWR(0x94, 17, SearchV2 without its buffer)

/// `BTRFS_ROOT_TREE_OBJECTID`, the tree that lists all trees.
const ROOT_TREE: u64 = 1;
/// `BTRFS_ROOT_ITEM_KEY` and `BTRFS_ROOT_REF_KEY` of linux/btrfs_tree.h.
const ROOT_ITEM: u32 = 132;
const ROOT_REF: u32 = 156;
/// `BTRFS_DEV_TREE_OBJECTID`, the tree that says what each part of a device is taken for, and
/// `BTRFS_DEV_EXTENT_KEY`, one such part.
const DEV_TREE: u64 = 4;
const DEV_EXTENT: u32 = 204;
/// Searches for device extents, 32 extents each: a store of 1 GiB extents has fewer up to 3 PiB.
const EXTENTS_MAX: u32 = 100_000;

/// Up to where the first device of the file system of `any` is taken by data or trees, in bytes.
pub fn allocated_end(any: BorrowedFd<'_>) -> io::Result<u64> {
    let mut end = 0;
    let mut from = 0;
    for _ in 0..EXTENTS_MAX {
        // SAFETY: all fields are integers or arrays of them, for which zero is a value.
        let mut args: Search = unsafe { zeroed() };
        args.tree_id = DEV_TREE;
        (args.min_objectid, args.max_objectid) = (1, 1);
        (args.min_type, args.max_type) = (DEV_EXTENT, DEV_EXTENT);
        (args.min_offset, args.max_offset) = (from, u64::MAX);
        (args.max_transid, args.nr_items) = (u64::MAX, 32);
        request(any, IOC_TREE_SEARCH, &mut args)?;
        let Some((last, length)) = items(&args).last().map(|(_, offset, extent)| {
            // struct btrfs_dev_extent: chunk_tree, chunk_objectid, chunk_offset, length le64.
            let length = extent.get(24..32).and_then(|bytes| bytes.try_into().ok());
            (offset, u64::from_le_bytes(length.unwrap_or([0xff; 8])))
        }) else {
            return Ok(end);
        };
        end = last.saturating_add(length);
        from = last.saturating_add(1);
    }
    Err(io::Error::other("more device extents than any store has"))
}

/// Ids of the subvolumes directly inside subvolume `id`; at most some 60 a call, so ask again
/// after removing them.
pub fn children(any: BorrowedFd<'_>, id: u64) -> io::Result<Vec<u64>> {
    Ok(search_roots(any, id, ROOT_REF)?.into_iter().map(|(_, offset)| offset).collect())
}

/// Whether the subvolume `id` is there, or was removed and is not cleaned up yet.
pub fn subvolume_exists(any: BorrowedFd<'_>, id: u64) -> io::Result<bool> {
    Ok(!search_roots(any, id, ROOT_ITEM)?.is_empty())
}

/// Searches for inodes, of 64 KiB of items each: some 100 000 small files, in any case.
const SEARCHES_MAX: u32 = 1024;

/// How many files, directories and links the subvolume `id` holds that were made after the
/// transaction `after` (0: all of them), as far as the kernel has put them into its tree: after
/// [`super::flush`] those are all. Subvolumes inside are not counted. Parts of the tree that are older
/// are not read. Large numbers are cut off.
pub fn count_inodes(any: BorrowedFd<'_>, id: u64, after: u64) -> io::Result<u64> {
    const INODE_ITEM: u32 = 1;
    // SAFETY: all fields are integers or arrays of them, for which zero is a value.
    let mut args: Box<SearchV2> = Box::new(unsafe { zeroed() });
    let mut count = 0;
    // The root directory itself does not count.
    let (mut object, mut kind, mut offset) = (ROOT_INODE + 1, 0, 0);
    for _ in 0..SEARCHES_MAX {
        args.tree_id = id;
        (args.min_objectid, args.max_objectid) = (object, u64::MAX);
        (args.min_type, args.max_type) = (kind, u32::MAX);
        (args.min_offset, args.max_offset) = (offset, u64::MAX);
        (args.min_transid, args.max_transid) = (after.saturating_add(1), u64::MAX);
        (args.nr_items, args.buf_size) = (u32::MAX, ITEMS as u64);
        if after == 0 {
            args.min_transid = 0;
        }
        request(any, IOC_TREE_SEARCH_V2, &mut *args)?;
        let mut last = None;
        for (of, at, what, content) in all_items(&args.found, args.nr_items) {
            // struct btrfs_inode_item begins with the transaction that made it, le64.
            let made = content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            // The kernel's own entries have ids from the top.
            let is_file = what == INODE_ITEM && of < u64::MAX - 256;
            count += u64::from(is_file && (after == 0 || made > after));
            last = Some((of, what, at));
        }
        match last {
            None => return Ok(count),
            Some((of, what, at)) if at < u64::MAX => (object, kind, offset) = (of, what, at + 1),
            Some((of, what, _)) => (object, kind, offset) = (of, what + 1, 0),
        }
    }
    Ok(count)
}

/// Keys (object id, offset) of one kind about one subvolume in the tree of trees.
fn search_roots(any: BorrowedFd<'_>, id: u64, kind: u32) -> io::Result<Vec<(u64, u64)>> {
    // SAFETY: all fields are integers or arrays of them, for which zero is a value.
    let mut args: Search = unsafe { zeroed() };
    args.tree_id = ROOT_TREE;
    (args.min_objectid, args.max_objectid) = (id, id);
    (args.min_type, args.max_type) = (kind, kind);
    (args.max_offset, args.max_transid, args.nr_items) = (u64::MAX, u64::MAX, 64);
    request(any, IOC_TREE_SEARCH, &mut args)?;
    Ok(items(&args).map(|(object, offset, _)| (object, offset)).collect())
}

/// What a search has found: object id, offset and content of each item.
fn items(args: &Search) -> impl Iterator<Item = (u64, u64, &[u8])> {
    all_items(&args.found, args.nr_items)
        .map(|(object, offset, _, content)| (object, offset, content))
}

/// Packed items: object id, offset, kind and content of each.
fn all_items(found: &[u8], count: u32) -> impl Iterator<Item = (u64, u64, u32, &[u8])> {
    let mut rest = found;
    (0..count).map_while(move |_| {
        // struct btrfs_ioctl_search_header: transid, objectid, offset u64; type, len u32.
        let (head, tail) = rest.split_at_checked(32)?;
        let word = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let content = tail.get(..half(28) as usize)?;
        rest = &tail[content.len()..];
        Some((word(8), word(16), half(24), content))
    })
}
