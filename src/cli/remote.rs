//! The daemon as the verbs see it.

use super::error::CliError;
use super::parse::{Global, Target, UsageError};
use crate::api::apps::history::{RollbackRequest, RolledBack, TaskMade, TaskRequest};
use crate::api::apps::images::{CollectedView, ImagesView, NamedImage, RemovedView, WAITS};
use crate::api::apps::source::SourceView;
use crate::api::apps::{ApplyRequest, LogQuery, Ping, ScaleRequest};
use crate::api::http::client::{Call, Client, Reply};
use crate::api::http::proto::Headers;
use crate::config::machine::Paths;
use crate::model::explain::ExplainView;
use crate::model::view::{AppView, BoxView, DrainView, ErrorView, RevisionView};
use crate::unit::{AppName, ImageRef, span};
use serde::de::DeserializeOwned;
use serde_json::Value;
use smol::channel::Receiver;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    /// Sends an archive that comes in pieces; `from` is what errors call it. `waits` hears what it has to
    /// wait for.
    pub async fn load_image(
        &self,
        from: &str,
        name: Option<&ImageRef>,
        pieces: Receiver<io::Result<Vec<u8>>>,
        waits: &mut dyn FnMut(&str),
    ) -> Result<Vec<NamedImage>, CliError> {
        let mut call = Call::new("POST", &["v1", "images"]).query("from", from);
        if let Some(name) = name {
            call = call.query("name", name);
        }
        let mut early = |headers: &Headers| headers.get(WAITS).into_iter().for_each(&mut *waits);
        let reply = self.0.send_pieces(call, pieces, &mut early).await?;
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

    /// Drains the cell; with `wait` it returns when nothing is left.
    pub async fn drain(
        &self,
        wait: bool,
        timeout: Option<Duration>,
    ) -> Result<DrainView, CliError> {
        let mut call = Call::new("POST", &["v1", "drain"]).query("wait", wait);
        if let Some(timeout) = timeout {
            call = call.query("timeout", span::show(timeout));
        }
        Ok(self.send(call).await?.json().await?)
    }

    /// Ends that.
    pub async fn undrain(&self) -> Result<(), CliError> {
        self.send(Call::new("DELETE", &["v1", "drain"])).await.map(drop)
    }

    /// All Tasks, as JSON.
    pub async fn tasks(&self) -> Result<Vec<Value>, CliError> {
        self.get(&["v1", "tasks"]).await
    }

    /// One Task, as JSON.
    pub async fn task(&self, guid: &str) -> Result<Value, CliError> {
        self.get(&["v1", "tasks", guid]).await
    }

    /// Ends a Task.
    pub async fn cancel_task(&self, guid: &str) -> Result<(), CliError> {
        self.send(Call::new("POST", &["v1", "tasks", guid, "cancel"])).await.map(drop)
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

    /// Sends an app's directory as a tar that comes in pieces; where it is there.
    pub async fn send_source(
        &self,
        name: &AppName,
        pieces: Receiver<io::Result<Vec<u8>>>,
    ) -> Result<PathBuf, CliError> {
        let call = Call::new("PUT", &["v1", "apps", name.as_str(), "source"]);
        let reply = self.0.send_pieces(call, pieces, &mut |_| {}).await?;
        Ok(Remote::judge(reply).await?.json::<SourceView>().await?.path)
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

    /// Events; the reply is a stream of server-sent events.
    pub async fn events(&self, since: Option<&str>, follow: bool) -> Result<Reply, CliError> {
        let mut call = Call::new("GET", &["v1", "events"]).query("follow", follow);
        if let Some(since) = since {
            call = call.query("since", since);
        }
        self.send(call).await
    }

    /// What is the matter.
    pub async fn explain(&self, target: &Target) -> Result<ExplainView, CliError> {
        let mut call = Call::new("GET", &["v1", "apps", target.app.as_str(), "explain"]);
        if let Some(process) = &target.process {
            call = call.query("process", process);
        }
        if let Some(index) = target.index {
            call = call.query("index", index);
        }
        Ok(self.send(call).await?.json().await?)
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

    /// `start`, `restart` or `restage`.
    pub async fn post(&self, name: &AppName, verb: &str) -> Result<(), CliError> {
        self.send(Call::new("POST", &["v1", "apps", name.as_str(), verb])).await.map(drop)
    }

    /// The revisions that are kept.
    pub async fn revisions(&self, name: &AppName) -> Result<Vec<RevisionView>, CliError> {
        self.get(&["v1", "apps", name.as_str(), "revisions"]).await
    }

    /// Runs an old revision again; the number of the new one.
    pub async fn rollback(&self, name: &AppName, to: Option<u64>) -> Result<u64, CliError> {
        let call = Call::new("POST", &["v1", "apps", name.as_str(), "rollback"]);
        let reply = self.send(call.json(&RollbackRequest { to })).await?;
        Ok(reply.json::<RolledBack>().await?.revision)
    }

    /// What happens to an app until it runs or has failed; the reply is a stream of `ApplyEvent`.
    pub async fn follow(&self, name: &AppName) -> Result<Reply, CliError> {
        self.send(Call::new("GET", &["v1", "apps", name.as_str(), "follow"])).await
    }

    /// Asks for a Task; its guid.
    pub async fn run_task(&self, name: &AppName, task: &TaskRequest) -> Result<String, CliError> {
        let call = Call::new("POST", &["v1", "apps", name.as_str(), "tasks"]).json(task);
        Ok(self.send(call).await?.json::<TaskMade>().await?.task_guid)
    }

    /// A fresh instance in this index's place.
    pub async fn restart_instance(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
    ) -> Result<(), CliError> {
        let index = index.to_string();
        let path = ["v1", "apps", name.as_str(), "instances", process, &index, "restart"];
        self.send(Call::new("POST", &path)).await.map(drop)
    }

    /// Deletes; returns when nothing is left.
    pub async fn delete(&self, name: &AppName) -> Result<(), CliError> {
        self.send(Call::new("DELETE", &["v1", "apps", name.as_str()])).await.map(drop)
    }
}
