//! The programs of the lifecycle as every container sees them: copies, so that an update of the program
//! never changes what runs.
//!
//! To hold a copy against its origin byte by byte at every start takes longer than to find ten
//! containers again. So both are noted beside the copies: a file that is the same by its inode and the
//! time of its last change has the same bytes, as long as the box is not started anew.

use super::{DaemonError, start};
use crate::config::machine::Config;
use crate::container::boot_id;
use crate::lifecycle::{ROLES, SSH_SERVER};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What the copies beside it were made of; root's alone, as apps see the directory.
const ORIGIN: &str = ".origin";
const FRESH: &str = ".origin.new";

/// What this program is called among the copies; every role is a link to it.
const PROGRAM: &str = "terrarium";

/// A file, and what it is called among the copies.
type Copied<'a> = (&'a Path, &'a str);

/// The directory that every container sees at /tmp/lifecycle.
pub fn dir(config: &Config) -> PathBuf {
    config.paths.run.join("lifecycle")
}

/// Fills that directory: a copy of this program and a link per role, and the SSH server if the box has
/// it.
pub fn lay(config: &Config) -> Result<(), DaemonError> {
    let dir = dir(config);
    let doing = format!("copy this program to {}", dir.display());
    let (program, server) = (super::parts::program(), config.paths.ssh_server());
    let server = Some((&*server, SSH_SERVER)).filter(|(path, _)| path.is_file());
    let copies: Vec<Copied<'_>> = [(&*program, PROGRAM)].into_iter().chain(server).collect();
    lay_copies(&copies, &dir, &boot_id()).map_err(start(doing))
}

fn lay_copies(copies: &[Copied<'_>], dir: &Path, boot: &str) -> io::Result<()> {
    let noted = fs::read_to_string(dir.join(ORIGIN)).ok();
    if noted.is_some() && noted == portrait(copies, dir, boot).ok() && has_roles(dir) {
        return Ok(());
    }
    let has_server = copies.iter().any(|(_, name)| *name == SSH_SERVER);
    let mut current = has_server == dir.join(SSH_SERVER).exists() && has_roles(dir);
    for (from, name) in copies {
        current = current && same(from, &dir.join(name))?;
    }
    if !current {
        return lay_anew(copies, dir, boot);
    }
    // Containers that run go on to share it with those to come; without the note, the next start compares.
    if let Err(err) = note(copies, dir, boot) {
        crate::warn!("lifecycle.unnoted", dir = dir.display(), err = err);
    }
    Ok(())
}

/// The copies as they are, and what they are made of, as that is noted.
fn portrait(copies: &[Copied<'_>], dir: &Path, boot: &str) -> io::Result<String> {
    let mut text = format!("{boot}\n");
    for (from, name) in copies {
        let (origin, copy) = (identity(from)?, identity(&dir.join(name))?);
        text += &format!("{name} {copy} of {origin}\n");
    }
    Ok(text)
}

/// What changes whenever the bytes of a file do.
fn identity(path: &Path) -> io::Result<String> {
    let meta = fs::metadata(path)?;
    let (device, inode, size) = (meta.dev(), meta.ino(), meta.len());
    Ok(format!("{device} {inode} {size} {}.{:09}", meta.ctime(), meta.ctime_nsec()))
}

/// Whether every role has its link.
fn has_roles(dir: &Path) -> bool {
    let leads = |role: &&str| fs::read_link(dir.join(role)).is_ok_and(|to| to == *PROGRAM);
    ROLES.iter().all(leads)
}

/// As a whole or not at all.
fn note(copies: &[Copied<'_>], dir: &Path, boot: &str) -> io::Result<()> {
    let (path, fresh) = (dir.join(ORIGIN), dir.join(FRESH));
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(portrait(copies, dir, boot)?.as_bytes())?;
    fs::rename(fresh, path)
}

/// Containers that run keep the old directory: theirs is a mount of it.
fn lay_anew(copies: &[Copied<'_>], dir: &Path, boot: &str) -> io::Result<()> {
    let fresh = dir.with_extension("new");
    let _ = fs::remove_dir_all(&fresh);
    DirBuilder::new().recursive(true).mode(0o755).create(&fresh)?;
    for (from, name) in copies {
        fs::copy(from, fresh.join(name))?;
        fs::set_permissions(fresh.join(name), Permissions::from_mode(0o755))?;
    }
    for role in ROLES {
        symlink(PROGRAM, fresh.join(role))?;
    }
    note(copies, &fresh, boot)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&fresh, dir)
}

/// Whether the second file is there and holds the bytes of the first.
fn same(from: &Path, copy: &Path) -> io::Result<bool> {
    let size = fs::metadata(from)?.len();
    if !fs::metadata(copy).is_ok_and(|meta| meta.is_file() && meta.len() == size) {
        return Ok(false);
    }
    let (mut one, mut other) =
        (BufReader::new(File::open(from)?), BufReader::new(File::open(copy)?));
    loop {
        let (here, there) = (one.fill_buf()?, other.fill_buf()?);
        let length = here.len().min(there.len());
        if here[..length] != there[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(here.len() == there.len());
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program, and the directory of its copies.
    struct Bed {
        root: PathBuf,
        program: PathBuf,
        dir: PathBuf,
    }

    impl Bed {
        fn new(name: &str) -> Bed {
            let root =
                std::env::temp_dir().join(format!("lifecycle-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).expect("a directory");
            let (program, dir) = (root.join("program"), root.join("lifecycle"));
            fs::write(&program, vec![7; 100_000]).expect("a program");
            Bed { root, program, dir }
        }

        fn copies(&self) -> [Copied<'_>; 1] {
            [(&self.program, PROGRAM)]
        }

        fn is_noted(&self) -> bool {
            let noted = fs::read_to_string(self.dir.join(ORIGIN)).expect("a note");
            noted == portrait(&self.copies(), &self.dir, "boot").expect("a portrait")
        }

        /// The directory's number: another one when it was laid anew.
        fn lay(&self, boot: &str) -> u64 {
            lay_copies(&self.copies(), &self.dir, boot).expect("laid");
            let (copy, program) = (self.dir.join(PROGRAM), &self.program);
            assert_eq!(fs::read(copy).expect("copy"), fs::read(program).expect("program"));
            fs::metadata(&self.dir).expect("the directory").ino()
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn copies_stay_as_long_as_the_program_has_the_same_bytes() {
        let bed = Bed::new("same");
        let first = bed.lay("boot");
        assert_eq!(bed.lay("boot"), first);
        // Touched, and installed once more.
        fs::write(&bed.program, vec![7; 100_000]).expect("write");
        assert_eq!(bed.lay("boot"), first);
        assert!(bed.is_noted());
        let mode = fs::metadata(bed.dir.join(ORIGIN)).expect("a note").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_link(bed.dir.join(ROLES[0])).expect("a role"), Path::new(PROGRAM));
    }

    #[test]
    fn another_program_is_copied_though_it_has_the_size_and_the_time_of_the_old() {
        let bed = Bed::new("other");
        bed.lay("boot");
        let meta = fs::metadata(&bed.program).expect("the program");
        let mut bytes = vec![7; 100_000];
        bytes[99_999] = 8;
        // Kernels before 6.13 tell times of change by a few milliseconds.
        while bed.is_noted() {
            fs::write(&bed.program, &bytes).expect("write");
        }
        let file = File::options().write(true).open(&bed.program).expect("open");
        file.set_modified(meta.modified().expect("a time")).expect("set");
        bed.lay("boot");
    }

    #[test]
    fn what_an_earlier_run_of_the_box_has_left_is_not_trusted() {
        let bed = Bed::new("torn");
        bed.lay("boot");
        fs::write(bed.dir.join(PROGRAM), vec![0; 100_000]).expect("write");
        bed.lay("another");
        // A start that was broken off.
        fs::create_dir(bed.dir.with_extension("new")).expect("a half");
        fs::remove_dir_all(&bed.dir).expect("remove");
        bed.lay("another");
        assert!(!bed.dir.with_extension("new").exists());
    }

    /// The bytes of both are another's; what is noted is what counts.
    #[test]
    fn what_is_noted_is_not_compared() {
        let bed = Bed::new("noted");
        bed.lay("boot");
        fs::write(bed.dir.join(PROGRAM), vec![9; 100_000]).expect("write");
        note(&bed.copies(), &bed.dir, "boot").expect("noted");
        lay_copies(&bed.copies(), &bed.dir, "boot").expect("laid");
        assert_eq!(fs::read(bed.dir.join(PROGRAM)).expect("copy"), vec![9; 100_000]);
    }

    #[test]
    fn what_is_gone_of_the_copies_comes_back_with_the_next_start() {
        let bed = Bed::new("gone");
        for name in [PROGRAM, ROLES[0], ORIGIN] {
            bed.lay("boot");
            fs::remove_file(bed.dir.join(name)).expect("remove");
            bed.lay("boot");
            assert!(has_roles(&bed.dir) && bed.is_noted(), "{name}");
        }
    }

    #[test]
    fn a_server_that_comes_or_goes_is_seen() {
        let bed = Bed::new("server");
        let server = bed.root.join("sshd");
        fs::write(&server, "server").expect("write");
        let both = [(&*bed.program, PROGRAM), (&*server, SSH_SERVER)];
        lay_copies(&both, &bed.dir, "boot").expect("laid");
        assert_eq!(fs::read(bed.dir.join(SSH_SERVER)).expect("the server"), b"server");
        bed.lay("boot");
        assert!(!bed.dir.join(SSH_SERVER).exists());
    }
}
