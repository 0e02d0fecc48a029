//! The lifecycle archives that a file server gives to containers which bring their own programs:
//! `buildpack_app_lifecycle.tgz` and `docker_app_lifecycle.tgz`.
//!
//! | entry | is |
//! |---|---|
//! | the first of [`names`] | this program |
//! | the others | hard links to it |
//! | `dropbearmulti` | the SSH server, if the box has it |
//! | `docker_app_lifecycle` | empty; says to `builder` and `launcher` which of the two archives it came in |
//!
//! The same programs give the same bytes.

use super::sshd::SERVER;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tar::{Builder, EntryType, Header};

/// Which archive, and what lies beside the program in that one.
pub(super) const DOCKER: &str = "docker_app_lifecycle";
const BUILDPACK: &str = "buildpack_app_lifecycle";
/// The archives there are, without `.tgz`.
pub const ARCHIVES: [&str; 2] = [BUILDPACK, DOCKER];

/// Names of the program in an archive; `None`: there is no such archive. The builder of each is
/// another one: see [`super::docker_builder`].
fn names(archive: &str) -> Option<&'static [&'static str]> {
    match archive {
        BUILDPACK => {
            Some(&["builder", "diego-sshd", "healthcheck", "launcher", "shell", "ssh-session"])
        }
        DOCKER => {
            Some(&["builder", "diego-sshd", "healthcheck", "launcher", "shell", "ssh-session"])
        }
        _ => None,
    }
}

/// The archive `<to>/<name>/<name>.tgz`, made of the programs in `programs` (which has `terrarium`
/// and, if the box has it, the SSH server), unless it was made of just these: it has the
/// time of the newer of them, for a clock may have been set back since. A crash leaves no half of it.
pub fn ensure(name: &str, programs: &Path, to: &Path) -> io::Result<PathBuf> {
    let file = to.join(name).join(format!("{name}.tgz"));
    let program = programs.join("terrarium");
    let server = Some(programs.join(SERVER)).filter(|server| server.is_file());
    let made = fs::metadata(&file).and_then(|it| it.modified()).ok();
    let changed = |path: &Path| fs::metadata(path).and_then(|it| it.modified());
    let newest = match &server {
        Some(server) => changed(&program)?.max(changed(server)?),
        None => changed(&program)?,
    };
    if made != Some(newest) {
        fs::create_dir_all(to.join(name))?;
        write_file(name, (&program, server.as_deref()), &file, Some(newest))?;
    }
    Ok(file)
}

/// The role `archive NAME FILE`: writes the archive of this very program, and of the SSH server that
/// lies beside it or is named third.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let (name, file, server) = match args {
        [name, file] => (name, file, None),
        [name, file, server] => (name, file, Some(PathBuf::from(server))),
        _ => {
            complain!("usage: archive {} FILE [SSH_SERVER]", ARCHIVES.join("|"));
            return Err(1);
        }
    };
    let done = env::current_exe().and_then(|own| {
        let beside = own.with_file_name(SERVER);
        let server = server.or_else(|| Some(beside).filter(|server| server.is_file()));
        write_file(&name.to_string_lossy(), (&own, server.as_deref()), Path::new(file), None)
    });
    done.map_err(|err| {
        complain!("archive: cannot write {}: {err}", Path::new(file).display());
        1
    })
}

/// `time`: what the file says of when it was changed last; `None`: when that was.
fn write_file(
    name: &str,
    programs: (&Path, Option<&Path>),
    file: &Path,
    time: Option<SystemTime>,
) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = BufWriter::new(File::create(&fresh)?);
    let done = write(name, programs, &mut out).and_then(|()| out.flush());
    let done = done.and_then(|()| time.map_or(Ok(()), |time| out.get_ref().set_modified(time)));
    match done {
        Ok(()) => fs::rename(&fresh, file),
        Err(err) => {
            // The reason is that of the writing, whatever becomes of the rest.
            let _ = fs::remove_file(&fresh);
            Err(err)
        }
    }
}

/// Writes the archive `name` of this program and of the SSH server.
fn write(name: &str, (program, server): (&Path, Option<&Path>), out: impl Write) -> io::Result<()> {
    let names = names(name).ok_or_else(|| {
        let text = format!("there is no archive {name}; there are {}", ARCHIVES.join(" and "));
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let (first, links) = names.split_first().expect("each archive has programs");
    let mut tar = Builder::new(GzEncoder::new(out, Compression::new(6)));
    file(&mut tar, first, program)?;
    for link in links {
        let mut header = header(EntryType::Link, 0);
        tar.append_link(&mut header, link, first)?;
    }
    if let Some(server) = server {
        file(&mut tar, SERVER, server)?;
    }
    if name == DOCKER {
        let mut header = header(EntryType::Regular, 0);
        tar.append_data(&mut header, DOCKER, io::empty())?;
    }
    tar.into_inner()?.finish()?.flush()
}

fn file(tar: &mut Builder<impl Write>, name: &str, from: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let mut header = header(EntryType::Regular, from.metadata()?.len());
    tar.append_data(&mut header, name, from)
}

/// Without anything that differs from one making to the next.
fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_same_programs_give_the_same_bytes() {
        let dir = env::temp_dir().join(format!("terrarium-archive-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("directory");
        fs::write(dir.join("terrarium"), "program").expect("program");
        fs::write(dir.join(SERVER), "server").expect("server");
        let to = dir.join("out");
        let file = ensure(DOCKER, &dir, &to).expect("made");
        assert_eq!(file, to.join("docker_app_lifecycle/docker_app_lifecycle.tgz"));
        let once = fs::read(&file).expect("read");
        fs::remove_file(&file).expect("remove");
        assert_eq!(fs::read(ensure(DOCKER, &dir, &to).expect("again")).expect("read"), once);
        // Other programs make another archive, also when the clock has been set back since.
        fs::write(dir.join(SERVER), "older").expect("server");
        let server = File::options().write(true).open(dir.join(SERVER)).expect("server");
        let program = File::options().write(true).open(dir.join("terrarium")).expect("program");
        for it in [&server, &program] {
            it.set_modified(SystemTime::UNIX_EPOCH).expect("time");
        }
        assert_ne!(fs::read(ensure(DOCKER, &dir, &to).expect("other")).expect("read"), once);
        let made = fs::metadata(&file).expect("there").ino();
        ensure(DOCKER, &dir, &to).expect("the same");
        assert_eq!(fs::metadata(&file).expect("there").ino(), made, "it is not made twice");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&once[..]));
        let names: Vec<String> = tar
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("entry");
                let link = entry.link_name().expect("link").map(|to| to.display().to_string());
                let name = entry.path().expect("path").display().to_string();
                format!("{name} {}", link.unwrap_or_else(|| entry.size().to_string()))
            })
            .collect();
        let want = [
            "builder 7",
            "diego-sshd builder",
            "healthcheck builder",
            "launcher builder",
            "shell builder",
            "ssh-session builder",
            "dropbearmulti 6",
            "docker_app_lifecycle 0",
        ];
        assert_eq!(names, want);
        assert!(ensure("nothing", &dir, &to).is_err());
        fs::remove_dir_all(&dir).expect("leave nothing");
    }
}
