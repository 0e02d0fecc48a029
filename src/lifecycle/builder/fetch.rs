//! Buildpacks that the order names by a URL, fetched by the stack's own curl and git.
//!
//! A path that ends in `.zip`, `.tgz` or `.tar.gz` is an archive; any other is a repository, and its
//! fragment a branch or tag. What the platform has put there already is not asked for again.

use super::{Failure, is_url};
use crate::lifecycle::form;
use crate::lifecycle::unpack::{Rules, unpack};
use crate::unit::{Bytes, xxh64_hex};
use std::fs::{self, File};
use std::io::{self, BufReader, Seek};
use std::path::Path;
use std::process::{Command, Stdio};

/// How long one download may take, in seconds: Diego's.
const WHOLE_S: &str = "600";
/// The longest archive, and the most that may be in one.
const ARCHIVE_MAX: u64 = 2 << 30;
const UNPACKED_MAX: u64 = 8 << 30;
/// What else can be done.
const CURE: &str = "Without a way there, unpack the buildpack on the box, into \
                    /etc/terrarium/buildpacks/NAME, and name it NAME";
/// Tries beside the first.
const RETRIES: &str = "2";

/// Fetches every key that is a URL into a directory of its hash below `dir`.
pub(super) fn fetch_all(keys: &[String], dir: &Path, unchecked: bool) -> Result<(), Failure> {
    for key in keys.iter().filter(|key| is_url(key)) {
        let to = dir.join(xxh64_hex(key));
        if to.is_dir() {
            continue;
        }
        fs::create_dir_all(dir).map_err(Failure::file("make", dir))?;
        let fetched = match is_archive(key) {
            true => download(key, &to, unchecked),
            false => clone(key, &to, unchecked),
        };
        if let Err(text) = fetched {
            let _ = fs::remove_dir_all(&to);
            return Err(Failure::new(1, text));
        }
    }
    Ok(())
}

/// Whether the path of `url` is that of an archive.
fn is_archive(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    [".zip", ".tgz", ".tar.gz"].iter().any(|end| path.ends_with(end))
}

/// `url` without what may be a password in it.
pub(super) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

fn download(url: &str, to: &Path, unchecked: bool) -> Result<(), String> {
    let archive = to.with_extension("part");
    let result = get(url, &archive, unchecked).and_then(|bytes| {
        take(&archive, to).map_err(|why| format!("the archive cannot be used: {why}"))?;
        say!("Downloaded buildpack `{}` ({})", shown(url), Bytes::new(bytes).brief());
        Ok(())
    });
    let _ = fs::remove_file(&archive);
    result.map_err(|why| format!("Failed to download buildpack at {}: {why}", shown(url)))
}

/// Bytes that came.
fn get(url: &str, to: &Path, unchecked: bool) -> Result<u64, String> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--globoff"])
        .args(["--proto", "=http,https,file", "--proto-redir", "=http,https"])
        .args(["--max-time", WHOLE_S, "--retry", RETRIES])
        .args(["--max-filesize", &ARCHIVE_MAX.to_string(), "--output"])
        .arg(to);
    if unchecked {
        curl.arg("--insecure");
    }
    run(curl.args(["--url", url.split('#').next().unwrap_or(url)]))?;
    fs::metadata(to).map(|meta| meta.len()).map_err(|err| err.to_string())
}

fn take(archive: &Path, to: &Path) -> Result<(), String> {
    let text = |err: io::Error| err.to_string();
    let mut file = File::open(archive).map_err(text)?;
    let form = form::form_of(&mut file).map_err(text)?;
    let form = form.ok_or("it is neither zip nor tar")?;
    let tar = archive.with_extension("tar");
    let result = (|| {
        let mut options = File::options();
        let mut plain =
            options.read(true).write(true).create(true).truncate(true).open(&tar).map_err(text)?;
        form::to_tar(form, file, &mut plain, UNPACKED_MAX).map_err(text)?;
        plain.rewind().map_err(text)?;
        unpack(BufReader::new(plain), to, Rules::App).map_err(|err| crate::log::chain(&err))
    })();
    let _ = fs::remove_file(&tar);
    result
}

/// As Diego: a shallow clone, and a whole one of servers that give none.
fn clone(url: &str, to: &Path, unchecked: bool) -> Result<(), String> {
    let (repository, branch) = url.split_once('#').unwrap_or((url, ""));
    let attempt = |depth: &[&str]| {
        let mut git = Command::new("git");
        if unchecked {
            git.args(["-c", "http.sslVerify=false"]);
        }
        git.args(["clone", "--quiet", "--recursive"]).args(depth);
        if !branch.is_empty() {
            git.arg(format!("--branch={branch}"));
        }
        // Nobody is there to be asked for a password.
        git.env("GIT_TERMINAL_PROMPT", "0");
        run(git.arg("--").arg(repository).arg(to))
    };
    let failed = |why| format!("Failed to clone git repository at {}: {why}", shown(repository));
    attempt(&["--depth=1"]).or_else(|_| {
        let _ = fs::remove_dir_all(to);
        attempt(&[]).map_err(failed)
    })
}

/// What an exit status of curl or git says, where it says anything.
fn meaning(program: &str, code: i32) -> Option<&'static str> {
    Some(match (program, code) {
        ("curl", 5 | 6) => {
            "the name of its host is not found; does the staging reach a name server?"
        }
        ("curl", 7) => "its host does not answer, or no [[egress]] of the app leads there",
        ("curl", 22) => "its host refuses it",
        ("curl", 28) => "its host does not answer in time, or no [[egress]] of the app leads there",
        ("curl", 35 | 51 | 58 | 60 | 77) => "its host's certificate is not trusted",
        ("curl", 63) => "it is too large",
        ("git", 128) => "the repository is not reached, is not there, or wants a login",
        _ => return None,
    })
}

/// Runs a program of the stack, whose words are ours.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let why = status.code().and_then(|code| meaning(&name, code));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Err(format!("{name} ended with {status}{why}; its own words are above. {CURE}"))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(format!(
            "this stack has no {name}; choose one that has it, or copy the buildpack to the box"
        )),
        Err(err) => Err(format!("cannot run {name}: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_told_by_its_path_and_anything_else_is_a_repository() {
        for (url, archive) in [
            ("https://h/p.zip", true),
            ("https://h/p.ZIP?token=a", true),
            ("https://h/p-1.2.tgz#x", true),
            ("file:///srv/p.tar.gz", true),
            ("https://h/p.git#main.zip", false),
            ("https://h/p?x=.zip", false),
            ("ssh://git@h/p", false),
        ] {
            assert_eq!(is_archive(url), archive, "{url}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (url, text) in [
            ("https://u:p@h/x@y.git", "https://h/x@y.git"),
            ("https://h/x", "https://h/x"),
            ("https://token@h", "https://h"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(shown(url), text);
        }
    }
}
