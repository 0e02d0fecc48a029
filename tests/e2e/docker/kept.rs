//! What stays of images, and what does not come.

use super::super::server::{Registry, Setup};
use super::{answer, fill, image, lab, manifest, push};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An image with a layer of its own, that says `word`.
fn saying(dir: &Path, word: &str) -> PathBuf {
    let own = |root: &Path| {
        fill(root);
        fs::write(root.join("srv/word"), word).expect("write");
    };
    let how = ["--config.env", "GREETING=hello", "--config.env", &format!("NAME={word}")];
    let entry = ["--config.entrypoint", "/bin/serve", "--config.exposedports", "9000/tcp"];
    image(&dir.join(word), own, &[&how[..], &entry].concat())
}

#[test]
fn gc_leaves_images_of_revisions_and_persistent_ones_only() {
    let (mut lab, dir) = lab("kept");
    let stays = "127.0.0.1:5000/ops/app:stays";
    lab.end_daemon(nix::sys::signal::Signal::SIGTERM);
    lab.configure(
        "stays",
        "[garden]\npersistent_images = [\"docker://127.0.0.1:5000/ops/app#stays\"]\n",
    );
    lab.serve();
    let registry = Registry::start(&dir, Setup::Plain);
    for word in ["1", "2", "3", "stays", "goes"] {
        push(&saying(&dir, word), word);
    }
    for number in 1..=3 {
        let rest = format!(
            "image.ref = \"127.0.0.1:5000/ops/app:{number}\"\nport = [{{ publish = 8000 }}]"
        );
        lab.ok(&["apply", &manifest(&lab, "app", &rest)]);
        lab.until("it answers", |lab| {
            answer(lab, 8000).contains(&format!("hello {number} 9000")).then_some(())
        });
        lab.until_state("app", "running");
    }
    for tag in ["stays", "goes"] {
        lab.ok(&["image", "pull", &format!("127.0.0.1:5000/ops/app:{tag}")]);
    }
    registry.stop();
    // It says who needs what it leaves.
    let told = lab.ok(&["image", "gc", "--all"]).err;
    for (tag, why) in [
        ("1", "app `app` may go back to it: it is in its revision"),
        ("2", "app `app` "),
        ("3", "instance app/0 is made of it; app `app` starts from it"),
        ("stays", "`persistent_images` in [garden] names it"),
    ] {
        assert!(told.contains(&format!("ops/app:{tag}: left: {why}")), "{tag}: {told}");
    }
    let left = lab.ok(&["image", "ls"]).out;
    for (tag, is_here) in [("1", true), ("2", true), ("3", true), ("stays", true), ("goes", false)]
    {
        assert_eq!(left.contains(&format!("ops/app:{tag} ")), is_here, "{tag}: {left}");
    }
    assert_eq!(lab.run(&["image", "inspect", stays]).code, 0);
    // The first is no release that runs or that ran last: only the revisions have it.
    lab.ok(&["rollback", "app", "--to", "1"]);
    lab.until("the first answers", |lab| answer(lab, 8000).contains("hello 1 9000").then_some(()));
    lab.finish();
}

/// So many bytes that nothing shortens.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()
    });
    words.take(length / 8).flatten().collect()
}

/// One whose size the manifest tells, and one that only shows it when it is unpacked.
#[test]
fn an_image_that_is_larger_than_the_disk_of_its_app_does_not_come() {
    let (lab, dir) = lab("toolarge");
    let registry = Registry::start(&dir, Setup::Plain);
    let large = |tag: &str, data: &dyn Fn(&mut fs::File)| {
        let own = |root: &Path| {
            fill(root);
            data(&mut fs::File::create(root.join("srv/large")).expect("create"));
        };
        let entry = ["--config.entrypoint", "/bin/serve"];
        push(&image(&dir.join(tag), own, &entry), tag);
    };
    // The lab's disk is 96 MiB. The second is a thousandth of that, packed.
    large("said", &|file| file.write_all(&noise(120 << 20)).expect("write"));
    large("bomb", &|file| {
        (0..300).for_each(|_| file.write_all(&[b'A'; 1 << 20]).expect("write"));
    });
    let store = lab.root.join("var/lib/terrarium/store");
    for (tag, why) in [
        ("said", "and counts as part of `disk`, which is 96MiB; write a larger `disk`"),
        ("bomb", "the image has more than 96MiB, which is all of `disk`; write a larger `disk`"),
    ] {
        let name = format!("127.0.0.1:5000/ops/app:{tag}");
        let path = manifest(&lab, tag, &format!("image.ref = \"{name}\""));
        assert_ne!(lab.run(&["apply", &path]).code, 0);
        let view = lab.until_state(tag, "failed");
        let reason = view["reason"].as_str().expect("a reason");
        assert!(reason.contains(why) && reason.contains(&name), "{reason}");
        let count = |of: &str| fs::read_dir(store.join(of)).map_or(0, Iterator::count);
        assert_eq!((count("layers"), count("tmp")), (0, 0), "{tag}");
        // Of the first, nothing was asked for.
        assert!(tag != "said" || count("downloads") == 0, "{tag}");
    }
    registry.stop();
    lab.finish();
}
