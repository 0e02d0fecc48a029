//! Apps, instances and log lines as a person reads them. Pure.

pub mod images;
pub mod tasks;
pub mod top;
pub mod watch;

use super::text::{Ink, Table, ago, clean, cpu, size, utc};
use crate::model::view::{
    AmountView, AppView, BoxView, CapacityView, CellView, GardenView, InstanceView, LogLine,
    PortView, ProcessView, SshView,
};

/// Containers of Garden's clients that `status` shows.
pub const CONTAINERS_MAX: usize = 20;

/// Characters of a handle that are shown.
const HANDLE_MAX: usize = 48;

/// How an app is doing, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All wanted instances run.
    Good,
    /// Somebody stopped it: as it should be, but it does not run.
    Stopped,
    /// Anything else.
    Bad,
}

/// How `app` is doing.
pub fn health(app: &AppView) -> Health {
    let whole = app.processes.iter().all(|process| process.settled() >= process.desired);
    match app.state.as_str() {
        "running" | "finished" if whole => Health::Good,
        "stopped" => Health::Stopped,
        _ => Health::Bad,
    }
}

pub(super) fn ink(state: &str) -> Ink {
    match state {
        "running" | "finished" => Ink::Good,
        "staging" | "starting" | "unclaimed" | "waiting" => Ink::Busy,
        "stopped" => Ink::Dim,
        _ => Ink::Bad,
    }
}

/// `terrarium apps`.
pub fn apps(apps: &[AppView], now_ms: u64, color: bool) -> String {
    if apps.is_empty() {
        return "no apps; `terrarium apply FILE` makes one\n".into();
    }
    let heading = ["NAME", "STATE", "INSTANCES", "MEMORY", "DISK", "PORTS", "SINCE"];
    let mut table = Table::new("", &heading);
    for app in apps {
        let instances = || app.processes.iter().flat_map(|process| &process.instances);
        let limit = |of: fn(&ProcessView) -> u64| {
            app.processes.iter().map(|process| of(process) * u64::from(process.desired)).sum()
        };
        let used = |of: fn(&InstanceView) -> Option<u64>| instances().filter_map(of).sum::<u64>();
        let since = instances().map(|instance| instance.since_ms).max();
        table.row([
            (app.name.to_string(), Ink::Plain),
            (app.state.clone(), ink(&app.state)),
            (counts(app), Ink::Plain),
            (share(used(|it| it.memory_bytes), limit(|it| it.memory_bytes)), Ink::Plain),
            (share(used(|it| it.disk_bytes), limit(|it| it.disk_bytes)), Ink::Plain),
            (published(app), Ink::Plain),
            (since.map_or("-".into(), |since| ago(now_ms, since)), Ink::Plain),
        ]);
    }
    table.render(color)
}

/// `2/2`, or `web:2/2 worker:0/1`.
fn counts(app: &AppView) -> String {
    let count = |process: &ProcessView| format!("{}/{}", process.running, process.desired);
    match &app.processes[..] {
        [] => "-".into(),
        [only] => count(only),
        all => {
            let parts = all.iter().map(|process| format!("{}:{}", process.name, count(process)));
            parts.collect::<Vec<_>>().join(" ")
        }
    }
}

fn share(used: u64, limit: u64) -> String {
    format!("{}/{}", size(used), size(limit))
}

/// `1.50s 12.5%`: processor time in all, and of one processor since somebody looked last.
fn processor(instance: &InstanceView) -> String {
    let all = instance.cpu_ns.map_or("-".into(), cpu);
    match instance.cpu_percent {
        Some(percent) => format!("{all} {percent}"),
        None => all,
    }
}

/// The ports in front of all instances, else `-`.
fn published(app: &AppView) -> String {
    let instances = app.processes.iter().flat_map(|process| &process.instances);
    let ports = instances.flat_map(|instance| &instance.ports).filter_map(|port| port.publish);
    let ports: std::collections::BTreeSet<u16> = ports.collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    if ports.is_empty() { "-".into() } else { ports.join(",") }
}

/// `terrarium app NAME`.
pub fn app(app: &AppView, now_ms: u64, color: bool) -> String {
    let state = ink(&app.state).paint(&clean(&app.state), color);
    let mut out = format!("name       {}\nstate      {state}\n", app.name);
    let mut field = |key: &str, value: &str| {
        out.push_str(&format!("{key:<10} {}\n", clean(value)));
    };
    if let Some(reason) = &app.reason {
        field("reason", reason);
    }
    if let Some(pushed) = &app.pushed {
        field("pushed", pushed);
    }
    if !app.manifest.is_empty() {
        field("manifest", &app.manifest);
    }
    if let Some(why) = &app.refused {
        field("", &format!("is not followed as it is now: {why}"));
    }
    match &app.image {
        Some(image) => field("image", image),
        None => {
            field("stack", &app.stack);
            field("buildpack", app.buildpack.as_deref().unwrap_or("-"));
        }
    }
    match published(app).as_str() {
        "-" => {}
        ports => field("published", ports),
    }
    if let Some(ssh) = &app.ssh {
        field("ssh", &come_in(app, ssh));
        field("host key", &ssh.fingerprint);
    }
    for process in &app.processes {
        out.push_str(&self::process(process, now_ms, color));
    }
    out
}

/// The client's command line, for this very box: by the published port, or else the first instance's.
fn come_in(app: &AppView, ssh: &SshView) -> String {
    let instances = app.processes.iter().flat_map(|process| &process.instances);
    let own = instances.flat_map(|instance| &instance.ports);
    let own = own.filter(|port| port.container == ssh.container).map(|port| port.host).next();
    match ssh.publish.or(own) {
        Some(port) => format!("ssh -p {port} {}@localhost", ssh.user),
        None => "once an instance runs".to_owned(),
    }
}

fn process(process: &ProcessView, now_ms: u64, color: bool) -> String {
    let mut out = format!(
        "\n{}: {} of {} running, memory {}, disk {}\n",
        clean(&process.name),
        process.running,
        process.desired,
        size(process.memory_bytes),
        size(process.disk_bytes),
    );
    if !process.command.is_empty() {
        out.push_str(&format!("  command  {}\n", clean(&process.command)));
    }
    if process.instances.is_empty() {
        return out;
    }
    let heading = ["#", "STATE", "SINCE", "CPU", "MEMORY", "DISK", "ADDRESS", "PORTS", "CRASHES"];
    let mut table = Table::new("  ", &heading);
    for instance in &process.instances {
        table.row(row(process, instance, now_ms));
    }
    out.push_str(&table.render(color));
    for one in process.instances.iter().filter(|one| one.ready == Some(false)) {
        if let Some(why) = &one.unready {
            out.push_str(&format!("  {} is not ready: {}\n", one.index, clean(why)));
        }
    }
    let waits =
        process.instances.iter().filter_map(|one| Some((one, one.placement_error.as_ref()?)));
    for (one, why) in waits.filter(|(one, _)| one.state == "waiting").take(1) {
        out.push_str(&format!("  {} {}: {}\n", one.index, waits_how(one), clean(why)));
    }
    out
}

fn row(process: &ProcessView, instance: &InstanceView, now_ms: u64) -> [(String, Ink); 9] {
    let of = |used: Option<u64>, limit| used.map_or("-".into(), |used| share(used, limit));
    let ports: Vec<String> = instance.ports.iter().map(port).collect();
    let crashes = match (&instance.crash_reason, instance.crash_count) {
        (None, 0) if instance.placement_error.is_some() => "-".to_owned(),
        (Some(reason), count) => format!("{count} ({reason})"),
        (None, count) => count.to_string(),
    };
    let plain = |text| (text, Ink::Plain);
    [
        plain(instance.index.to_string()),
        match (instance.state.as_str(), instance.ready) {
            ("running", Some(false)) => ("not ready".to_owned(), Ink::Busy),
            (state, _) if instance.outdated => (format!("{state} (old)"), ink(state)),
            (state, _) => (state.to_owned(), ink(state)),
        },
        plain(ago(now_ms, instance.since_ms)),
        plain(processor(instance)),
        plain(of(instance.memory_bytes, process.memory_bytes)),
        plain(of(instance.disk_bytes, process.disk_bytes)),
        plain(instance.address.clone().unwrap_or("-".into())),
        plain(if ports.is_empty() { "-".into() } else { ports.join(",") }),
        plain(crashes),
    ]
}

/// On the box, then inside.
fn port(port: &PortView) -> String {
    format!("{}->{}", port.host, port.container)
}

/// What is booked of the cell, and whether it takes more; nothing of a daemon that does not tell.
fn cell(cell: &CellView, now_ms: u64) -> String {
    let CapacityView { total, taken, .. } = &cell.capacity;
    if *total == AmountView::default() {
        return String::new();
    }
    let zone = if cell.zone.is_empty() { String::new() } else { format!(" in {}", cell.zone) };
    let mut out = format!(
        "cell {}{zone}: booked: memory {}, disk {}, containers {}/{}\n",
        clean(&cell.id),
        share(taken.memory_bytes, total.memory_bytes),
        share(taken.disk_bytes, total.disk_bytes),
        taken.containers,
        total.containers,
    );
    if let Some(drain) = &cell.drain {
        let since = ago(now_ms, drain.since_ms);
        let left = match &drain.left[..] {
            [] => String::new(),
            left => format!(", left are: {}", clean(&left.join(", "))),
        };
        out.push_str(&format!("{} for {since}{left}\n", clean(&drain.state)));
    }
    out
}

/// `terrarium status`: the box, the list, and what is wrong with whom.
pub fn status(version: &str, site: &BoxView, apps: &[AppView], now_ms: u64, color: bool) -> String {
    let bad: Vec<&AppView> = apps.iter().filter(|app| health(app) == Health::Bad).collect();
    let of_box = (!site.problems.is_empty()).then(|| "the box is not healthy".to_owned());
    let of_apps =
        (!bad.is_empty()).then(|| format!("{} of {} apps not healthy", bad.len(), apps.len()));
    let verdict = match of_box.into_iter().chain(of_apps).collect::<Vec<_>>() {
        none if none.is_empty() => Ink::Good.paint("healthy", color),
        some => Ink::Bad.paint(&some.join(", "), color),
    };
    let mut out = format!("terrarium {}: {verdict}\n", clean(version));
    let [free, total] = [site.disk_free_bytes, site.disk_total_bytes].map(size);
    let store = size(site.store_free_bytes);
    out.push_str(&format!("disk: {free} of {total} free; store: {store} free before it grows\n"));
    out.push_str(&cell(&site.cell, now_ms));
    out.push_str(&tasks::counts(&site.tasks));
    for problem in &site.problems {
        out.push_str(&format!("{} {}\n", Ink::Bad.paint("box:", color), clean(problem)));
    }
    out.push('\n');
    out.push_str(&self::apps(apps, now_ms, color));
    out.push_str(&containers(&site.garden, now_ms, color));
    for app in bad {
        let (name, why) = (&app.name, reason(app));
        out.push_str(&format!("\n{name}: {}; see `terrarium logs {name}`\n", clean(&why)));
    }
    apps.iter().filter_map(not_ready).for_each(|line| out.push_str(&line));
    out
}

/// The first instance of `app` that runs and gets no connections, with what its readiness check said,
/// and how many more there are; `None`: all that run are ready.
fn not_ready(app: &AppView) -> Option<String> {
    let mut all = app.processes.iter().flat_map(|process| {
        process
            .instances
            .iter()
            .filter(|one| one.ready == Some(false))
            .map(move |one| (process, one))
    });
    let (process, one) = all.next()?;
    let why = one.unready.as_deref().unwrap_or("its readiness check has not passed yet");
    let more = match all.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let (name, process, index) = (&app.name, clean(&process.name), one.index);
    let why = clean(why);
    Some(format!(
        "\n{name}: {process}/{index} is not ready: {why}{more}; see `terrarium explain {name}`\n"
    ))
}

/// Containers of Garden's clients; nothing when there are none.
fn containers(garden: &GardenView, now_ms: u64, color: bool) -> String {
    if garden.count == 0 {
        return String::new();
    }
    let plural = if garden.count == 1 { "" } else { "s" };
    let mut out = format!("\ngarden: {} container{plural}\n", garden.count);
    let mut table = Table::new("", &["HANDLE", "STATE", "PROCESSES", "MEMORY", "ADDRESS", "SINCE"]);
    for one in garden.containers.iter().take(CONTAINERS_MAX) {
        let memory = match (one.memory_bytes, one.memory_limit_bytes) {
            (None, _) => "-".into(),
            (Some(used), None) => size(used),
            (Some(used), Some(limit)) => share(used, limit),
        };
        let state = if one.state == "active" { Ink::Good } else { Ink::Dim };
        table.row([
            (shortened(&one.handle), Ink::Plain),
            (one.state.clone(), state),
            (one.processes.to_string(), Ink::Plain),
            (memory, Ink::Plain),
            (one.address.clone(), Ink::Plain),
            (ago(now_ms, one.since_ms), Ink::Plain),
        ]);
    }
    out.push_str(&table.render(color));
    let more = garden.count.saturating_sub(garden.containers.len().min(CONTAINERS_MAX));
    if more > 0 {
        out.push_str(&format!("and {more} more; `terrarium status --json` has all\n"));
    }
    out
}

/// A client may choose a handle of any length.
fn shortened(handle: &str) -> String {
    match handle.char_indices().nth(HANDLE_MAX) {
        Some((end, _)) => format!("{}...", &handle[..end]),
        None => handle.to_owned(),
    }
}

/// What one does that is not placed.
fn waits_how(one: &InstanceView) -> &'static str {
    match one.is_too_large() {
        true => "does not fit the box",
        false if one.waits_for_room() => "waits for room",
        false => "waits",
    }
}

/// What is wrong with an app that is not well.
pub fn reason(app: &AppView) -> String {
    let of = |process: &ProcessView| {
        let waits = process.instances.iter().find(|one| one.placement_error.is_some());
        let waits = waits.and_then(|one| {
            one.placement_error.as_ref().map(|why| format!("it {}: {why}", waits_how(one)))
        });
        let crashed = process.instances.iter().filter(|one| one.state != "finished");
        waits.or_else(|| crashed.filter_map(|one| one.crash_reason.clone()).next())
    };
    let found = app.reason.clone().or_else(|| app.processes.iter().find_map(of));
    found.unwrap_or_else(|| format!("it is {}", app.state))
}

/// `2026-11-21T02:00:00.123Z [APP/PROC/WEB/0] OUT text` and a newline.
pub fn log_line(line: &LogLine, color: bool) -> String {
    let source = format!("[{}/{}]", clean(&line.source).replace('\t', " "), line.index);
    let (stream, ink) = if line.err { ("ERR", Ink::Bad) } else { ("OUT", Ink::Plain) };
    let head = Ink::Dim.paint(&format!("{} {source}", utc(line.time_ms)), color);
    format!("{head} {} {}\n", ink.paint(stream, color), clean(&line.text))
}

/// Where a running app answers: `http://127.0.0.1:8080`, published ports first.
pub fn addresses(app: &AppView) -> Vec<String> {
    let instances = app.processes.iter().flat_map(|process| &process.instances);
    let ports: Vec<&PortView> = instances.flat_map(|instance| &instance.ports).collect();
    let mut numbers: Vec<u16> = ports.iter().filter_map(|port| port.publish).collect();
    if numbers.is_empty() {
        numbers = ports.iter().map(|port| port.host).collect();
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::fake::{container, line, site, view};
    use crate::model::view::{ContainerView, DrainView};

    const NOW: u64 = 301_000;

    #[test]
    fn the_list_is_one_line_for_each_app() {
        let mut two = view("two-processes", "stopped");
        two.processes.push(ProcessView { name: "worker".into(), ..two.processes[0].clone() });
        two.processes[1].instances[0].ports.clear();
        let list = [view("web", "running"), two, view("api", "crashed")];
        let expected = "\
NAME           STATE    INSTANCES           MEMORY      DISK     PORTS  SINCE
web            running  1/1                 12.3M/256M  4K/512M  8080   5m
two-processes  stopped  web:0/1 worker:0/1  24.6M/512M  8K/1G    8080   5m
api            crashed  0/1                 12.3M/256M  4K/512M  8080   5m
";
        assert_eq!(apps(&list, NOW, false), expected);
        assert_eq!(apps(&[], NOW, false), "no apps; `terrarium apply FILE` makes one\n");
    }

    #[test]
    fn one_app_shows_its_instances() {
        let mut crashed = view("web", "crashed");
        crashed.processes[0].instances[0].crash_count = 2;
        crashed.processes[0].instances[0].crash_reason = Some("exit\u{1b}[2J".into());
        let expected = "\
name       web
state      crashed
reason     exit status 1
manifest   /apps/web.toml
stack      tiny
buildpack  procfile
published  8080

web: 0 of 1 running, memory 256M, disk 512M
  command  serve
  #  STATE    SINCE  CPU          MEMORY      DISK     ADDRESS     PORTS        CRASHES
  0  crashed  5m     1.50s 12.5%  12.3M/256M  4K/512M  10.254.0.2  61000->8080  2 (exit\\x1b[2J)
";
        assert_eq!(app(&crashed, NOW, false), expected);
        let pushed = Some("/srv/web".to_owned());
        let pushed = AppView { pushed, manifest: String::new(), ..crashed };
        let expected = expected.replace("manifest   /apps/web.toml", "pushed     /srv/web");
        assert_eq!(app(&pushed, NOW, false), expected);
    }

    #[test]
    fn one_screen_says_what_is_wrong() {
        let list = [view("web", "running"), view("api", "crashed")];
        let text = status("0.1.0", &site(&[]), &list, NOW, false);
        let head = "terrarium 0.1.0: 1 of 2 apps not healthy\n\
                    disk: 12G of 50G free; store: 800M free before it grows\n\nNAME";
        assert!(text.starts_with(head), "{text}");
        assert!(text.ends_with("\napi: exit status 1; see `terrarium logs api`\n"), "{text}");
        let text = status("0.1.0", &site(&[]), &list[..1], NOW, true);
        assert!(text.starts_with("terrarium 0.1.0: \u{1b}[32mhealthy\u{1b}[0m\n"), "{text}");
        let full = site(&["the disk is full".into()]);
        let text = status("0.1.0", &full, &list, NOW, false);
        let head = "terrarium 0.1.0: the box is not healthy, 1 of 2 apps not healthy\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("\nbox: the disk is full\n\nNAME"), "{text}");
    }

    #[test]
    fn one_that_runs_and_is_not_ready_is_told_with_what_its_check_said() {
        let mut web = view("web", "running");
        assert!(!status("0.1.0", &site(&[]), &[web.clone()], NOW, false).contains("not ready"));
        let why = Some("connection\nrefused".to_owned());
        let one = InstanceView {
            ready: Some(false),
            unready: why,
            ..web.processes[0].instances[0].clone()
        };
        web.processes[0].instances = vec![one.clone()];
        let text = status("0.1.0", &site(&[]), &[web.clone()], NOW, false);
        let line =
            |why: &str| format!("\nweb: web/0 is not ready: {why}; see `terrarium explain web`\n");
        assert!(text.ends_with(&line("connection\\nrefused")), "{text}");
        let ready = InstanceView { index: 1, ready: Some(true), unready: None, ..one.clone() };
        let other = InstanceView { index: 2, unready: None, ..one.clone() };
        web.processes[0].instances = vec![ready, other, one];
        let text = status("0.1.0", &site(&[]), &[web], NOW, false);
        let line = line("its readiness check has not passed yet, and 1 more").replace("/0", "/2");
        assert!(text.ends_with(&line), "{text}");
    }

    #[test]
    fn containers_of_gardens_clients_are_counted_and_the_first_are_shown() {
        let mut site = site(&[]);
        let plain = ContainerView { memory_limit_bytes: None, ..container("b/1\n") };
        let stopped =
            ContainerView { state: "stopped".into(), memory_bytes: None, ..container("c") };
        let containers = vec![container(&"a".repeat(49)), plain, stopped];
        site.garden = GardenView { count: 3, containers };
        let expected = format!(
            "\n\
garden: 3 containers
HANDLE{0}  STATE    PROCESSES  MEMORY      ADDRESS     SINCE
{1}...  active   2          12.3M/256M  10.254.0.6  5m
b/1\\n{0}   active   2          12.3M       10.254.0.6  5m
c{0}       stopped  2          -           10.254.0.6  5m
",
            " ".repeat(45),
            "a".repeat(48)
        );
        let text = status("0.1.0", &site, &[], NOW, false);
        assert!(text.starts_with("terrarium 0.1.0: healthy\n"), "{text}");
        assert!(text.ends_with(&expected), "{text}");
        let all: Vec<_> = (0..20).map(|n| container(&n.to_string())).collect();
        site.garden = GardenView { count: 250, containers: all };
        let text = status("0.1.0", &site, &[], NOW, false);
        let end = "\nand 230 more; `terrarium status --json` has all\n";
        assert!(text.contains("\ngarden: 250 containers\n") && text.ends_with(end), "{text}");
    }

    #[test]
    fn row_26_and_35_the_cell_tells_what_is_booked_and_whether_it_is_drained() {
        let amount = |gib: u64, containers| AmountView {
            memory_bytes: gib << 30,
            disk_bytes: gib << 31,
            containers,
        };
        let capacity =
            CapacityView { total: amount(8, 250), taken: amount(1, 3), left: amount(7, 247) };
        let of_cell =
            CellView { id: "box".into(), zone: "z1".into(), capacity, ..CellView::default() };
        let booked = "cell box in z1: booked: memory 1G/8G, disk 2G/16G, containers 3/250\n";
        assert_eq!(cell(&of_cell, NOW), booked);
        let drain = |left: &[&str]| {
            let left: Vec<String> = left.iter().map(|it| it.to_string()).collect();
            let state = if left.is_empty() { "drained" } else { "draining" };
            let drain = Some(DrainView { state: state.into(), since_ms: NOW - 60_000, left });
            cell(&CellView { drain, ..of_cell.clone() }, NOW)
        };
        assert_eq!(drain(&[]), format!("{booked}drained for 1m\n"));
        assert_eq!(
            drain(&["a/0", "b/1"]),
            format!("{booked}draining for 1m, left are: a/0, b/1\n")
        );
        assert_eq!(cell(&CellView::default(), NOW), "");
    }

    #[test]
    fn health_is_all_instances_running() {
        assert_eq!(health(&view("a", "running")), Health::Good);
        assert_eq!(health(&view("a", "stopped")), Health::Stopped);
        let mut short = view("a", "running");
        short.processes[0].desired = 2;
        let mut done = view("a", "finished");
        done.processes[0].running = 0;
        done.processes[0].instances[0].state = "finished".into();
        assert_eq!(health(&done), Health::Good);
        let waits = view("a", "waiting");
        for app in [short, waits, view("a", "crashed"), view("a", "staging"), view("a", "failed")] {
            assert_eq!(health(&app), Health::Bad);
        }
    }

    #[test]
    fn a_log_line_stays_one_line() {
        let out = LogLine { time_ms: 1_795_226_400_123, ..line("a\tb\u{1b}[2J\n") };
        let expected = "2026-11-21T02:00:00.123Z [APP/PROC/WEB/0] OUT a\tb\\x1b[2J\\n\n";
        assert_eq!(log_line(&out, false), expected);
        let err = LogLine { err: true, text: "x".into(), ..out };
        assert!(log_line(&err, false).ends_with("] ERR x\n"));
        assert!(log_line(&err, true).ends_with("\u{1b}[31mERR\u{1b}[0m x\n"));
    }

    #[test]
    fn addresses_are_the_published_ports_or_else_the_instances_own() {
        let mut app = view("a", "running");
        assert_eq!(addresses(&app), ["http://127.0.0.1:8080"]);
        app.processes[0].instances[0].ports[0].publish = None;
        assert_eq!(addresses(&app), ["http://127.0.0.1:61000"]);
    }
}
