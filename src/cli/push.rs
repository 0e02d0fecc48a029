//! `push`, with cf's letters: a directory, an archive or an image becomes an app that runs.
//!
//! What the app is, a manifest of cf in the directory says, else a `terrarium.toml` there, else nobody:
//! then the flags do. They win in any case. The directory is sent over the socket: the daemon need not
//! be able, or allowed, to read it. Who names no port of the box gets one (D96), which is chosen as the last
//! thing, of what the daemon knows then, and chosen again when somebody else was quicker (D105).

mod bits;
mod ignore;
mod orders;
mod origin;
mod overlay;
mod own;
mod ports;
mod words;

use super::change;
use super::error::{CliError, code};
use super::parse::Push;
use super::remote::Remote;
use super::show::{self, Health};
use super::ui::{Ui, now_ms};
use crate::api::apps::{ApplyRequest, ErrorKind};
use crate::api::http::client::Reply;
use crate::config::manifest;
use crate::config::merge::{over, quoted};
use crate::config::site::Site;
use crate::model::manifest::Manifest;
use crate::model::view::{AppView, ErrorView, InstanceView, LogLine, Pushed, UNCHANGED};
use crate::net::listening::{Listeners, Use};
use crate::unit::{AppName, ImageRef};
use orders::{Order, Plan, plan};
use ports::{Asks, Denied, Given, Ports, Wants};
use std::collections::BTreeSet;
use std::path::Path;

/// How often a port is chosen for an app: each time but the last, somebody else was quicker. A directory is sent
/// each time.
const CHOICES_MAX: usize = 32;
const SENDS_MAX: usize = 4;

/// `push`.
pub async fn push(ui: &mut Ui, remote: &Remote, push: &Push, site: &Site) -> Result<u8, CliError> {
    // What is wrong with the words comes before what is wrong with the daemon.
    let Plan { orders, mut named, perhaps } = plan(ui, push, site)?;
    let mut all = Vec::new();
    for order in orders {
        let manifest = read(ui, &order)?;
        named.extend(manifest.claims());
        all.push((order, manifest));
    }
    if let Some(image) = perhaps {
        must_be_here(ui, remote, &image).await?;
    }
    let pusher = Pusher { remote, push, site, named };
    pusher.rehearse(ui, &all).await?;
    for (order, manifest) in &all {
        check(ui, remote, order, manifest).await?;
    }
    let mut code = 0;
    for (order, manifest) in &all {
        let its = pusher.one(ui, order, manifest).await;
        code = code.max(change::goes_on(ui, its)?);
    }
    Ok(code)
}

/// A word that says nothing but a name is an image when the box has one of that name.
async fn must_be_here(ui: &mut Ui, remote: &Remote, image: &ImageRef) -> Result<(), CliError> {
    // With its tag it is not taken for the beginning of a digest.
    match remote.inspect_image(&format!("{image}:{}", image.tag())).await {
        Ok(_) => {
            ui.note(&format!("{image}: there is no such file here; it is taken for the image"));
            Ok(())
        }
        Err(CliError::Refused(view)) if ErrorKind::of(&view) == ErrorKind::NotFound => {
            let all = remote.images().await?.images;
            let tagged = origin::tagged(image, all.iter().flat_map(|it| &it.names));
            Err(origin::nothing(&image.to_string(), &tagged).into())
        }
        Err(err) => Err(err),
    }
}

/// What the daemon refuses is shown in the words of a manifest, and then in those of `push`. `said`: what it
/// has said before.
fn refused(ui: &mut Ui, order: &Order, err: CliError, said: &str) -> CliError {
    let words = match &err {
        CliError::Refused(view) => format!("{}\n{said}", view.message),
        _ => String::new(),
    };
    let err = change::invalid(ui, err);
    hint(ui, order, &words);
    err
}

/// The flags for the keys that `words` name, unless there is a manifest of ours to mend.
fn hint(ui: &mut Ui, order: &Order, words: &str) {
    if let Some(hint) = words::flags(words).filter(|_| order.is_by_flags()) {
        ui.complain(&format!("{hint}\n"));
    }
}

/// Lets the daemon look at a manifest, before any of them is pushed and a large directory is sent.
async fn check(
    ui: &mut Ui,
    remote: &Remote,
    order: &Order,
    read: &Manifest,
) -> Result<(), CliError> {
    if read.image.is_none() {
        // What is not there, or too large, is told before anything of any app is sent.
        bits::check(&read.source).map_err(|source| unsent(read, source))?;
    }
    let mut request = ApplyRequest {
        manifest_text: order.text.clone(),
        file: order.shown.clone(),
        ..ApplyRequest::default()
    };
    if read.image.is_none() {
        // The daemon need not be able to read the directory itself.
        let text = over(&order.text, "source.path = \"/\"\n");
        request.manifest_text = text.unwrap_or(request.manifest_text);
    }
    remote.check(&request).await.map_err(|err| refused(ui, order, err, ""))
}

fn unsent(read: &Manifest, source: std::io::Error) -> CliError {
    CliError::File { doing: "send", path: read.source.clone(), source }
}

/// The manifest of an order.
fn read(ui: &mut Ui, order: &Order) -> Result<Manifest, CliError> {
    let dir = order.file.parent().unwrap_or(Path::new("/"));
    manifest::parse(&order.text, &order.shown.display().to_string(), dir).map_err(|bad| {
        ui.complain(&bad.render(ui.color_err));
        hint(ui, order, &bad.render(false));
        CliError::Invalid { bad: 1, all: 1 }
    })
}

/// The app of this name as it is before anything is pushed; `None`: there is none.
async fn before(remote: &Remote, name: &AppName) -> Result<Option<AppView>, CliError> {
    match remote.app(name).await {
        Ok(app) => Ok(Some(app)),
        Err(CliError::Refused(view)) if ErrorKind::of(&view) == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Where an app has come from until now, if that is from elsewhere than `pushed`.
fn owner(app: &AppView, pushed: &str) -> Option<String> {
    match &app.pushed {
        Some(before) => (before != pushed)
            .then(|| format!("there is one already, which was pushed from {before}")),
        None => Some(format!("there is one already, which was applied from {}", app.manifest)),
    }
}

/// As the daemon refuses.
fn conflict(denied: &Denied) -> CliError {
    let (kind, message) = (ErrorKind::Conflict.as_str().to_owned(), denied.to_string());
    CliError::Refused(ErrorView { kind, message })
}

/// Somebody else was quicker.
fn is_conflict(err: &CliError) -> bool {
    matches!(err, CliError::Refused(view) if ErrorKind::of(view) == ErrorKind::Conflict)
}

/// Pushes app by app.
struct Pusher<'a> {
    remote: &'a Remote,
    push: &'a Push,
    site: &'a Site,
    /// Ports of the box that are given to nobody: the manifests name them.
    named: BTreeSet<u16>,
}

impl Pusher<'_> {
    /// Refuses, before any app is pushed, what the daemon would refuse half way.
    async fn rehearse(&self, ui: &mut Ui, all: &[(Order, Manifest)]) -> Result<(), CliError> {
        let apps = self.remote.apps().await?;
        let asks = all.iter().map(|(order, manifest)| Asks {
            name: &manifest.name,
            named: manifest.claims().collect(),
            wants: order.wants,
        });
        let (asks, listeners): (Vec<_>, _) = (asks.collect(), Listeners::read());
        let (may, waits) = (|port| self.may(port, &listeners), self.waits());
        let Err(denied) = Ports::new(&apps, &may).rehearse(&asks, &self.named, waits) else {
            return Ok(());
        };
        let (Denied::Claimed { name, .. } | Denied::NoneFree { name }) = &denied;
        let order = all.iter().find(|(_, manifest)| manifest.name == *name).map(|it| &it.0);
        let err = conflict(&denied);
        Err(match order {
            Some(order) => refused(ui, order, err, ""),
            None => err,
        })
    }

    /// Whether the box could publish a port. The daemon looks, too: it is on the same box.
    fn may(&self, port: u16, listeners: &Listeners) -> bool {
        !self.site.ports.contains(&port) && listeners.of(port) == Use::Free
    }

    /// Each app runs before the next one is pushed.
    fn waits(&self) -> bool {
        !self.push.no_wait && !self.push.no_start
    }

    /// The port for an app of what the box knows now; `None`: it gets none.
    async fn choose(&self, name: &AppName, wants: Wants) -> Result<Option<Given>, CliError> {
        let (apps, listeners) = (self.remote.apps().await?, Listeners::read());
        let may = |port| self.may(port, &listeners);
        let given = Ports::new(&apps, &may).of(name, wants, &self.named);
        given.map_err(|denied| conflict(&denied))
    }

    /// Sends one app until the daemon takes it; its answer, and the port that the app was given.
    async fn send(
        &self,
        ui: &mut Ui,
        order: &Order,
        read: &Manifest,
        request: ApplyRequest,
    ) -> Result<(Reply, Option<Given>), CliError> {
        let (name, mut choices) = (&read.name, 1);
        loop {
            let mut request = request.clone();
            if read.image.is_none() {
                let pieces = bits::read(&read.source).map_err(|source| unsent(read, source))?;
                // The daemon keeps nothing of a push that it refuses.
                let there = self.remote.send_source(name, pieces).await?;
                let path = format!("source.path = {}\n", quoted(&there.to_string_lossy()));
                let text = over(&request.manifest_text, &path);
                request.manifest_text = text.unwrap_or(request.manifest_text);
            }
            let mut given = None;
            if order.wants != Wants::None {
                let chosen = self.choose(name, order.wants).await;
                given = chosen.map_err(|err| refused(ui, order, err, ""))?;
            }
            if let Some(Given { port, .. }) = given {
                request.manifest_text = overlay::published(&request.manifest_text, port);
            }
            let err = match self.remote.apply(name, &request).await {
                Ok(reply) => return Ok((reply, given)),
                Err(err) => err,
            };
            let most = if read.image.is_none() { SENDS_MAX } else { CHOICES_MAX };
            let lost = match given {
                // Who cannot choose again is told why this one was refused.
                Some(_) if choices < most && is_conflict(&err) => {
                    let next = self.choose(name, order.wants).await;
                    given.filter(|_| next.is_ok_and(|next| next != given))
                }
                _ => None,
            };
            let Some(Given { port, .. }) = lost else { return Err(refused(ui, order, err, "")) };
            ui.note(&format!("{name}: port {port} was taken meanwhile; sending again"));
            choices += 1;
        }
    }

    /// Sends one app and follows it.
    async fn one(&self, ui: &mut Ui, order: &Order, read: &Manifest) -> Result<u8, CliError> {
        let (remote, push, name) = (self.remote, self.push, &read.name);
        let before = before(remote, name).await?;
        let pushed = match &read.image {
            Some(image) => image.to_string(),
            None => read.source.display().to_string(),
        };
        if let Some(from) = before.as_ref().and_then(|app| owner(app, &pushed)) {
            ui.note(&format!("{name}: {from}; from now on it is what is pushed here"));
        }
        if read.image.is_none() {
            ui.note(&format!("{name}: sending {pushed}"));
        }
        let request = ApplyRequest {
            manifest_text: order.text.clone(),
            file: order.file.clone(),
            wait: self.waits(),
            stopped: push.no_start,
            temporary: false,
            pushed: Some(Pushed { what: pushed, is_bare: order.is_bare }),
            counted: push.instances.is_some(),
            force: push.force,
        };
        let wait = request.wait;
        let (reply, given) = self.send(ui, order, read, request).await?;
        // Not before it is the app's.
        match given {
            Some(Given { port, kept: false }) => ui.note(&format!(
                "{name}: gets port {port} of the box; --port names another one, --no-route none"
            )),
            None if order.wants == Wants::IfNew => ui.note(&format!(
                "{name}: stays without a port of the box; --port gives it one, `publish = false` below [[port]] \
                 says so"
            )),
            _ => {}
        }
        let (mut unchanged, mut failure) = (false, String::new());
        let mut see = |line: LogLine| {
            let of_staging = line.source.starts_with("STG");
            unchanged |= of_staging && line.text.starts_with(UNCHANGED);
            if of_staging && line.text.starts_with(change::STAGING_FAILED) {
                failure = line.text;
            }
        };
        let followed = change::follow(ui, name, reply, &mut see).await;
        let (app, _) = followed.map_err(|err| refused(ui, order, err, &failure))?;
        if !wait {
            let how = if push.no_start { "there, and not started" } else { "accepted" };
            ui.note(&format!("{name}: {how}"));
            return Ok(0);
        }
        if let (true, Some(before)) = (unchanged, &before) {
            ui.note(&format!("{name}: {}", of_same(before, &app)));
        }
        if !ui.json && !ui.quiet {
            ui.print(&show::app(&app, now_ms(), ui.color))?;
        }
        if let Some(at) = reached(&app) {
            ui.note(&format!("{name}: {at}"));
        }
        Ok(if show::health(&app) == Health::Bad { code::NOT_RUNNING } else { 0 })
    }
}

/// What is told of an app of which what was pushed is as it was.
fn of_same(before: &AppView, app: &AppView) -> String {
    let count = |app: &AppView| {
        let web = app.processes.iter().find(|process| process.name == "web");
        web.map_or(0, |process| process.desired)
    };
    match (before.state == "stopped", count(before), count(app)) {
        (true, ..) => "nothing changed; it was stopped, and was started as it is".into(),
        (false, old, new) if old != new => {
            format!("nothing changed but the number of instances, {new} instead of {old}")
        }
        (false, ..) => {
            "nothing changed, so nothing was done; `push --force` stages it all the same, \
                        `terrarium restart` makes it run afresh"
                .into()
        }
    }
}

/// Where somebody reaches an app that runs; `None`: nowhere.
fn reached(app: &AppView) -> Option<String> {
    let at = show::addresses(app).join(" ");
    let instances = || app.processes.iter().flat_map(|it| &it.instances);
    let is_led_to = |it: &InstanceView| it.ready != Some(false) && !it.ports.is_empty();
    if app.state != "running" || at.is_empty() || !instances().any(is_led_to) {
        return None;
    }
    let ports = instances().flat_map(|it| &it.ports);
    Some(match ports.clone().any(|port| port.publish.is_some()) {
        true => format!("answers at {at}"),
        false => format!(
            "each instance answers at a port of its own, which goes with it: {at}; --port, or `publish` below \
             [[port]], gives the app one that stays"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::fake::view;

    #[test]
    fn who_has_pushed_is_told_where_the_app_answers() {
        assert_eq!(
            reached(&view("web", "running")).as_deref(),
            Some("answers at http://127.0.0.1:8080")
        );
        assert_eq!(reached(&view("web", "crashed")), None);
        let mut unready = view("web", "running");
        unready.processes[0].instances[0].ready = Some(false);
        assert_eq!(reached(&unready), None, "nothing is led to it");
        let mut own = view("web", "running");
        own.processes[0].instances[0].ports[0].publish = None;
        let said = reached(&own).expect("it has a port");
        assert!(said.contains("http://127.0.0.1:61000; --port, or"), "{said}");
        own.processes[0].instances[0].ports.clear();
        assert_eq!(reached(&own), None);
    }

    #[test]
    fn who_pushes_what_is_there_already_is_told_what_became_of_it() {
        let app = view("web", "running");
        assert!(of_same(&app, &app).starts_with("nothing changed, so nothing was done"));
        let stopped = view("web", "stopped");
        assert!(of_same(&stopped, &app).ends_with("was started as it is"));
        let mut more = app.clone();
        more.processes[0].desired = app.processes[0].desired + 2;
        let said = format!("{} instead of {}", more.processes[0].desired, app.processes[0].desired);
        assert!(of_same(&app, &more).ends_with(&said), "{}", of_same(&app, &more));
    }

    #[test]
    fn whose_an_app_was_before_is_told_unless_it_was_pushed_from_there() {
        let text = r#"{"name":"a","state":"running","stack":"tiny","manifest":"/etc/a.toml","processes":[]}"#;
        let app: AppView = serde_json::from_str(text).expect("a view");
        let said = owner(&app, "/src/a").expect("it was applied");
        assert!(said.ends_with("was applied from /etc/a.toml"), "{said}");
        let pushed = AppView { pushed: Some("/src/a".into()), ..app };
        assert_eq!(owner(&pushed, "/src/a"), None);
        assert!(owner(&pushed, "/src/b").is_some_and(|said| said.ends_with("pushed from /src/a")));
    }
}
