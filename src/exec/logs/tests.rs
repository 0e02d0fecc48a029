use super::*;
use std::collections::{BTreeMap, BTreeSet};

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("logs-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn keep(file_bytes: Bytes, files: u32) -> Keep {
    Keep { file_bytes, files, rate: Rate::Unlimited, lines: None, journal: false }
}

#[test]
fn a_follower_gets_the_past_and_then_each_new_line_once() {
    let dir = scratch("follow");
    let logs = Logs::open(&dir, keep(Bytes::mib(1), 2)).expect("open");
    let log = logs.app(&"web".parse().expect("name"));
    (0..5).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
    let (past, live) = log.follow(2, |_| true);
    log.write("APP", 0, true, "line 5");
    let texts: Vec<_> = past.into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["line 3", "line 4"]);
    assert_eq!(live.try_recv().expect("live").text, "line 5");
    assert!(live.try_recv().is_err());
    logs.remove(&"web".parse().expect("name")).expect("remove");
    assert!(live.try_recv().is_err_and(|err| err.is_closed()));
    assert_eq!(fs::read_dir(&dir).expect("dir").count(), 0);
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn a_line_that_was_torn_takes_no_other_along() {
    let dir = scratch("torn");
    let logs = Logs::open(&dir, keep(Bytes::mib(1), 2)).expect("open");
    let web = "web".parse().expect("name");
    logs.app(&web).write("APP", 0, false, "before");
    let path = dir.join("web.log");
    let mut bytes = fs::read(&path).expect("read");
    bytes.extend_from_slice(b"{\"time_ms\":17,\"te\xff");
    fs::write(&path, bytes).expect("tear");
    let log = Logs::open(&dir, keep(Bytes::mib(1), 2)).expect("open").app(&web);
    assert_eq!(log.follow(0, |_| true).0, []);
    log.write("APP", 0, false, "after");
    let texts: Vec<_> = log.last(9, |_| true).into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["before", "after"]);
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn row_52_the_disk_holds_as_many_files_of_the_given_size_as_are_set_and_no_more() {
    for files in [1, 2, 5] {
        let dir = scratch(&format!("bound-{files}"));
        let logs = Logs::open(&dir, keep(Bytes::new(4096), files)).expect("open");
        let web = "web".parse().expect("name");
        let log = logs.app(&web);
        (0..1000).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
        let mut sizes = BTreeMap::new();
        for item in fs::read_dir(&dir).expect("dir").flatten() {
            let name = item.file_name().into_string().expect("UTF-8");
            sizes.insert(name, item.metadata().expect("file").len());
        }
        let old = (1..files).map(|number| format!("web.log.{number}"));
        let names: Vec<String> = ["web.log".to_owned()].into_iter().chain(old).collect();
        assert_eq!(sizes.keys().cloned().collect::<Vec<_>>(), names);
        assert!(sizes.values().all(|size| *size <= 4096), "{sizes:?}");
        assert!(sizes.iter().skip(1).all(|(_, size)| *size > 4096 - 128), "{sizes:?}");

        // What is there is whole and in order, and the newest.
        let texts: Vec<_> = log.last(9999, |_| true).into_iter().map(|line| line.text).collect();
        let first = 1000 - texts.len();
        assert_eq!(texts, (first..1000).map(|n| format!("line {n}")).collect::<Vec<_>>());
        assert_eq!(log.last(1, |_| true)[0].text, "line 999");
        logs.remove(&web).expect("remove");
        assert_eq!(fs::read_dir(&dir).expect("dir").count(), 0);
        fs::remove_dir_all(&dir).expect("clean");
    }
}

#[test]
fn what_is_not_wanted_does_not_count_across_files_either() {
    let dir = scratch("wanted");
    let logs = Logs::open(&dir, keep(Bytes::new(1024), 9)).expect("open");
    let log = logs.app(&"web".parse().expect("name"));
    (0..60).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
    let sevens = log.last(3, |line| line.text.ends_with('7'));
    let sevens: Vec<&str> = sevens.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(sevens, ["line 37", "line 47", "line 57"]);
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn files_that_a_smaller_setting_no_longer_keeps_go_at_the_start() {
    let dir = scratch("fewer");
    let logs = Logs::open(&dir, keep(Bytes::new(4096), 5)).expect("open");
    let log = logs.app(&"web".parse().expect("name"));
    (0..1000).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
    for foreign in ["notes.txt", "notes.9"] {
        fs::write(dir.join(foreign), "").expect("somebody else's");
    }
    let log = Logs::open(&dir, keep(Bytes::new(4096), 2))
        .expect("open")
        .app(&"web".parse().expect("name"));
    let names = fs::read_dir(&dir).expect("dir").flatten();
    let names: BTreeSet<_> =
        names.map(|item| item.file_name().into_string().expect("UTF-8")).collect();
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        ["notes.9", "notes.txt", "web.log", "web.log.1"]
    );
    assert_eq!(log.last(1, |_| true)[0].text, "line 999");
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn a_follower_who_has_left_a_silent_app_is_let_go_of() {
    let dir = scratch("gone");
    let logs = Logs::open(&dir, keep(Bytes::mib(1), 2)).expect("open");
    let log = logs.app(&"web".parse().expect("name"));
    let (_, stays) = log.follow(0, |_| true);
    let (_, leaves) = log.follow(0, |_| true);
    drop(leaves);
    log.drop_gone();
    assert_eq!(log.inner().followers.len(), 1);
    log.write("APP", 0, false, "line");
    assert_eq!(stays.try_recv().expect("live").text, "line");
    let names: Vec<String> = logs.names().expect("read").iter().map(|it| it.to_string()).collect();
    assert_eq!(names, ["web"]);
    fs::remove_dir_all(&dir).expect("clean");
}
