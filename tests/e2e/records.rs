//! Records that somebody has changed, and many wishes at once.

use super::lab::Lab;
use super::{PORT, WEB};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use terrarium::cell::store::RecordStore;

const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n";

/// Row 18: a record that was deleted by hand is restored, and what it was about is no orphan.
#[test]
fn a_record_that_was_deleted_by_hand_is_restored() {
    let mut lab = Lab::start("records");
    let manifest = format!("{SMALL}instances = 2\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    let handle = |lab: &Lab, index| lab.instance("web", index)["handle"].clone();
    lab.until_state("web", "running");
    let old = [handle(&lab, 0), handle(&lab, 1)];
    lab.end_daemon(Signal::SIGKILL);
    {
        let path = find(&lab.root, "redb");
        let store = RecordStore::open(&path).expect("records");
        let records = store.load().expect("read");
        let (key, _) = records.actual.iter().next().expect("the record of instance 0");
        assert_eq!(key.1, 0);
        store.put_actual(key, None).expect("delete");
    }
    lab.serve();
    lab.until("both run", |lab| (lab.view("web")["processes"][0]["running"] == 2).then_some(()));
    assert_ne!(handle(&lab, 0), old[0], "made anew: nobody knew whose the old one was");
    assert_eq!(handle(&lab, 1), old[1], "it never noticed");
    let depot = lab.root.join("var/lib/terrarium/depot");
    let left = || std::fs::read_dir(&depot).expect("depot").count();
    lab.until("the old container is gone", |_| (left() == 2).then_some(()));
    lab.finish();
}

/// Records that no program can read: the daemon begins, what it cannot read of an instance is made anew, and
/// an app is set aside until somebody declares it.
#[test]
fn records_that_cannot_be_read_keep_no_daemon_from_beginning() {
    let mut lab = Lab::start("unread");
    let path = lab.app("web", WEB, &format!("{SMALL}\n{PORT}"));
    let other = lab.app("other", WEB, &format!("{SMALL}\n{PORT}"));
    lab.ok(&["apply", &path, &other]);
    for name in ["web", "other"] {
        lab.until_state(name, "running");
    }
    lab.end_daemon(Signal::SIGKILL);
    {
        let database = redb::Database::open(find(&lab.root, "redb")).expect("records");
        let write = database.begin_write().expect("write");
        for (name, key) in [("apps", "web"), ("actual_lrps", "other:web/0"), ("cell", "drain")] {
            let table = redb::TableDefinition::<&str, &[u8]>::new(name);
            let mut table = write.open_table(table).expect("table");
            table.insert(key, &b"{\"generation\": \"of a later program\"}"[..]).expect("insert");
        }
        write.commit().expect("commit");
    }
    lab.serve();
    lab.until_state("other", "running");
    for _ in 0..2 {
        let status = lab.run(&["status"]);
        let told = "app web is set aside, as its record cannot be read";
        assert!(status.out.contains(told) && status.code != 0, "{}{}", status.out, status.err);
        lab.end_daemon(Signal::SIGTERM);
        lab.serve();
    }
    lab.ok(&["apply", &path]);
    lab.until_state("web", "running");
    let status = lab.run(&["status"]).out;
    assert!(!status.contains("set aside"), "{status}");
    lab.finish();
}

/// The one file below `dir` that ends so.
fn find(dir: &std::path::Path, end: &str) -> std::path::PathBuf {
    let mut left = vec![dir.join("var/lib/terrarium")];
    while let Some(dir) = left.pop() {
        for item in std::fs::read_dir(&dir).expect("directory").flatten() {
            match item.path() {
                path if path.is_dir() && !path.ends_with("store") => left.push(path),
                path if path.extension().is_some_and(|it| it == end) => return path,
                _ => {}
            }
        }
    }
    panic!("no records below {}", dir.display());
}

/// Row 33: whatever is asked for and how fast, what is done to one instance comes one after the
/// other: an index has at most one container at a time, which is made, destroyed, and then the next.
#[test]
fn operations_of_one_instance_never_overlap() {
    let lab = Lab::start("stress");
    let manifest = format!(
        "{SMALL}instances = 3\n\n[rollout]\nstrategy = \"recreate\"\nmax_in_flight = 3\n\n{PORT}"
    );
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    std::thread::scope(|scope| {
        let lab = &lab;
        let wishes = |seed: u64| {
            let verbs = [
                "scale web=1",
                "restart web/0",
                "restart web",
                "scale web=4",
                "restart web/1",
                "scale web=3",
            ];
            let mut random = seed;
            for _ in 0..10 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let words: Vec<&str> =
                    verbs[(random >> 33) as usize % verbs.len()].split(' ').collect();
                // One of an index that is not there at the moment is refused.
                lab.run(&words);
            }
        };
        for seed in 1..4 {
            scope.spawn(move || wishes(seed));
        }
    });
    lab.ok(&["scale", "web=3"]);
    let view = lab.until_state("web", "running");
    assert_eq!(view["processes"][0]["running"], 3, "{view:#}");
    let lines = lab.logged("web", "[CELL/");
    let mut alive: BTreeMap<String, String> = BTreeMap::new();
    let mut made = 0;
    for line in &lines {
        let index = line.split("[CELL/").nth(1).and_then(|rest| rest.split(']').next());
        let index = index.expect("an index").to_owned();
        let handle = line.rsplit(' ').next().unwrap_or_default().to_owned();
        if line.contains("Cell creating container for instance") {
            let before = alive.insert(index, handle.clone());
            assert_eq!(before, None, "{handle} was made beside it\n{}", lines.join("\n"));
            made += 1;
        } else if line.contains("Cell successfully destroyed container for instance") {
            assert_eq!(alive.remove(&index), Some(handle), "{}", lines.join("\n"));
        }
    }
    assert!(made > 5, "{made} containers");
    assert_eq!(alive.len(), 3, "{alive:?}");
    lab.finish();
}
