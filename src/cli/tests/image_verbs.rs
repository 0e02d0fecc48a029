//! image: ls, pull, inspect, rm, gc, load and save.

use super::*;
use crate::cli::images;

#[test]
fn images_are_looked_at_and_changed() {
    let world = World::new(&[("web", "running")]);
    let digest = crate::api::apps::fake::image().digest;
    let (code, out, _) = world.run("image ls");
    assert_eq!((code, out.lines().count()), (0, 4), "{out}");
    assert!(out.contains("reg.lan/ops/app:2"), "{out}");
    let (_, json, _) = world.run("image ls --json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["images"][0]["used_by"][0], "one");
    let (code, out, err) = world.run("image pull ops/app:1");
    assert_eq!((code, out, err), (0, format!("ops/app:1@{digest}\n"), String::new()));
    assert_eq!(world.run("image pull ops/app:1 --json").1.lines().count(), 2);
    let (code, out, err) = world.run("image pull ops/broken:1");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "terrarium: cannot fetch the image: why not\n");
    let (code, out, _) = world.run("image inspect reg.lan/ops/app:1");
    assert!(code == 0 && out.contains("\"Id\""), "{out}");
    assert_eq!(world.run("image inspect none").0, 4);
    let (code, _, err) = world.run("image rm reg.lan/ops/app:1 reg.lan/ops/app:2");
    assert_eq!(code, 9);
    assert!(err.starts_with("reg.lan/ops/app:1: forgotten\n"), "{err}");
    let (code, _, err) = world.run("image gc");
    let left = "reg.lan/ops/app:1, reg.lan/ops/app:2: left: container one is made of it\n";
    assert_eq!((code, err), (0, format!("removed no image and 2 layers, 12.3MiB\n{left}")));
    let (_, json, _) = world.run("image gc --json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["left"][0]["why"][0], "container one is made of it");
    let said = world.fake.calls();
    assert_eq!(said.last().map(String::as_str), Some("collect"));
    assert_eq!(world.run("image gc --all").0, 0);
    assert_eq!(world.fake.calls().last().map(String::as_str), Some("collect all"));
    assert!(World::new(&[]).run("image ls").1.starts_with("no images; `terrarium image pull"));
}

#[test]
fn archives_are_read_and_written_by_the_client_itself() {
    let world = World::new(&[("web", "running")]);
    let file = world.file("a.tar", &"archive ".repeat(50_000));
    let (code, out, err) = world.run(&format!("image load {} --name ops/app", file.display()));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ops/app@sha256:"), "{out}");
    assert!(world.fake.calls()[0].starts_with("load 400000 bytes as Some("));
    // What it has to wait for is told before the answer.
    let (code, _, err) = world.run(&format!("image load {} --name ops/late", file.display()));
    assert!(code == 0 && err.contains(": it waits: its turn"), "{err}");
    // What a name meant before, and what is no name.
    let (code, _, err) = world.run(&format!("image load {} --name ops/moved:1", file.display()));
    assert!(
        code == 0
            && err.contains(&format!("it was {} before", crate::api::apps::fake::image().digest)),
        "{err}"
    );
    assert!(err.contains(" is not called `A/B`: it is no name\n"), "{err}");
    let file = world.file("b.tar", &"rubbish ".repeat(500_000));
    let (code, _, err) = world.run(&format!("image load {}", file.display()));
    assert_eq!((code, err), (1, format!("terrarium: {} is no archive\n", file.display())));
    let (code, _, err) = world.run("image load /nowhere/a.tar");
    assert_eq!(code, 1);
    assert!(err.starts_with("terrarium: cannot read /nowhere/a.tar: "), "{err}");
    let dir = world.dir.path().join("layout");
    std::fs::create_dir_all(dir.join("blobs")).expect("directory");
    std::fs::write(dir.join("index.json"), "{}").expect("file");
    assert_eq!(world.run(&format!("image load {}", dir.display())).0, 0);
    assert!(world.fake.calls().last().expect("a call").starts_with("load "));

    // To stdout there is nothing but the archive; a file may still be called so.
    let (code, out, err) = world.run("image save reg.lan/ops/app:1 -");
    assert_eq!((code, out.as_str()), (0, "archive"), "{err}");
    assert!(err.starts_with("saved, with the id sha256:"), "{err}");
    assert_eq!(world.run("image save reg.lan/ops/app:2 -").0, 1);
    let mut ui = world.ui(&Global::default());
    ui.is_screen = true;
    let err = images::save(&mut ui, &world.remote(), "reg.lan/ops/app:1", "-".as_ref());
    let text = crate::log::chain(&err.expect_err("a terminal"));
    assert!(text.starts_with("cannot write to the terminal: an archive is nothing"), "{text}");
    assert!(!std::path::Path::new("-").exists());

    let to = world.dir.path().join("out.tar");
    let (code, out, err) = world.run(&format!("image save reg.lan/ops/app:1 {}", to.display()));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains(&crate::api::apps::fake::image().id.to_string()), "{err}");
    assert_eq!(std::fs::read(&to).expect("written"), b"archive");
    // What breaks off leaves what was there.
    let (code, ..) = world.run(&format!("image save reg.lan/ops/app:2 {}", to.display()));
    assert_eq!(code, 1);
    assert_eq!(std::fs::read(&to).expect("kept"), b"archive");
    assert_eq!(world.run(&format!("image save none {}", to.display())).0, 4);
    let left = std::fs::read_dir(world.dir.path()).expect("list").count();
    assert_eq!(left, 5, "the socket, two archives, a layout, and what was saved");
}

#[test]
fn progress_is_shown_to_who_watches_a_line_for_each_second() {
    let world = World::new(&[]);
    let mut ui = world.ui(&Global::default());
    ui.is_watched = true;
    let name = "ops/app:1".parse().expect("a name");
    let remote = world.remote();
    let pulled = images::image(&mut ui, &remote, parse::Image::Pull(name));
    assert_eq!(smol::block_on(pulled).expect("pulled"), 0);
    assert_eq!(world.err.take(), "ops/app:1: 5M of 10M\n");
    assert!(world.out.take().starts_with("ops/app:1@sha256:"));
}
