//! The bulk of a busybox stack: the program out of its Debian package, and a link per applet.

use super::packages;
use super::tree::{Content, Tree};
use crate::host;
use crate::progress::Progress;
use anyhow::{Context, Result};
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Fetches the package into `work` and takes the program out; nothing is installed on the host.
pub fn build(package: &str, work: &Path, progress: &mut Progress) -> Result<Tree> {
    host::need(host::DPKG)?;
    progress.stage("fetching the package");
    packages::fetch(&[package], work)?;
    let file = packages::debs(work)?.pop();
    let file =
        file.with_context(|| format!("apt-get has not left {package} in {}", work.display()))?;
    progress.stage("taking the program out");
    let program = extract(&file, "busybox")?;
    let copy = work.join("busybox");
    std::fs::write(&copy, &program)?;
    crate::elf::need_static(&copy)?;
    executable(&copy)?;
    let applets = host::capture(Command::new(&copy).arg("--list-full"))?;
    let mut tree = Tree::default();
    tree.file("bin/busybox", 0o755, Content::Bytes(program));
    for applet in applets.lines().filter(|applet| *applet != "bin/busybox") {
        tree.link(applet, "/bin/busybox");
    }
    Ok(tree)
}

/// The content of the file called `name` in a Debian package.
fn extract(package: &Path, name: &str) -> Result<Vec<u8>> {
    let mut content = None;
    packages::each_entry(package, |entry| {
        let wanted = entry.path()?.file_name().is_some_and(|file| file == name);
        if wanted && entry.header().entry_type().is_file() && entry.size() > 0 {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            content.get_or_insert(bytes);
        }
        Ok(())
    })?;
    content.with_context(|| format!("{} holds no {name}", package.display()))
}

fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
