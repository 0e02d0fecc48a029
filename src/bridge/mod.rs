//! What a cloud controller speaks to: staging, desire, status, files, and the sync that keeps the
//! box's records what the controller says.
//!
//! Owns: the recipes of Cloud Foundry's stagings, apps and one-off tasks (as Diego's own JSON), the
//! answers to the controller, its sync, notices of crashes, readiness and drains, the file server's
//! directory, the uploader, what of the box's registries the builder of images is given.
//! Must not: read a request's head; know how a record becomes a container; keep anything on the disk
//! but what passes through.
//! Called by: `api` (its routes), `daemon` (wiring). Calls: `cell` (records, events), `image` (TLS,
//! proxies, logins), `lifecycle` (archives, keys), `exec` (several at once), `model`, `unit`, `sys`, `log`.
//! Entry points: [`Bridge`]; pure: [`recipe`], [`request`], [`diff`], [`show`], [`text`].
//! Ancestor: cc_bridge: stager, nsync, tps, file server, cc_uploader.
//!
//! Recipes are Diego's JSON and no values of ours: they are read as any client's are ([`Reader`]), so
//! that what a controller asks for by way of this room is nothing that it could not ask for itself.

mod client;
pub mod diff;
pub mod files;
pub mod form;
mod notices;
mod nsync;
pub mod recipe;
pub mod request;
pub mod show;
mod stager;
mod sync;
pub mod text;
mod tps;
mod trust;
mod uploader;
mod workers;

pub use client::Controller;
pub use files::{Files, Own};
pub use tps::Busy;
pub use uploader::Upload;

use crate::cell::Cell;
use crate::model::container::LrpContainer;
use crate::model::task::Task;
use recipe::Site;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Domains that are remembered.
const DOMAINS_MAX: usize = 256;

/// Reads records as the box takes them from any client. `Err`: why not, in Diego's words.
#[derive(Clone, Copy)]
pub struct Reader {
    /// A Task of the receptor.
    pub task: fn(&Cell, &Map<String, Value>) -> Result<Task, String>,
    /// A DesiredLRP of the receptor.
    pub lrp: fn(&Cell, &Map<String, Value>) -> Result<LrpContainer, String>,
}

/// What the box's owner says about the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the box's own services are found by what it downloads and uploads, such as
    /// `http://127.0.0.1:8787`; `None`: nowhere, so nothing can be staged.
    pub base: Option<String>,
    /// How containers get archives.
    pub form: recipe::Form,
    /// The stack in which images are looked at.
    pub docker_stack: String,
    /// Registries that are asked without TLS.
    pub insecure_registries: Vec<String>,
    /// Directory of files on their way to the controller.
    pub uploads: PathBuf,
    /// Directories of further certificates, one for each host.
    pub certs: PathBuf,
    /// The box's logins for registries.
    pub logins: PathBuf,
    /// Servers of tokens that logins may go to, `host` or `host:port`.
    pub token_servers: Vec<String>,
    /// Longest file that is passed on, in bytes.
    pub upload_max: u64,
    /// The SSH server of containers, where the box has it.
    pub ssh_server: PathBuf,
}

/// The bridge. Clones are the same one.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    cell: Cell,
    reader: Reader,
    settings: Settings,
    controller: Option<Controller>,
    files: Files,
    /// When each domain stops being fresh; `None`: never.
    domains: Mutex<BTreeMap<String, Option<Instant>>>,
    /// Requests for status that are being answered.
    busy: Arc<AtomicUsize>,
    /// Files that are being passed on.
    uploads: Arc<AtomicUsize>,
}

/// An answer: status and JSON, if there is anything to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `None`: nothing follows.
    pub body: Option<Value>,
    /// Why it was refused, for the daemon's log.
    pub why: Option<String>,
}

impl Reply {
    /// Nothing but a status.
    pub fn new(status: u16) -> Reply {
        Reply { status, body: None, why: None }
    }

    /// With this document.
    pub fn with(status: u16, body: Value) -> Reply {
        Reply { status, body: Some(body), why: None }
    }

    /// A refusal; the daemon's log tells why.
    pub fn refused(status: u16, why: impl Into<String>) -> Reply {
        let why = why.into();
        let body = json!({ "error": { "message": why } });
        Reply { status, body: Some(body), why: Some(why) }
    }

    /// A refusal with the status of somebody else's answer, as far as an answer can have it.
    pub fn passed_on(status: u16) -> Reply {
        let why = format!("the controller answered with status {status}");
        match status {
            // Nothing may follow these.
            204 | 304 => Reply { status, body: None, why: Some(why) },
            200..=599 => Reply::refused(status, why),
            _ => Reply::refused(502, why),
        }
    }
}

impl Bridge {
    /// A bridge to the records of `cell`; without a controller it answers and never asks.
    pub fn new(
        cell: Cell,
        reader: Reader,
        settings: Settings,
        controller: Option<Controller>,
        files: Files,
    ) -> Bridge {
        Bridge(Arc::new(Inner {
            cell,
            reader,
            settings,
            controller,
            files,
            domains: Mutex::default(),
            busy: Arc::default(),
            uploads: Arc::default(),
        }))
    }

    /// The cell behind it.
    pub fn cell(&self) -> &Cell {
        &self.0.cell
    }

    /// Reads a DesiredLRP.
    pub fn read_lrp(&self, object: &Map<String, Value>) -> Result<LrpContainer, String> {
        (self.0.reader.lrp)(&self.0.cell, object)
    }

    /// What is served as files.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// What recipes need to know of the box. `Err`: nothing can be fetched from it.
    async fn site(&self) -> Result<Site, String> {
        let settings = &self.0.settings;
        let base = settings.base.clone().ok_or(
            "containers cannot fetch their programs from here: set `listen` in [bridge] of \
             terrarium.toml",
        )?;
        Ok(Site {
            base,
            form: settings.form,
            stacks: self.0.cell.stacks().await,
            docker_stack: settings.docker_stack.clone(),
            insecure_registries: settings.insecure_registries.clone(),
        })
    }

    /// What stands in the domain is all that shall be, for so long; `None`: for ever. `false`: as many
    /// domains are remembered as may be.
    pub fn refresh(&self, domain: &str, ttl: Option<Duration>) -> bool {
        let mut domains = self.domains();
        let now = Instant::now();
        domains.retain(|_, until| until.is_none_or(|until| until > now));
        if domains.len() >= DOMAINS_MAX && !domains.contains_key(domain) {
            return false;
        }
        domains.insert(domain.to_owned(), ttl.and_then(|ttl| now.checked_add(ttl)));
        true
    }

    /// The domains that are fresh now.
    pub fn fresh(&self) -> Vec<String> {
        let now = Instant::now();
        let domains = self.domains();
        let fresh = domains.iter().filter(|(_, until)| until.is_none_or(|until| until > now));
        fresh.map(|(domain, _)| domain.clone()).collect()
    }

    fn domains(&self) -> MutexGuard<'_, BTreeMap<String, Option<Instant>>> {
        self.0.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nothing_may_follow_is_passed_on_with_nothing() {
        let passed = |status| {
            let reply = Reply::passed_on(status);
            (reply.status, reply.body.is_some())
        };
        assert_eq!([204, 304].map(passed), [(204, false), (304, false)]);
        assert_eq!([201, 401, 503].map(passed), [(201, true), (401, true), (503, true)]);
        assert_eq!([101, 999].map(passed), [(502, true), (502, true)]);
    }
}
