use super::super::spec::ContainerSpec;
use super::*;
use crate::unit::{Digest, Slot};

#[test]
fn peas_that_are_written_down_at_the_same_time_are_all_there() {
    let dir = std::env::temp_dir().join(format!("depot-peas-{}", std::process::id()));
    let depot = Depot::open(&dir).expect("open");
    let web: Handle = "web-0".parse().expect("handle");
    fs::create_dir(depot.dir(&web)).expect("mkdir");
    let add = |disk: String, pea: &str| {
        let disk = disk.parse().expect("handle");
        depot.add_pea(&web, &disk, pea, &[Digest::of(pea.as_bytes())]).expect("add");
    };
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let add = &add;
            scope.spawn(move || {
                (0..50).for_each(|n| add(format!("pea-{writer}-{n}"), &format!("{writer}/{n}")));
            });
        }
    });
    // Of a daemon that was killed before its name was in place.
    fs::write(depot.dir(&web).join("peas/.pea-x"), "half").expect("a draft");
    let peas = depot.peas(&web).expect("peas");
    let layers = depot.pea_layers(&web).expect("layers");
    assert!(peas.iter().all(|(_, pea)| layers.contains(&vec![Digest::of(pea.as_bytes())])));
    fs::remove_dir_all(&dir).expect("clean");
    assert_eq!(peas.len(), 400);
    for (disk, pea) in peas {
        assert_eq!(disk.as_str(), format!("pea-{}", pea.replace('/', "-")));
    }
}

#[test]
fn what_was_read_at_the_start_is_as_it_was_written_last() {
    let dir = std::env::temp_dir().join(format!("depot-known-{}", std::process::id()));
    let depot = Depot::open(&dir).expect("open");
    let handle: Handle = "web-0".parse().expect("handle");
    let entry = |pid| Entry {
        format: FORMAT,
        spec: ContainerSpec::new(handle.clone(), vec![]),
        slot: Slot::new(7).expect("slot"),
        ports: Vec::new(),
        addresses: None,
        pid: Some((pid, 1)),
        boot: String::new(),
    };
    depot.make(&entry(1)).expect("make");
    depot.remember();
    let pid = || depot.read(&handle).expect("read").and_then(|it| it.pid).map(|(pid, _)| pid);
    assert_eq!(pid(), Some(1));
    depot.write(&entry(2)).expect("write");
    assert_eq!(pid(), Some(2));
    // Nobody else writes them, so this is not seen until readings are of the file again.
    let text = serde_json::to_vec(&entry(3)).expect("text");
    fs::write(depot.dir(&handle).join(ENTRY), text).expect("write");
    assert_eq!(pid(), Some(2));
    depot.forget_known();
    assert_eq!(pid(), Some(3));
    depot.remember();
    assert_eq!(pid(), Some(3));
    depot.remove(&handle).expect("remove");
    assert_eq!(pid(), None);
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn of_a_newer_entry_as_much_is_told_as_there_is() {
    let dir = std::env::temp_dir().join(format!("depot-newer-{}", std::process::id()));
    let depot = Depot::open(&dir).expect("open");
    let handle: Handle = "web-0".parse().expect("handle");
    let spec = ContainerSpec { owner: "me".into(), ..ContainerSpec::new(handle.clone(), vec![]) };
    let (slot, ports) = (Slot::new(7).expect("slot"), vec![(61_001, 80)]);
    let entry = Entry {
        format: FORMAT,
        spec,
        slot,
        ports: ports.clone(),
        addresses: None,
        pid: None,
        boot: String::new(),
    };
    depot.make(&entry).expect("make");
    assert_eq!(depot.read(&handle).expect("read"), Some(entry));
    let file = depot.dir(&handle).join("container.json");
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut all = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        change(&mut all);
        fs::write(&file, all.to_string()).expect("write");
        (depot.read(&handle).expect_err("refused").kind(), depot.glimpse(&handle))
    };
    let known = Glimpse {
        slot: Some(slot),
        ports,
        owner: "me".into(),
        is_apps: true,
        ..Glimpse::default()
    };
    let (kind, glimpse) = edit(&|all| all["format"] = 2.into());
    assert_eq!((kind, &glimpse), (io::ErrorKind::Unsupported, &known));
    let (kind, glimpse) = edit(&|all| {
        all["spec"]["posture"] = "caged".into();
        all["slot"] = "seven".into();
    });
    assert_eq!(kind, io::ErrorKind::Unsupported);
    assert_eq!(glimpse, Glimpse { slot: None, is_apps: false, ..known });
    fs::write(&file, "{").expect("write");
    assert_eq!(depot.read(&handle).expect_err("broken").kind(), io::ErrorKind::InvalidData);
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn what_was_made_ahead_becomes_a_container_in_one_step() {
    let dir = std::env::temp_dir().join(format!("depot-reserve-{}", std::process::id()));
    let depot = Depot::open(&dir).expect("open");
    let slot = |n| Slot::new(n).expect("slot");
    assert_eq!(depot.reserve().expect("none yet"), []);
    let us = IdMap::Range(crate::unit::IdRange { base: crate::sys::process::effective_uid() });
    for n in [3, 70, 3] {
        depot.make_reserve(slot(n), us).expect("make");
    }
    let mut found = depot.reserve().expect("read");
    found.sort();
    assert_eq!(found, [slot(3), slot(70)]);
    assert!(depot.list().expect("list").is_empty());

    let handle: Handle = "web-0".parse().expect("handle");
    let spec = ContainerSpec::new(handle.clone(), vec![]);
    let (ports, boot) = (Vec::new(), String::new());
    let slot = slot(3);
    let mut entry = Entry { format: FORMAT, spec, slot, ports, addresses: None, pid: None, boot };
    depot.make_of_reserve(&entry).expect("make");
    assert_eq!(depot.read(&handle).expect("read").as_ref(), Some(&entry));
    // The draft is first the empty one, then what the entry was, then what a killed daemon has left.
    for pid in [7, 8, 9] {
        entry.pid = Some((pid, 7));
        depot.write(&entry).expect("write");
        assert_eq!(depot.read(&handle).expect("read").as_ref(), Some(&entry));
    }
    let draft = depot.dir(&handle).join(NEXT_ENTRY);
    assert!(fs::read_to_string(&draft).expect("the one before").contains("[8,7]"));
    fs::write(&draft, "{\"format\":1,").expect("half a draft");
    entry.pid = None;
    depot.write(&entry).expect("write");
    assert_eq!(depot.read(&handle).expect("read").as_ref(), Some(&entry));
    assert_eq!(depot.list().expect("list"), [handle]);
    assert_eq!(depot.reserve().expect("read").len(), 1);
    depot.forget_reserve(slot).expect("gone already");
    depot.close_reserve();
    assert!(depot.reserve.exists(), "while there is one");
    let last = Slot::new(70).expect("slot");
    let spec = ContainerSpec::new("web-1".parse().expect("handle"), vec![]);
    depot.make_of_reserve(&Entry { spec, slot: last, ..entry }).expect("make");
    depot.close_reserve();
    assert!(!depot.reserve.exists(), "after the last one");
    fs::remove_dir_all(&dir).expect("clean");
}

#[test]
fn a_handle_that_is_no_name_is_not_listed() {
    let dir = std::env::temp_dir().join(format!("depot-{}", std::process::id()));
    let depot = Depot::open(&dir).expect("open");
    fs::create_dir(dir.join("web-0")).expect("mkdir");
    fs::create_dir(dir.join("..x")).expect("mkdir");
    let found = depot.list().expect("list");
    fs::remove_dir_all(&dir).expect("clean");
    assert_eq!(found, ["web-0".parse().expect("handle")]);
}
