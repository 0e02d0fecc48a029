//! What is kept of images, and when it will do.

use super::*;
use terrarium::image::catalog::{self, Known, Origin};
use terrarium::image::pull;
use terrarium::image::work::Wish;

/// The decoder fails long before the digest is known.
#[test]
fn a_damaged_part_of_a_packed_layer_is_found_out() {
    let bed = Bed::new("packed");
    let server = Server::with(5000, Image::packed(1 << 20), |_, _| None);
    let downloads = bed.store.dir().join("downloads");
    std::fs::create_dir_all(&downloads).expect("directory");
    let part = downloads.join(server.layer().trim_start_matches("sha256:"));
    let mut bytes = server.image.layer[..700_000].to_vec();
    bytes[2] ^= 0xff;
    std::fs::write(&part, bytes).expect("write");
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert!(!part.exists());
    // The rest, to find it out, and then all of it.
    assert_eq!(server.count(&server.layer()), 2);
    bed.close();
}

#[test]
fn an_index_that_is_pinned_is_here_once_and_for_all() {
    let bed = Bed::new("index");
    let index = |image: &Image| {
        let one = |architecture: &str, digest: Digest| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let all = [one("s390x", Digest::of(b"")), one("amd64", Digest::of(&image.manifest))];
        serde_json::json!({"schemaVersion": 2, "manifests": all}).to_string().into_bytes()
    };
    let server = Server::start(5000, 10_000, move |asked, image| {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        let wanted = last == "1" || last == Digest::of(&index(image)).to_string();
        let kind = "application/vnd.oci.image.index.v1+json";
        wanted.then(|| Answer::ok(index(image)).header("Content-Type", kind))
    });
    let settings = settings(&bed);
    let digest = Digest::of(&index(&server.image));
    let pinned = format!("{}@{digest}", server.name());
    let image = bed.pull(&settings, &pinned).expect("pulled").image;
    let manifest = Digest::of(&server.image.manifest);
    assert_eq!(image.digest, manifest);
    let asked = server.count("");
    for name in [pinned.clone(), format!("{}@{manifest}", server.name())] {
        assert_eq!(bed.pull(&settings, &name).expect("here").image, image);
    }
    assert_eq!(server.count(""), asked, "nobody had to be asked");
    // It means nothing for the tag beside it, and the digest is no name.
    let tag = server.name().parse().expect("name");
    assert_eq!(catalog::meaning(&bed.store, &tag), None);
    let names = || catalog::list(&bed.store).expect("list").pop().map(|(_, names)| names);
    assert_eq!(names(), Some(Vec::new()));
    // By tag the index is asked for, and what it leads to is here.
    bed.pull(&settings, &server.name()).expect("here");
    assert_eq!(names().expect("an image").len(), 1);
    assert_eq!(server.count(&format!("/manifests/{manifest}")), 1);
    // Without its tag it stays, as it was asked for; with nothing it goes.
    catalog::forget(&bed.store, &tag).expect("forget");
    let old = Known { used_ms: 0, ..image };
    catalog::add(&bed.store, &old).expect("add");
    let collect = || {
        terrarium::image::collect(&bed.store, &Default::default(), || Some(Default::default()))
            .expect("collect");
    };
    collect();
    assert_eq!(names(), Some(Vec::new()));
    for digest in [digest, manifest] {
        let pinned = format!("{}@{digest}", server.name()).parse().expect("name");
        catalog::forget(&bed.store, &pinned).expect("forget");
    }
    collect();
    assert_eq!(names(), None);
    bed.close();
}

#[test]
fn many_who_write_one_image_do_not_meet() {
    let bed = Bed::new("writers");
    let server = Server::start(5000, 10, |_, _| None);
    let image = bed.pull(&settings(&bed), &server.name()).expect("pulled").image;
    let name: terrarium::unit::ImageRef = server.name().parse().expect("name");
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let (store, image, name) = (&bed.store, &image, &name);
            scope.spawn(move || {
                for round in 0..20 {
                    let used_ms = writer * 100 + round;
                    let other = Known { used_ms, ..image.clone() };
                    catalog::add(store, &other).expect("add");
                    catalog::name(store, name, &image.digest, Origin::Registry).expect("name");
                    assert!(catalog::find(store, &image.digest).is_some());
                    assert_eq!(catalog::list(store).expect("list").len(), 1);
                }
            });
        }
    });
    let left = std::fs::read_dir(bed.store.dir().join("images")).expect("images");
    let left = left.filter(|item| item.as_ref().expect("item").path().extension().is_some());
    assert_eq!(left.count(), 1);
    bed.close();
}

#[test]
fn an_address_of_storage_that_is_too_old_is_asked_for_again() {
    let bed = Bed::new("storage");
    let storage = Server::start(5001, 10_000, |asked, _| {
        let is_old = asked.path.ends_with("?sig=1");
        is_old.then(|| Answer::status(403))
    });
    let server = Server::start(5000, 10_000, |asked, image| {
        let is_layer = asked.path.ends_with(&Digest::of(&image.layer).to_string());
        let sign = if asked.before == 0 { "?sig=1" } else { "" };
        let to = format!("http://127.0.0.1:5001{}{sign}", asked.path);
        is_layer.then(|| Answer::status(307).header("Location", to))
    });
    bed.pull(&settings(&bed), &server.name()).expect("pulled");
    assert_eq!(storage.count("/blobs/"), 2);
    bed.close();
}

#[test]
fn a_name_from_a_file_will_do_when_the_registry_does_not_know_it() {
    let bed = Bed::new("unknown");
    let server = Server::start(5000, 10, |asked, _| {
        (asked.path.contains("/manifests/") && asked.before > 0).then(|| Answer::status(404))
    });
    let settings = settings(&bed);
    let image = bed.pull(&settings, &server.name()).expect("pulled").image;
    // What the registry gave and does not have any more is not taken.
    assert!(bed.pull(&settings, &server.name()).is_err());
    let name = server.name().parse().expect("name");
    catalog::name(&bed.store, &name, &image.digest, Origin::File).expect("name");
    assert_eq!(bed.pull(&settings, &server.name()).expect("here").image.digest, image.digest);
    bed.close();
}

/// Who shows an image has its turn until the disk has it: nobody is told of it before that. Who only
/// fetches it, for as long as its registry likes, keeps nobody from what is here.
#[test]
fn an_image_that_is_just_being_shown_is_here_when_the_disk_has_it() {
    let bed = Bed::new("shown");
    let server = Server::start(5000, 10_000, |_, _| None);
    let settings = settings(&bed);
    let digest = bed.pull(&settings, &server.name()).expect("pulled").image.digest;
    for name in [format!("{}@{digest}", server.name()), server.name()] {
        let fetched = bed.store.turn(&Digest::of(format!("image {digest}").as_bytes()));
        let wish = Wish::new(&bed.store);
        let ends = wish.clone();
        // Whatever it would have to wait for: it does not come.
        let wish = wish.telling(move |_| ends.end());
        let own = name.parse().expect("a name");
        pull(&bed.store, &settings, &own, None, &wish, &|_, _| ()).expect("here");
        assert!(!wish.is_over(), "it waits for a fetch");
        let turn = bed.store.turn(&Digest::of(format!("shown image {digest}").as_bytes()));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let wish = Wish::new(&bed.store);
            let wish = wish.telling(move |why| tell.send(why.to_owned()).expect("told"));
            let (store, settings) = (&bed.store, &settings);
            let name = name.parse().expect("a name");
            let pulls = scope.spawn(move || {
                pull(store, settings, &name, None, &wish, &|_, _| ()).map(drop).is_ok()
            });
            assert_eq!(told.recv().as_deref(), Ok("this image is being written to the disk"));
            assert!(!pulls.is_finished(), "it was told of what may be gone");
            drop(turn);
            assert!(pulls.join().expect("no panic"));
        });
        drop(fetched);
    }
    bed.close();
}
