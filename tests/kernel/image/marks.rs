//! Whiteouts and opaque directories, seen through a union.

use super::*;

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    with_store("whiteout", |lab, store| {
        let lower = empty(store, "lower");
        let names =
            ["gone", "stays", "both/old", "dir/old", "again/old", "opq/old", "new/old", "imp/old"];
        let tar = names.iter().fold(Tar::default(), |tar, name| tar.file(name, "lower"));
        into(&lower, tar.end()).expect("lower");

        let upper = empty(store, "upper");
        let tar = Tar::default()
            .file(".wh.gone", "")
            // H10, both orders
            .file("stays", "upper")
            .file(".wh.stays", "")
            .file(".wh.both", "")
            .file("both", "upper")
            .dir("dir", 0o755)
            .file("dir/new", "upper")
            .file(".wh.dir", "")
            .file(".wh.again", "")
            .dir("again", 0o755)
            .file("again/new", "upper")
            .file(".wh.imp", "")
            .file("imp/new", "upper")
            // H11
            .file("opq/before", "upper")
            .file("opq/.wh..wh..opq", "")
            .file("opq/after", "upper")
            .file("new/.wh.old", "")
            .file(".wh..wh.plnk/1.2", "")
            .file(".wh..wh.aufs", "");
        let summary = into(&upper, tar.end()).expect("upper");
        assert!(!summary.hides_all);
        let mark = fs::symlink_metadata(upper.join("gone")).expect("stat");
        assert!(mark.file_type().is_char_device() && mark.rdev() == 0);

        let merged = lab.dir.join("merged");
        fs::create_dir(&merged).expect("mkdir");
        let options = format!("lowerdir={}:{}", text(&upper), text(&lower));
        run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
        let seen = listing(&merged);
        run("umount", &[text(&merged)]);
        assert_eq!(
            seen,
            "d755 again\nf644 again/new\nf644 both\nd755 dir\nf644 dir/new\nd755 imp\n\
             f644 imp/new\nd755 new\nd755 opq\nf644 opq/after\nf644 opq/before\nf644 stays"
        );

        // Overlay does not mind the mark on a root: it has to be told apart.
        let root = empty(store, "all");
        let all = Tar::default().file(".wh..wh..opq", "").file("own", "").end();
        assert!(into(&root, all).expect("unpack").hides_all);
        let options = format!("lowerdir={}:{}", text(&root), text(&lower));
        run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
        let seen = listing(&merged);
        run("umount", &[text(&merged)]);
        assert!(seen.contains("f644 gone") && seen.contains("f644 own"), "{seen}");
        let plain = Options { whiteouts: false, ..Options::default() };
        let tar = Tar::default().file(".wh.x", "a file like any other").end();
        let dir = empty(store, "plain");
        unpack(&mut tar.as_slice(), &dir, &plain).expect("unpack");
        assert_eq!(listing(&dir), "f644 .wh.x");
    });
}

/// H10, H11: whatever comes first.
#[test]
fn marks_mean_the_same_in_every_order() {
    with_store("marks", |lab, store| {
        let lower = empty(store, "lower");
        let below = ["d/old", "d/sub/old", "e/old"];
        let tar = below.iter().fold(Tar::default(), |tar, name| tar.file(name, "lower"));
        into(&lower, tar.end()).expect("lower");
        let merged = lab.dir.join("merged");
        fs::create_dir(&merged).expect("mkdir");
        let step = |tar: Tar, at: usize| match at {
            0 => tar.dir("d", 0o711),
            1 => tar.file("d/.wh..wh..opq", ""),
            2 => tar.file("d/new", "upper"),
            3 => tar.file("e/.wh.old", ""),
            _ => tar.file("d/sub/new", "upper"),
        };
        let mut orders = vec![vec![]];
        for at in 0..5 {
            orders = orders
                .iter()
                .flat_map(|order: &Vec<usize>| {
                    (0..=order.len()).map(move |place| {
                        let mut order = order.clone();
                        order.insert(place, at);
                        order
                    })
                })
                .collect();
        }
        assert_eq!(orders.len(), 120);
        for order in orders {
            let upper = empty(store, "upper");
            let tar = order.iter().fold(Tar::default(), |tar, at| step(tar, *at));
            into(&upper, tar.end()).expect("upper");
            let options = format!("lowerdir={}:{}", text(&upper), text(&lower));
            run("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
            let seen = listing(&merged);
            run("umount", &[text(&merged)]);
            let wanted = "d711 d\nf644 d/new\nd755 d/sub\nf644 d/sub/new\nd755 e";
            assert_eq!(seen, wanted, "{order:?}");
        }
    });
}
