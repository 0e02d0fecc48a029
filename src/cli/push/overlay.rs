//! What flags say, laid over what a manifest says. Pure.

use crate::cli::parse::Push;
use crate::config::merge::written;
use crate::unit::{AppName, Bytes};
use toml::{Table, Value};

/// Words by which cf's flags take back what a manifest says.
const TAKEN_BACK: [&str; 2] = ["null", "default"];

/// What flags say of an app.
#[derive(Clone, Debug, Default)]
pub struct Flags<'a> {
    name: Option<&'a AppName>,
    buildpacks: &'a [String],
    stack: Option<&'a str>,
    command: Option<&'a str>,
    instances: Option<u32>,
    memory: Option<Bytes>,
    disk: Option<Bytes>,
    health: Option<&'a str>,
    endpoint: Option<&'a str>,
    start_timeout_s: Option<u32>,
    no_route: bool,
    /// A port of the box for its first `[[port]]`.
    publish: Option<u16>,
}

impl<'a> Flags<'a> {
    /// What was typed; `--port` is of manifests of cf first.
    pub fn of(push: &'a Push) -> Flags<'a> {
        Flags {
            name: push.name.as_ref(),
            buildpacks: &push.buildpacks,
            stack: push.stack.as_deref(),
            command: push.command.as_deref(),
            instances: push.instances,
            memory: push.memory,
            disk: push.disk,
            health: push.health.as_deref(),
            endpoint: push.endpoint.as_deref(),
            start_timeout_s: push.start_timeout_s,
            no_route: push.no_route,
            publish: None,
        }
    }

    /// The same for one app alone: `--port` is its own.
    pub fn of_one(push: &'a Push) -> Flags<'a> {
        Flags { publish: push.port, ..Flags::of(push) }
    }

    /// Some of it would hardly be meant for several apps.
    pub fn is_of_one_app(&self) -> bool {
        !self.buildpacks.is_empty()
            || self.stack.is_some()
            || self.command.is_some()
            || self.instances.is_some()
            || self.memory.is_some()
            || self.disk.is_some()
            || self.health.is_some()
            || self.start_timeout_s.is_some()
            || self.no_route
    }

    fn says_nothing(&self) -> bool {
        self.name.is_none() && self.publish.is_none() && !self.is_of_one_app()
    }
}

/// `text` with what the flags say. One that is no TOML stays as it is: its mistakes are shown with their
/// places when it is read.
pub fn overlaid(text: &str, flags: &Flags<'_>) -> String {
    let Ok(mut all) = text.parse::<Table>() else { return text.to_owned() };
    if flags.says_nothing() {
        return text.to_owned();
    }
    if let Some(name) = flags.name {
        all.insert("name".into(), name.as_str().into());
    }
    instances(&mut all, flags);
    sizes(&mut all, flags);
    command(&mut all, flags);
    build(&mut all, flags);
    ports(&mut all, flags);
    health(&mut all, flags);
    written(&all)
}

/// `text`, of which the first `[[port]]` has this port of the box.
pub fn published(text: &str, port: u16) -> String {
    overlaid(text, &Flags { publish: Some(port), ..Flags::default() })
}

/// The table of this name, which may have to be made; `None`: something else has the name.
fn table<'a>(all: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    all.entry(name).or_insert_with(|| Table::new().into()).as_table_mut()
}

/// What the manifest says of `web` alone, if it does.
fn web(all: &mut Table) -> Option<&mut Table> {
    all.get_mut("process")?.get_mut("web")?.as_table_mut()
}

/// Of `web` alone, as with cf: what stands in `[run]` is said of every process that has no count of its own.
fn instances(all: &mut Table, flags: &Flags<'_>) {
    let Some(count) = flags.instances else { return };
    let below = match all.contains_key("process") {
        true => table(all, "process").and_then(|processes| table(processes, "web")),
        false => table(all, "run"),
    };
    if let Some(below) = below {
        below.insert("instances".into(), i64::from(count).into());
    }
}

fn sizes(all: &mut Table, flags: &Flags<'_>) {
    for (key, value) in [
        ("memory", flags.memory.map(|it| it.to_string().into())),
        ("disk", flags.disk.map(|it| it.to_string().into())),
    ] {
        let Some(value): Option<Value> = value else { continue };
        // What `web` says itself would win.
        if let Some(it) = web(all).and_then(|web| web.get_mut(key)) {
            *it = value.clone();
        }
        if let Some(run) = table(all, "run") {
            run.insert(key.into(), value);
        }
    }
}

fn command(all: &mut Table, flags: &Flags<'_>) {
    let Some(command) = flags.command else { return };
    let taken_back = TAKEN_BACK.contains(&command);
    if let Some(web) = web(all) {
        web.remove("command");
    }
    let Some(run) = table(all, "run") else { return };
    match taken_back {
        true => drop(run.remove("command")),
        false => drop(run.insert("command".into(), command.into())),
    }
}

fn build(all: &mut Table, flags: &Flags<'_>) {
    if flags.buildpacks.is_empty() && flags.stack.is_none() {
        return;
    }
    let Some(build) = table(all, "build") else { return };
    match flags.buildpacks {
        [] => {}
        [one] if TAKEN_BACK.contains(&one.as_str()) => drop(build.remove("buildpacks")),
        names => {
            let names = names.iter().map(|name| Value::from(name.as_str()));
            build.insert("buildpacks".into(), Value::Array(names.collect()));
        }
    }
    if let Some(stack) = flags.stack {
        build.insert("stack".into(), stack.into());
    }
}

fn ports(all: &mut Table, flags: &Flags<'_>) {
    let Some(ports) = all.get_mut("port").and_then(Value::as_array_mut) else { return };
    let mut ports = ports.iter_mut().filter_map(Value::as_table_mut);
    if flags.no_route {
        ports.for_each(|port| drop(port.remove("publish")));
    } else if let (Some(publish), Some(port)) = (flags.publish, ports.next()) {
        port.insert("publish".into(), i64::from(publish).into());
    }
}

/// Of `web`, where the manifest has its check there.
fn health(all: &mut Table, flags: &Flags<'_>) {
    if flags.health.is_none() && flags.start_timeout_s.is_none() {
        return;
    }
    let of_web = web(all).is_some_and(|web| web.contains_key("health"));
    let below = if of_web { web(all) } else { Some(all) };
    let Some(health) = below.and_then(|below| table(below, "health")) else { return };
    if let Some(kind) = flags.health {
        // Keys of another kind of check would be refused.
        health.retain(|key, _| ["start_timeout", "timeout", "interval"].contains(&key));
        health.insert("type".into(), kind.into());
    }
    if let Some(path) = flags.endpoint {
        health.insert("path".into(), path.into());
    }
    if let Some(seconds) = flags.start_timeout_s {
        health.insert("start_timeout".into(), format!("{seconds}s").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::manifest::{self, Counts};
    use crate::model::manifest::{Check, Manifest};
    use std::path::Path;

    fn read(text: &str) -> Manifest {
        manifest::parse(text, "x", Path::new("/"))
            .unwrap_or_else(|bad| panic!("{}", bad.render(false)))
    }

    #[test]
    fn flags_win_over_what_a_manifest_says() {
        let push = Push {
            name: Some("shop".parse().expect("name")),
            buildpacks: vec!["ruby".into(), "node".into()],
            memory: Some(Bytes::mib(64)),
            instances: Some(3),
            command: Some("run \"it\"".into()),
            ..Push::default()
        };
        let text = "name = \"web\"\nsource.path = \"/x\"\n[process.web]\ninstances = 9\n[process.w]\ncommand = \"w\"\n";
        let it = read(&overlaid(text, &Flags::of(&push)));
        assert_eq!((it.name.as_str(), it.build.buildpacks.len()), ("shop", 2));
        let web = &it.processes["web"];
        assert_eq!((web.instances, web.memory.as_mib()), (3, 64));
        assert_eq!(it.run.command.as_deref(), Some("run \"it\""));
        assert_eq!(overlaid(text, &Flags::default()), text, "nothing is said");
    }

    /// What another process has without a count of its own it keeps, and so does what was scaled of it.
    #[test]
    fn a_count_that_is_typed_is_of_web_alone() {
        let push = Push { instances: Some(3), ..Push::default() };
        let worker = "[process.worker]\ncommand = \"w\"\n";
        for (said, web, workers, says) in [
            (format!("[process.web]\n{worker}"), 3, Some(1), false),
            (format!("[process.web]\ninstances = 9\n{worker}"), 3, Some(1), false),
            (format!("[run]\ninstances = 2\n[process.web]\n{worker}"), 3, Some(2), true),
            (worker.to_owned(), 3, Some(1), false),
            (format!("{worker}instances = 5\n"), 3, Some(5), true),
            ("[run]\ninstances = 2\n".to_owned(), 3, None, true),
            (String::new(), 3, None, true),
        ] {
            let text = overlaid(
                &format!("name = \"web\"\nsource.path = \"/x\"\n{said}"),
                &Flags::of(&push),
            );
            let it = read(&text);
            let count = |name: &str| it.processes.get(name).map(|it| it.instances);
            assert_eq!((count("web"), count("worker")), (Some(web), workers), "{said}");
            assert_eq!(Counts::of(&text).say("worker"), says, "{said}");
        }
    }

    #[test]
    fn what_a_manifest_says_is_taken_back_as_with_cf() {
        let text = "name = \"web\"\nsource.path = \"/x\"\nrun.command = \"a\"\nprocess.web.command = \"b\"\n\
                    build.buildpacks = [\"ruby\"]\n[[port]]\ncontainer = 8080\npublish = 8000\n\
                    [process.web.health]\ntype = \"http\"\npath = \"/up\"\nstart_timeout = \"9s\"\n";
        let push = Push {
            buildpacks: vec!["null".into()],
            command: Some("null".into()),
            no_route: true,
            health: Some("process".into()),
            ..Push::default()
        };
        let it = read(&overlaid(text, &Flags::of(&push)));
        assert!(it.build.buildpacks.is_empty() && it.run.command.is_none());
        let web = &it.processes["web"];
        assert_eq!((web.command.as_deref(), &web.health.check), (None, &Check::Process));
        assert_eq!((web.health.start_timeout.as_secs(), it.ports[0].publish), (9, None));
        let push = Push {
            health: Some("http".into()),
            endpoint: Some("/z".into()),
            start_timeout_s: Some(7),
            ..Push::default()
        };
        let it = read(&overlaid(text, &Flags::of(&push)));
        let health = &it.processes["web"].health;
        assert_eq!(health.check, Check::Http { port: 8080, path: "/z".into() });
        assert_eq!(health.start_timeout.as_secs(), 7);
    }
}
