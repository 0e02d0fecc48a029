//! `push`: which port an app gets, and when that is told.

use super::*;
use crate::unit::AppName;

/// A directory to be pushed, with this manifest.
fn app(world: &World, manifest: &str) -> String {
    let dir = world.dir.path().join("shop");
    std::fs::create_dir_all(&dir).expect("directory");
    std::fs::write(dir.join("Procfile"), "web: ./run").expect("Procfile");
    if !manifest.is_empty() {
        std::fs::write(dir.join("terrarium.toml"), manifest).expect("manifest");
    }
    dir.display().to_string()
}

/// The ports that `name` has in the end.
fn published(world: &World, name: &str) -> Vec<u16> {
    let name: AppName = name.parse().expect("name");
    let apps = smol::block_on(world.remote().apps()).expect("the apps");
    apps.into_iter().find(|app| app.name == name).map(|app| app.published).unwrap_or_default()
}

/// The ports that were told.
fn told(err: &str) -> Vec<u16> {
    let after = err.split("gets port ").skip(1);
    after.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn the_port_that_is_told_is_the_one_that_the_app_gets_whoever_was_quicker() {
    let world = World::new(&[]);
    let dir = app(&world, "");
    for rival in ["first", "second"] {
        world.fake.add_rival(rival);
    }
    let (code, _, err) = world.run(&format!("push {dir} -n web --no-start"));
    assert_eq!(code, 0, "{err}");
    let port = published(&world, "web");
    assert_eq!((port.len(), told(&err)), (1, port.clone()), "{err}");
    assert!(published(&world, "first") != port && published(&world, "second") != port, "{err}");
    // The daemon forgets what was sent with what it has refused.
    let sent = world.fake.calls().iter().filter(|call| call.starts_with("source of web")).count();
    assert_eq!(sent, 3, "{:?}", world.fake.calls());
    assert_eq!(err.matches("was taken meanwhile; sending again").count(), 2, "{err}");
    // Not for ever: a directory may be large.
    for rival in ["fourth", "fifth", "sixth", "seventh"] {
        world.fake.add_rival(rival);
    }
    let (code, _, err) = world.run(&format!("push {dir} -n late --no-start"));
    assert!(code == 9 && told(&err).is_empty(), "{code} {err}");
    assert!(err.contains("is published by app fourth"), "{err}");
    let sent = world.fake.calls().iter().filter(|call| call.starts_with("source of late")).count();
    assert_eq!(sent, 4, "{:?}", world.fake.calls());
    // Who names one is told that somebody has it.
    world.fake.add_rival("third");
    let (code, _, err) = world.run(&format!("push {dir} -n other --no-start --port 9000"));
    assert!(code == 9 && err.contains("is published by app third"), "{code} {err}");
}

#[test]
fn no_port_is_told_of_a_push_that_was_not_taken() {
    let world = World::new(&[]);
    let refused = "name = \"web\"\n[env]\nA = \"# conflict\"\n[[port]]\n";
    let dir = app(&world, refused);
    let (code, _, err) = world.run(&format!("push {dir}"));
    assert!(code == 9 && told(&err).is_empty(), "{code} {err}");
    // Nor of one for which nobody knows what is free.
    let (code, _, err) = world.run(&format!("-H unix:///nowhere/s push {dir}"));
    assert!(code == 6 && told(&err).is_empty(), "{code} {err}");
    assert!(published(&world, "web").is_empty());
}

#[test]
fn a_manifest_of_ours_may_leave_source_and_port_to_the_push() {
    let world = World::new(&[]);
    let dir = app(&world, "name = \"web\"\n[[port]]\n");
    let (code, _, err) = world.run(&format!("push {dir} --no-wait"));
    assert_eq!((code, told(&err)), (0, published(&world, "web")), "{err}");
    assert_eq!(published(&world, "web").len(), 1, "{err}");
    let (code, _, err) = world.run(&format!("push {dir} -n shop --no-wait --no-route"));
    assert!(code == 0 && published(&world, "shop").is_empty(), "{code} {err}");
    // Who was to have none is not opened by the next push, nor who says so at once.
    let (code, _, err) = world.run(&format!("push {dir} -n shop --no-wait"));
    assert!(code == 0 && published(&world, "shop").is_empty(), "{code} {err}");
    assert!(err.contains("shop: stays without a port of the box"), "{err}");
    let none = app(&world, "name = \"none\"\n[[port]]\npublish = false\n");
    let (code, _, err) = world.run(&format!("push {none} --no-wait"));
    assert!(code == 0 && published(&world, "none").is_empty(), "{code} {err}");
    let dir = app(&world, "name = \"web\"\n[[port]]\n");
    // Another's port is refused before anything is sent.
    let port = published(&world, "web")[0];
    let (code, _, err) = world.run(&format!("push {dir} -n third --port {port}"));
    assert!(code == 9 && err.contains("is published by app web"), "{code} {err}");
    assert!(!err.contains("sending"), "{err}");
}

#[test]
fn a_word_that_is_nothing_becomes_no_app() {
    let world = World::new(&[]);
    let (code, _, err) = world.run("push nodir");
    assert!(code == 2 && err.contains("there is no directory or archive `nodir` here"), "{err}");
    assert!(world.fake.calls().is_empty(), "{:?}", world.fake.calls());
    // The daemon has images when it has apps.
    let busy = World::new(&[("web", "running")]);
    let (code, _, err) = busy.run("push ops/app");
    assert!(
        code == 2 && err.contains("the box has reg.lan/ops/app:1 and reg.lan/ops/app:2"),
        "{err}"
    );
    assert_eq!(world.run("push nodir:latest --no-wait").0, 0, "an image of a registry");
}

/// Of several apps one that is not ready keeps no other one from its turn.
#[test]
fn the_next_app_is_pushed_though_the_one_before_is_not_ready() {
    let world = World::new(&[]);
    let dir = app(&world, "");
    let text = "applications:\n- name: a\n  env: {A: \"# unready\"}\n- name: b\n";
    std::fs::write(world.dir.path().join("shop/manifest.yml"), text).expect("manifest");
    let (code, _, err) = world.run(&format!("push {dir}"));
    assert_eq!(code, 3, "{err}");
    assert_eq!(err.matches("terrarium: app a runs and is not ready\n").count(), 1, "{err}");
    let calls = world.fake.calls();
    assert!(calls.iter().any(|call| call.starts_with("apply b ")), "{calls:?}");
}
