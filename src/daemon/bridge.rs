//! The bridge to a cloud controller: what it is made of, where it is served, what it does by itself.

use super::service::Service;
use super::{DaemonError, lifecycle, start};
use crate::api::bbs::Bbs;
use crate::api::bridge::{OnPort, desired};
use crate::api::http::listen::listen_tcp;
use crate::api::http::server::{self, Limits};
use crate::api::http::tls::{self, TlsListener};
use crate::api::records::record;
use crate::bridge::recipe::Form;
use crate::bridge::{Bridge, Controller, Files, Own, Reader, Settings};
use crate::cell::Cell;
use crate::config::machine::{CloudController, Config};
use crate::config::site::Site;
use smol::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// Connections at a time to the bridge's own port.
const CONNECTIONS: usize = 512;

/// Longest head, in bytes: a thousand process guids of 73 characters stand in one path, with three bytes for
/// each comma. All connections together may take 64 MiB so.
const HEAD_MAX: usize = 128 << 10;

/// How long who listens to events, or fetches a file, may take nothing of what is there: who was cut off
/// as too slow is disconnected then.
const STALL: Duration = Duration::from_secs(60);

/// How records are read: as every client's are.
const READER: Reader = Reader {
    task: |cell, object| record::task(object, &|path| cell.stack_at(path)).map_err(|err| err.0),
    lrp: |cell, object| desired::decode(object, &|path| cell.stack_at(path)).map_err(|err| err.0),
};

/// A bridge that nobody has spoken to yet.
pub fn bridge(config: &Config, cell: &Cell) -> Bridge {
    let wanted = &config.bridge;
    let docker_stack = match wanted.docker_stack.as_str() {
        "" => Site::of(config).first_stack().unwrap_or_default(),
        stack => stack.to_owned(),
    };
    let settings = Settings {
        base: wanted.listen.map(|address| format!("http://{address}")),
        form: Form::of(wanted.mounts),
        docker_stack,
        insecure_registries: config.registry.insecure.clone(),
        uploads: config.paths.cache.join("uploads"),
        certs: config.registry.certs.clone(),
        logins: config.registry.logins.clone(),
        token_servers: config.registry.token_servers.iter().map(ToString::to_string).collect(),
        upload_max: config.downloads.size.get(),
        ssh_server: config.paths.ssh_server(),
    };
    let own = Own {
        programs: lifecycle::dir(config),
        archives: config.paths.cache.join("files"),
        turn: Default::default(),
    };
    let files = Files::new([wanted.files.clone()], Some(own));
    Bridge::new(cell.clone(), READER, settings, controller(config), files)
}

fn controller(config: &Config) -> Option<Controller> {
    let CloudController { url, user, password_file, skip_cert_verify, is_v4 } =
        config.cloud_controller.clone();
    (!url.is_empty()).then(|| Controller {
        url,
        login: (!user.is_empty()).then_some((user, password_file)),
        unchecked: skip_cert_verify,
        certs: config.registry.certs.clone(),
        is_v4,
    })
}

/// Serves the bridge's own port until the returned future is dropped.
pub async fn serve(listener: TcpListener, service: Service) {
    let stall = Some(STALL);
    let limits = Limits { connections: CONNECTIONS, stall, head: HEAD_MAX, ..Limits::default() };
    let err = server::serve(&listener, &OnPort(service), limits).await;
    crate::error!("bridge.broken", err = err);
}

/// Opens what `[bbs]` names.
pub fn bbs(config: &Config) -> Result<Option<BbsDoor>, DaemonError> {
    const DOING: &str = "serve what `listen` of [bbs] names";
    let wanted = &config.bbs;
    let Some(address) = wanted.listen else { return Ok(None) };
    let is_none = |file: &Path| file.as_os_str().is_empty();
    let settings = match is_none(&wanted.cert_file) {
        true => None,
        false => {
            let issuers = Some(wanted.ca_file.as_path()).filter(|file| !is_none(file));
            let read = tls::config(&wanted.cert_file, &wanted.key_file, issuers);
            Some(read.map_err(start::<String>(DOING))?)
        }
    };
    let listener = listen_tcp(address).map_err(start(DOING))?;
    Ok(Some(match settings {
        Some(settings) => BbsDoor::Tls(TlsListener::new(listener, settings)),
        None => BbsDoor::Plain(listener),
    }))
}

/// Where today's record store is spoken.
pub enum BbsDoor {
    /// By whoever is on the box.
    Plain(TcpListener),
    /// By whoever has the certificate.
    Tls(TlsListener),
}

/// Serves it until the returned future is dropped.
pub async fn serve_bbs(door: BbsDoor, service: Service) {
    let limits = Limits { connections: CONNECTIONS, stall: Some(STALL), ..Limits::default() };
    let err = match door {
        BbsDoor::Plain(listener) => server::serve(&listener, &Bbs(service), limits).await,
        BbsDoor::Tls(listener) => server::serve(&listener, &Bbs(service), limits).await,
    };
    crate::error!("bbs.broken", err = err);
}

/// What it does by itself, until the tasks are dropped.
pub fn follow(bridge: &Bridge) -> [smol::Task<()>; 2] {
    let (sync, notices) = (bridge.clone(), bridge.clone());
    [
        smol::spawn(async move { sync.keep_in_step().await }),
        smol::spawn(async move { notices.tell_notices().await }),
    ]
}
