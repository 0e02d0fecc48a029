//! run: an app for as long as somebody looks at it.

use super::*;
use crate::cli::manifests::{self, Loaded};
use crate::cli::run;
use crate::cli::signals::Signals;
use smol::stream::StreamExt;

/// The manifest of `web`, with these lines more.
fn declared(world: &World, lines: &str) -> Loaded {
    let text = format!("name = \"web\"\nsource.path = \".\"\n{lines}\n");
    let file = world.file("web.toml", &text);
    manifests::load(&mut world.ui(&Global::default()), &[file]).expect("manifest").remove(0)
}

/// Signals that the test sends.
fn fake_signals() -> (Sender<i32>, Signals) {
    let (send, signals) = bounded(4);
    (send, signals.boxed())
}

/// Runs the app, and presses Ctrl-C when its log is being followed, after `before`; the exit code.
fn run_until_ctrl_c(world: &World, before: impl FnOnce()) -> u8 {
    let manifest = declared(world, "");
    let (interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    let remote = world.remote();
    let running = run::foreground(&mut ui, &remote, &manifest, &mut signals);
    let press = async {
        while !world.fake.calls().iter().any(|call| call.starts_with("logs web")) {
            future::yield_now().await;
        }
        before();
        interrupt.send(2).await.expect("send");
    };
    let (code, ()) = smol::block_on(future::zip(running, press));
    code.expect("no error")
}

/// Runs the app, and nobody presses anything.
fn run_alone(world: &World, lines: &str) -> Result<u8, CliError> {
    let manifest = declared(world, lines);
    let (_interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    smol::block_on(run::foreground(&mut ui, &world.remote(), &manifest, &mut signals))
}

#[test]
fn run_follows_the_app_and_removes_it_after_ctrl_c() {
    let world = World::new(&[]);
    assert_eq!(run_until_ctrl_c(&world, || ()), 0);
    assert_eq!(world.fake.calls().last().map(String::as_str), Some("delete web"));
    let err = world.err.take();
    assert!(err.contains("web: runs at http://127.0.0.1:8080; Ctrl-C removes it\n"), "{err}");
    assert!(err.ends_with("web: removing it\nweb: removed\n"), "{err}");
    assert!(world.out.take().contains("[STG/0] OUT -----> procfile\n"));
}

#[test]
fn run_leaves_an_app_alone_that_somebody_has_taken_over() {
    let world = World::new(&[]);
    assert_eq!(run_until_ctrl_c(&world, || world.fake.take_over("web")), 0);
    assert!(!world.fake.calls().iter().any(|call| call.starts_with("delete")));
    assert!(world.err.take().ends_with("web: somebody has applied it meanwhile; it stays\n"));
}

#[test]
fn run_ends_when_staging_fails_or_the_app_crashes_for_good() {
    for (text, code) in [("# broken", 1), ("# crash", 3)] {
        let result = run_alone(&World::new(&[]), text);
        assert_eq!(result.unwrap_or_else(|err| err.code()), code, "{text}");
    }
}

#[test]
fn run_has_nothing_to_remove_when_the_manifest_is_refused() {
    let world = World::new(&[]);
    assert_eq!(run_alone(&world, "# unfit").expect_err("refused").code(), 5);
    assert!(world.err.take().starts_with("error: stack `x`"));
    assert!(world.fake.calls().is_empty());
}

#[test]
fn run_leaves_an_app_alone_that_was_there_before() {
    let world = World::new(&[("web", "running")]);
    assert_eq!(run_alone(&world, "").expect_err("refused").code(), 9);
    assert!(world.fake.calls().is_empty());
}
