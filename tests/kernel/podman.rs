//! podman with a store of its own: builds images, and unpacks them by itself.

use crate::tool::tool;
use std::fs;
use std::path::{Path, PathBuf};

/// All of it is below one directory. Its driver copies, so that nothing is mounted.
pub struct Podman(PathBuf);

impl Podman {
    pub fn new(dir: PathBuf) -> Podman {
        fs::create_dir_all(dir.join("scratch")).expect("directory");
        let at = |name: &str| dir.join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("root"),
            at("run")
        );
        let engine = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n\
             tmp_dir = \"{}\"\n",
            at("state")
        );
        for (name, text) in [("storage.conf", storage), ("containers.conf", engine)] {
            fs::write(dir.join(name), text).expect("write");
        }
        Podman(dir)
    }

    /// What it prints, which it must do successfully, without the end of the last line.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let set = |name: &str, file: &str| format!("{name}={}", self.0.join(file).display());
        let own = [
            set("CONTAINERS_STORAGE_CONF", "storage.conf"),
            set("CONTAINERS_CONF", "containers.conf"),
            set("TMPDIR", "scratch"),
        ];
        let own = own.iter().map(String::as_str).chain(["podman", "--log-level", "error"]);
        tool("env", &own.chain(args.iter().copied()).collect::<Vec<_>>()).trim_end().to_owned()
    }

    /// Builds what `Containerfile` in `context` says as the image `name`.
    #[track_caller]
    pub fn build(&self, context: &Path, name: &str) {
        let context = context.to_str().expect("text");
        self.run(&["build", "--quiet", "--network", "none", "--tag", name, context]);
    }

    /// Puts an image into the registry that `to` names, in one of podman's formats.
    #[track_caller]
    pub fn push(&self, name: &str, format: &str, to: &str) {
        let to = format!("docker://{to}");
        self.run(&["push", "--quiet", "--tls-verify=false", "--format", format, name, &to]);
    }
}
