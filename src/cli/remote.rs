//! The daemon as the verbs see it.

use super::error::CliError;
use super::parse::{Global, UsageError};
use crate::api::apps::images::{CollectedView, ImagesView, NamedImage, RemovedView};
use crate::api::apps::{ApplyRequest, LogQuery, Ping, ScaleRequest};
use crate::api::http::client::{Call, Client, Reply};
use crate::config::machine::Paths;
use crate::model::view::{AppView, BoxView, ErrorView};
use crate::unit::{AppName, ImageRef};
use serde::de::DeserializeOwned;
use serde_json::Value;
use smol::channel::Receiver;
use std::io;
use std::path::{Path, PathBuf};

/// Where the daemon's socket should be: `--host`, else `TERRARIUM_HOST` unless there is a
/// `--root`, else below the root. The flag says whether somebody named it.
pub fn socket(global: &Global, host_variable: Option<&str>) -> Result<(PathBuf, bool), CliError> {
    let variable = host_variable.filter(|text| !text.is_empty() && global.root.is_none());
    match global.host.as_deref().or(variable) {
        Some(host) => match host.strip_prefix("unix://").unwrap_or(host) {
            path if path.starts_with('/') => Ok((path.into(), true)),
            _ => {
                let message = format!("`{host}` is not the address of a daemon");
                Err(UsageError::new(message, "write unix:///PATH/terrarium.sock").into())
            }
        },
        None => Ok((Paths::under(&root(global)?).socket(), false)),
    }
}

/// The root, absolute.
pub fn root(global: &Global) -> Result<PathBuf, CliError> {
    let root = global.root.as_deref().unwrap_or(Path::new("/"));
    std::path::absolute(root).map_err(|source| CliError::File {
        doing: "find",
        path: root.to_owned(),
        source,
    })
}

/// A daemon.
#[derive(Clone)]
pub struct Remote(Client);

impl Remote {
    /// The daemon on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Remote {
        Remote(Client::new(socket))
    }

    /// Sends a call; anything but success is its `ErrorView`.
    pub async fn send(&self, call: Call) -> Result<Reply, CliError> {
        Remote::judge(self.0.send(&call).await?).await
    }

    /// What answers is good, or its `ErrorView`.
    async fn judge(reply: Reply) -> Result<Reply, CliError> {
        let status = reply.status();
        if matches!(status, 101 | 200..300) {
            return Ok(reply);
        }
        let body = reply.bytes().await?;
        Err(CliError::Refused(serde_json::from_slice(&body).unwrap_or_else(|_| ErrorView {
            kind: "failed".into(),
            message: match String::from_utf8_lossy(&body).trim() {
                "" => format!("the daemon answered with HTTP status {status}"),
                text => format!("the daemon answered: {text}"),
            },
        })))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, CliError> {
        Ok(self.send(Call::new("GET", path)).await?.json().await?)
    }

    /// Who answers.
    pub async fn ping(&self) -> Result<Ping, CliError> {
        self.get(&["v1", "ping"]).await
    }

    /// The box, with so many containers of Garden's clients; `None`: with all.
    pub async fn examine_box(&self, containers: Option<usize>) -> Result<BoxView, CliError> {
        let mut call = Call::new("GET", &["v1", "box"]);
        if let Some(most) = containers {
            call = call.query("containers", most);
        }
        Ok(self.send(call).await?.json().await?)
    }

    /// All images.
    pub async fn images(&self) -> Result<ImagesView, CliError> {
        self.get(&["v1", "images"]).await
    }

    /// All about one image.
    pub async fn inspect_image(&self, image: &str) -> Result<Value, CliError> {
        self.get(&["v1", "images", image]).await
    }

    /// Fetches an image; the reply is a stream of `PullEvent`.
    pub async fn pull_image(&self, name: &ImageRef) -> Result<Reply, CliError> {
        let name = name.to_string();
        self.send(Call::new("POST", &["v1", "images", &name, "pull"])).await
    }

    /// Sends an archive that comes in pieces; `from` is what errors call it.
    pub async fn load_image(
        &self,
        from: &str,
        name: Option<&ImageRef>,
        pieces: Receiver<io::Result<Vec<u8>>>,
    ) -> Result<Vec<NamedImage>, CliError> {
        let mut call = Call::new("POST", &["v1", "images"]).query("from", from);
        if let Some(name) = name {
            call = call.query("name", name);
        }
        let reply = self.0.send_pieces(call, pieces).await?;
        Ok(Remote::judge(reply).await?.json().await?)
    }

    /// An image as an archive; the reply is that.
    pub async fn save_image(&self, image: &str) -> Result<Reply, CliError> {
        self.send(Call::new("GET", &["v1", "images", image, "archive"])).await
    }

    /// Forgets a name, or an image.
    pub async fn remove_image(&self, image: &str) -> Result<RemovedView, CliError> {
        let call = Call::new("DELETE", &["v1", "images", image]);
        Ok(self.send(call).await?.json().await?)
    }

    /// Removes what nobody can ask for or needs, or with `all` every image that nothing is made of.
    pub async fn collect(&self, all: bool) -> Result<CollectedView, CliError> {
        let call = Call::new("POST", &["v1", "collect"]).query("all", all);
        Ok(self.send(call).await?.json().await?)
    }

    /// All apps.
    pub async fn apps(&self) -> Result<Vec<AppView>, CliError> {
        self.get(&["v1", "apps"]).await
    }

    /// One app.
    pub async fn app(&self, name: &AppName) -> Result<AppView, CliError> {
        self.get(&["v1", "apps", name.as_str()]).await
    }

    /// Whether the daemon would take a manifest.
    pub async fn check(&self, request: &ApplyRequest) -> Result<(), CliError> {
        self.send(Call::new("POST", &["v1", "check"]).json(request)).await.map(drop)
    }

    /// Applies; the reply is a stream of `ApplyEvent`.
    pub async fn apply(&self, name: &AppName, request: &ApplyRequest) -> Result<Reply, CliError> {
        let call = Call::new("PUT", &["v1", "apps", name.as_str()]);
        self.send(call.query("wait", request.wait).json(request)).await
    }

    /// The log; the reply is a stream of `LogLine`.
    pub async fn logs(&self, name: &AppName, query: &LogQuery) -> Result<Reply, CliError> {
        let call = Call::new("GET", &["v1", "apps", name.as_str(), "logs"]);
        let mut call = call.query("lines", query.lines).query("follow", query.follow);
        if let Some(process) = &query.process {
            call = call.query("process", process);
        }
        if let Some(index) = query.index {
            call = call.query("index", index);
        }
        if let Some(since) = query.since_ms {
            call = call.query("since", since);
        }
        if let Some(source) = &query.source {
            call = call.query("source", source);
        }
        self.send(call).await
    }

    /// Scales.
    pub async fn scale(&self, name: &AppName, request: &ScaleRequest) -> Result<(), CliError> {
        let call = Call::new("POST", &["v1", "apps", name.as_str(), "scale"]).json(request);
        self.send(call).await.map(drop)
    }

    /// Stops; with `wait` it returns when nothing of the app runs any more.
    pub async fn stop(&self, name: &AppName, wait: bool) -> Result<(), CliError> {
        let call = Call::new("POST", &["v1", "apps", name.as_str(), "stop"]);
        self.send(call.query("wait", wait)).await.map(drop)
    }

    /// `start` or `restart`.
    pub async fn post(&self, name: &AppName, verb: &str) -> Result<(), CliError> {
        self.send(Call::new("POST", &["v1", "apps", name.as_str(), verb])).await.map(drop)
    }

    /// Deletes; returns when nothing is left.
    pub async fn delete(&self, name: &AppName) -> Result<(), CliError> {
        self.send(Call::new("DELETE", &["v1", "apps", name.as_str()])).await.map(drop)
    }
}
