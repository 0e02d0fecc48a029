//! What the kernel refuses for what an archive has in it, and what for the sake of the box. Pure.
//!
//! Whoever unpacks writes into a directory of its own, on the store's btrfs, as root: so a number that
//! speaks of names, of kinds of files, of sizes or of attributes speaks of the archive, which says the same
//! whenever it comes. All others are of the box, which may be another one tomorrow: what came is kept.

/// Numbers of errno(3) that speak of what is to be made, and what they say of it.
const OF_CONTENT: [(i32, &str); 12] = [
    (7, "E2BIG: an attribute's value is larger than any may be"),
    (17, "EEXIST: something else has the name"),
    (20, "ENOTDIR: what is to be a directory is none"),
    (21, "EISDIR: what is to be none is a directory"),
    (22, "EINVAL: a size, a time or an attribute that cannot be"),
    (27, "EFBIG: larger than any file may be"),
    (31, "EMLINK: more names than a file may have"),
    (34, "ERANGE: an attribute's name is longer than any may be"),
    (36, "ENAMETOOLONG: a name, a path or a symlink's target is longer than any may be"),
    (39, "ENOTEMPTY: something is in what is to be replaced"),
    (40, "ELOOP: symlinks that lead to one another"),
    (95, "EOPNOTSUPP: an attribute, or a kind of file, that there is none of"),
];

/// Whether a step of one entry that the kernel refuses with this number is refused again, whenever it is
/// tried.
pub fn is_of_content(number: i32) -> bool {
    OF_CONTENT.iter().any(|(own, _)| *own == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_box_lacks_is_not_the_archive_s_fault() {
        // EPERM, ENOENT, EINTR, EIO, EAGAIN, ENOMEM, EACCES, EBUSY, EXDEV, ENFILE, EMFILE, ENOSPC, EROFS,
        // ENOSYS, ESTALE, EDQUOT.
        for number in [1, 2, 4, 5, 11, 12, 13, 16, 18, 23, 24, 28, 30, 38, 116, 122] {
            assert!(!is_of_content(number), "{number}");
        }
    }

    #[test]
    fn each_number_stands_there_once() {
        let numbers = OF_CONTENT.map(|(number, _)| number);
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
        assert!(numbers.into_iter().all(is_of_content));
    }
}
