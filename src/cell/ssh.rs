//! Host keys of the SSH servers in containers.
//!
//! An app's key is made of its name and one secret of the box, so that it is the same in every
//! instance, after every restart, and when the app was deleted and is made again: what clients have
//! remembered of it stays true, and nothing is kept for each app. Who takes the secret away, changes
//! all keys, from the daemon's next start on.

use super::shared::Shared;
use crate::config::keys::{self, Keys};
use crate::lifecycle::ssh_key::{SshKey, random_seed};
use crate::model::action::Action;
use crate::model::lrp::DesiredLrp;
use crate::model::work::{SSH_AUTHORIZED, SSH_HOST_KEY, SSHD, Work};
use crate::unit::AppName;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The secret, 32 bytes, in the state directory; of nobody but root.
const SECRET: &str = "ssh.secret";
/// What else the digest is made of, so that the secret can serve for nothing else.
const PURPOSE: &[u8] = b"terrarium ssh host key\0";

/// Wrong lines of a file of keys that the app's log is told of at each start.
const TOLD_MAX: usize = 5;
/// A line that is no key.
const NOBODY: &str = "# nobody";

/// The secret: read, or made, when the first key is asked for, and known from then on.
pub(super) struct HostKeys {
    file: PathBuf,
    known: OnceLock<[u8; 32]>,
    /// Two instances that start at once make one secret.
    making: Mutex<()>,
}

impl HostKeys {
    /// Those of the box with this state directory, which is not looked at yet.
    pub(super) fn of(state: &Path) -> HostKeys {
        HostKeys { file: state.join(SECRET), known: OnceLock::new(), making: Mutex::default() }
    }

    /// What an earlier daemon has made, so that people are shown it at once. Blocking.
    pub(super) fn recall(&self) {
        if self.file.exists()
            && let Err(err) = self.secret()
        {
            crate::error!("ssh.no_keys", err = err);
        }
    }

    /// The host key of an app. Blocking.
    pub(super) fn key(&self, app: &AppName) -> io::Result<SshKey> {
        Ok(key_of(&self.secret()?, app))
    }

    /// The same, without a look at the disk: for whoever holds a lock. `None`: there is no secret yet.
    pub(super) fn shown(&self, app: &AppName) -> Option<SshKey> {
        Some(key_of(self.known.get()?, app))
    }

    fn secret(&self) -> io::Result<[u8; 32]> {
        if let Some(known) = self.known.get() {
            return Ok(*known);
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = secret(&self.file)?;
        Ok(*self.known.get_or_init(|| secret))
    }
}

/// Gives the SSH server of an LRP that has one its host key, and the keys of the file that the manifest
/// names: `say` is told what is wrong with that, which keeps nobody else out.
pub(super) async fn give_keys(
    shared: &Arc<Shared>,
    lrp: &DesiredLrp,
    work: &mut Work,
    say: &(dyn Fn(String) + Send + Sync),
) -> io::Result<()> {
    let file = work.ssh_keys.take();
    let Some(sidecar) = work.sidecars.iter_mut().find(|it| !lrp.by_record && it.name == SSHD)
    else {
        return Ok(());
    };
    let (inner, app) = (shared.clone(), lrp.guid.app.clone());
    let read = move || {
        let read = file.map(|file| (keys::read(&file), file));
        inner.host_keys.key(&app).map(|key| (key, read))
    };
    let (key, read) = smol::unblock(read).await?;
    let Action::Run(run) = &mut sidecar.action else { return Ok(()) };
    run.process.env.push((SSH_HOST_KEY.into(), key.pem()));
    let Some((read, file)) = read else { return Ok(()) };
    let (more, wrong) = match read {
        Ok(Keys { lines, wrong }) => {
            let told = |why| format!("{}, {why}; this line lets nobody in", file.display());
            (lines, wrong.into_iter().take(TOLD_MAX).map(told).collect())
        }
        Err((what, cure)) => {
            (Vec::new(), vec![format!("{what}: {cure}; it lets nobody in by SSH")])
        }
    };
    wrong.into_iter().for_each(say);
    admit(&mut run.process.args, &more);
    Ok(())
}

/// Adds keys to those that the server is told. Without any it runs all the same, and lets nobody in.
fn admit(args: &mut [String], more: &[String]) {
    let arg = args.iter_mut().find_map(|arg| {
        let known = arg.strip_prefix(SSH_AUTHORIZED)?.to_owned();
        Some((arg, known))
    });
    let Some((arg, known)) = arg else { return };
    let known = Some(known).filter(|known| !known.is_empty());
    let all: Vec<String> = known.into_iter().chain(more.iter().cloned()).collect();
    *arg = match all.is_empty() {
        true => format!("{SSH_AUTHORIZED}{NOBODY}"),
        false => format!("{SSH_AUTHORIZED}{}", all.join("\n")),
    };
}

fn key_of(secret: &[u8; 32], app: &AppName) -> SshKey {
    let hash = Sha256::new().chain_update(PURPOSE).chain_update(secret);
    SshKey::from_seed(hash.chain_update(app.as_str()).finalize().into())
}

/// Reads the secret; makes it the first time, whole or not at all.
fn secret(file: &Path) -> io::Result<[u8; 32]> {
    match fs::read(file) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let text =
                format!("{} is damaged; remove it, and all host keys change", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => make(file),
        Err(err) => Err(err),
    }
}

fn make(file: &Path) -> io::Result<[u8; 32]> {
    let secret = random_seed().map_err(io::Error::other)?;
    let fresh = file.with_extension("new");
    let mut out = File::options();
    let out = out.write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let written = out.and_then(|mut out| out.write_all(&secret).and_then(|()| out.sync_all()));
    written.and_then(|()| fs::rename(&fresh, file))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_app_s_and_its_box_s() {
        let name = |text: &str| text.parse::<AppName>().expect("name");
        let line = |secret: u8, app: &str| key_of(&[secret; 32], &name(app)).public_line();
        assert_eq!(line(1, "web"), line(1, "web"));
        assert_ne!(line(1, "web"), line(1, "other"));
        assert_ne!(line(1, "web"), line(2, "web"));
    }

    #[test]
    fn keys_of_a_file_come_behind_those_of_the_manifest() {
        let admitted = |known: &str, more: &[&str]| {
            let mut args = ["-address=x".to_owned(), format!("{SSH_AUTHORIZED}{known}")];
            let more: Vec<String> = more.iter().map(|it| (*it).to_owned()).collect();
            admit(&mut args, &more);
            args[1].strip_prefix(SSH_AUTHORIZED).expect("the same flag").to_owned()
        };
        assert_eq!(admitted("a\nb", &["c", "d"]), "a\nb\nc\nd");
        assert_eq!(admitted("", &["c"]), "c");
        assert_eq!(admitted("a", &[]), "a");
        assert_eq!(admitted("", &[]), "# nobody");
    }

    #[test]
    fn the_secret_is_made_once_and_root_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("terrarium-ssh-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("directory");
        let file = dir.join(SECRET);
        let _ = fs::remove_file(&file);
        let app: AppName = "web".parse().expect("name");
        let keys = HostKeys::of(&dir);
        keys.recall();
        assert!(!file.exists() && keys.shown(&app).is_none(), "who only looks makes nothing");
        let once = keys.key(&app).expect("made").public_line();
        assert_eq!(keys.shown(&app).expect("known").public_line(), once);
        let next = HostKeys::of(&dir);
        next.recall();
        assert_eq!(next.shown(&app).expect("read").public_line(), once);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        fs::write(&file, "short").expect("write");
        assert!(
            HostKeys::of(&dir).key(&app).err().expect("damaged").to_string().contains("remove it")
        );
        fs::remove_dir_all(&dir).expect("leave nothing");
    }
}
