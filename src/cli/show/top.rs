//! What instances use, as a person reads it. Pure.

use super::ink;
use crate::cli::text::{Ink, Table, ago, size};
use crate::model::view::{AppView, InstanceView, ProcessView};
use std::cmp::Reverse;

/// One instance with what it is of.
type Row<'a> = (&'a AppView, &'a ProcessView, &'a InstanceView);

/// `terrarium top`: the busiest first. Only what has a container uses anything.
pub fn top(apps: &[AppView], now_ms: u64, color: bool) -> String {
    let mut rows = rows(apps);
    if rows.is_empty() {
        return "nothing runs; `terrarium apps` shows what there is\n".into();
    }
    rows.sort_by_key(|(app, process, one)| {
        (Reverse((one.cpu_percent, one.memory_bytes)), &app.name, &process.name, one.index)
    });
    let heading = ["INSTANCE", "STATE", "CPU", "MEMORY", "DISK", "PIDS", "SINCE"];
    let mut table = Table::new("", &heading);
    for (app, process, one) in rows {
        let name = match process.name.as_str() {
            "web" => format!("{}/{}", app.name, one.index),
            other => format!("{}:{other}/{}", app.name, one.index),
        };
        let cpu = one.cpu_percent.map_or("-".into(), |percent| percent.to_string());
        table.row([
            (name, Ink::Plain),
            (one.state.clone(), ink(&one.state)),
            (cpu, Ink::Plain),
            share(one.memory_bytes, process.memory_bytes),
            share(one.disk_bytes, process.disk_bytes),
            (one.pids.map_or("-".into(), |count| count.to_string()), Ink::Plain),
            (ago(now_ms, one.since_ms), Ink::Plain),
        ]);
    }
    table.render(color)
}

/// Every instance that has a container.
fn rows(apps: &[AppView]) -> Vec<Row<'_>> {
    let processes = apps.iter().flat_map(|app| app.processes.iter().map(move |it| (app, it)));
    let instances = processes
        .flat_map(|(app, process)| process.instances.iter().map(move |one| (app, process, one)));
    instances.filter(|(_, _, one)| one.handle.is_some()).collect()
}

/// One of them was never measured before: what it uses of the processor is not known yet.
pub fn is_first_look(apps: &[AppView]) -> bool {
    rows(apps).iter().any(|(_, _, one)| one.cpu_ns.is_some() && one.cpu_percent.is_none())
}

/// What is used of what there is; nine tenths of it are worth a look. Limit 0: there is none.
fn share(used: Option<u64>, limit: u64) -> (String, Ink) {
    let Some(used) = used else { return ("-".into(), Ink::Plain) };
    let ink = match limit > 0 && used >= limit / 10 * 9 {
        true => Ink::Busy,
        false => Ink::Plain,
    };
    let limit = if limit == 0 { "-".into() } else { size(limit) };
    (format!("{}/{limit}", size(used)), ink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::fake::view;

    #[test]
    fn the_busiest_comes_first_and_what_has_no_container_is_left_out() {
        let (quiet, mut busy, mut gone) =
            (view("quiet", "running"), view("busy", "running"), view("gone", "crashed"));
        busy.processes[0].instances[0].cpu_percent = crate::unit::Percent::of(3, 4);
        busy.processes[0].instances[0].memory_bytes = Some(250 << 20);
        gone.processes.iter_mut().flat_map(|it| &mut it.instances).for_each(|it| it.handle = None);
        let text = top(&[quiet.clone(), gone, busy], 0, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("INSTANCE"), "{text}");
        assert!(lines[1].starts_with("busy/0"), "{text}");
        assert!(lines[1].contains("75") && lines[1].contains("250M/256M"), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("quiet/0")), "{text}");
        assert!(!text.contains("gone"), "{text}");
        assert!(!is_first_look(std::slice::from_ref(&quiet)));
        let mut first = quiet;
        first.processes[0].instances[0].cpu_ns = Some(1);
        first.processes[0].instances[0].cpu_percent = None;
        assert!(is_first_look(&[first]));
        assert!(top(&[], 0, false).starts_with("nothing runs"));
    }

    #[test]
    fn what_is_nearly_full_stands_out() {
        assert_eq!(share(Some(90), 100), ("90B/100B".into(), Ink::Busy));
        assert_eq!(share(Some(89), 100), ("89B/100B".into(), Ink::Plain));
        assert_eq!(share(Some(5), 0), ("5B/-".into(), Ink::Plain));
        assert_eq!(share(None, 1), ("-".into(), Ink::Plain));
    }
}
