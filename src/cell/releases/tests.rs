use super::*;
use crate::model::action::Action;
use crate::model::container::LrpContainer;
use crate::model::task::StagingResult;
use crate::unit::Digest;
use std::path::Path;

/// A release of an app with this in its `[run]`, and what else stands in its manifest.
fn release(run: &str) -> Release {
    let text = format!("name = \"web\"\nsource.path = \".\"\n[run]\n{run}");
    let manifest = crate::config::manifest::parse(&text, "web.toml", Path::new("/x"))
        .unwrap_or_else(|bad| panic!("{}", bad.render(false)));
    let types = [("web".to_owned(), "./run".to_owned())].into();
    Release {
        manifest,
        fingerprint: Digest::of(run.as_bytes()),
        result: StagingResult { process_types: types, ..StagingResult::default() },
        stack: Digest::of(b"stack"),
        droplet: Digest::of(run.as_bytes()),
        image: None,
        container: None,
    }
}

/// An LRP by record.
pub fn container() -> LrpContainer {
    LrpContainer {
        guid: "App_1".into(),
        rootfs: "preloaded:tiny".parse().expect("a rootfs"),
        limits: Default::default(),
        ports: vec![8080],
        egress: Vec::new(),
        env: Vec::new(),
        setup: None,
        action: Action::Serial(Vec::new()),
        monitor: None,
        checks: Vec::new(),
        readiness_checks: Vec::new(),
        sidecars: Vec::new(),
        start_timeout: Default::default(),
        log_source: String::new(),
        source: "{}".into(),
        extras: Default::default(),
        desired: None,
    }
}

pub fn app(run: &str) -> AppRecord {
    let release = release(run);
    let declared = AppRecord::new(release.manifest.clone(), "/x/web.toml".into(), 1);
    AppRecord { staged: Some(1), release: Some(release), ..declared }
}

const GOOD: &str = "memory = \"32MiB\"";
const NEXT: &str = "memory = \"33MiB\"";
const THIRD: &str = "memory = \"34MiB\"";

#[test]
fn only_a_release_that_ran_is_gone_back_to() {
    let mut app = app(GOOD);
    replace(&mut app, release(NEXT));
    assert_eq!((app.last_good.as_ref(), app.proven), (None, false), "the first one never ran");
    let (mut app, said) = judged(&app, Verdict::Good).expect("it is good");
    assert_eq!((app.proven, said), (true, None));
    replace(&mut app, release(THIRD));
    assert_eq!((app.last_good.as_ref(), app.proven), (Some(&release(NEXT)), false));
    // Another one before that was known: still the one that ran.
    replace(&mut app, release(GOOD));
    assert_eq!(app.last_good.as_ref(), Some(&release(NEXT)));
    // The same again changes nothing.
    let before = app.clone();
    replace(&mut app, release(GOOD));
    assert_eq!(app, before);
}

#[test]
fn a_bad_release_gives_way_and_the_next_bad_one_has_nowhere_to_go() {
    let mut app = AppRecord { proven: true, ..app(GOOD) };
    replace(&mut app, release(NEXT));
    let bad = || Verdict::Bad("it fell".into());
    assert_eq!(judged(&app, Verdict::Open(None)), None);
    let (back, said) = judged(&app, bad()).expect("it goes back");
    let why = "the new version failed: it fell; the version before runs again";
    assert_eq!((back.failure.as_deref(), said.as_deref()), (Some(why), Some(why)));
    assert_eq!((back.release.as_ref(), back.last_good.as_ref()), (Some(&release(GOOD)), None));
    assert_eq!(back.staged, Some(back.generation), "it is not staged again by itself");
    assert_eq!(judged(&back, bad()), None);
    // Whose manifest wants no way back has none.
    let mut stubborn = AppRecord { proven: true, ..self::app(GOOD) };
    replace(&mut stubborn, release(&format!("{NEXT}\n[rollout]\nrollback = false")));
    assert_eq!(judged(&stubborn, bad()), None);
    assert!(is_on_trial(&app) && !is_on_trial(&stubborn) && !is_on_trial(&back));
}

/// Row 8: what an update may change without a new version, and what makes one.
#[test]
fn what_changes_around_a_running_instance_makes_no_new_version() {
    let version = |run: &str| desired(&app(run)).remove(0).version;
    let ports = "[[port]]\ncontainer = 8080\n";
    let first = version(&format!("{GOOD}\n{ports}"));
    for same in [
        format!("{GOOD}\ninstances = 5\n{ports}"),
        format!("{GOOD}\n{ports}publish = 80\n"),
        format!("{GOOD}\n{ports}[restart]\npolicy = \"never\"\n"),
        format!("{GOOD}\n{ports}[rollout]\nmax_in_flight = 3\nstrategy = \"recreate\"\n"),
        format!("{GOOD}\n{ports}[build]\nmemory = \"1GiB\"\n"),
    ] {
        // The same bits: what is declared around them differs.
        let mut record = app(&same);
        let release = record.release.as_mut().expect("there");
        release.droplet = Digest::of(format!("{GOOD}\n{ports}").as_bytes());
        assert_eq!(desired(&record).remove(0).version, first, "{same}");
    }
    let other = version(&format!("{NEXT}\n{ports}"));
    assert_ne!(other, first);
    let restarted = AppRecord { restarts: 1, ..app(&format!("{GOOD}\n{ports}")) };
    assert_ne!(desired(&restarted).remove(0).version, first);
}
