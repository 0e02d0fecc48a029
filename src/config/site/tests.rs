use super::*;

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static LAST: AtomicU32 = AtomicU32::new(0);
        let n = LAST.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("terrarium-site-{}-{n}", std::process::id()));
        for sub in ["app", "stacks", "lib/procfile", "lib/static", "etc/static"] {
            fs::create_dir_all(dir.join(sub)).expect("directory");
        }
        for file in ["stacks/edgefs.tar.zst", "stacks/tiny.tar.zst", "lib/readme"] {
            fs::write(dir.join(file), "").expect("file");
        }
        Dir(dir)
    }

    fn site(&self) -> Site {
        Site {
            stacks: self.0.join("stacks"),
            buildpacks: vec![self.0.join("etc"), self.0.join("lib")],
            memory: Some(Bytes::mib(2048)),
            disk: Some(Bytes::mib(8192)),
            ports: 61_001..=65_534,
        }
    }

    /// What is said of HEAD and `text`: `line:column message | cure`.
    fn said(&self, site: &Site, text: &str) -> (bool, Vec<String>) {
        let text = format!("name = \"web\"\n{text}");
        let text = match text.contains("source") || text.contains("image") {
            true => text,
            false => format!("source.path = \"app\"\n{text}"),
        };
        let show = |it: &super::super::Diagnostic| {
            let kind = if it.warning { "warning " } else { "" };
            let cure = it.cure.as_deref().unwrap_or("");
            let text = format!("{}:{} {kind}{} | {cure}", it.line, it.column, it.message);
            text.replace(&self.0.display().to_string(), "DIR")
        };
        match site.examine(&text, "web.toml", &self.0) {
            Ok((_, warnings)) => {
                (true, warnings.iter().flat_map(|it| it.iter()).map(show).collect())
            }
            Err(problems) => (false, problems.iter().map(show).collect()),
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_the_box_does_not_have_is_named_at_its_key() {
    let dir = Dir::new();
    for (text, said) in [
        (
            "source.path = \"none\"",
            "2:15 DIR/none is not there | write the app's directory; a relative path starts at \
             this file",
        ),
        ("source.path = \"lib/readme\"", "2:15 DIR/lib/readme is not a directory | write the"),
        (
            "[build]\nstack = \"nowhere\"",
            "4:9 stack `nowhere` is not on this box: DIR/stacks/nowhere.tar.zst is missing | \
             build it with `cargo xtask rootfs nowhere` and copy it there",
        ),
        (
            "[build]\nbuildpacks = [\"static\", \"ruby\"]",
            "4:25 this box has no buildpack `ruby` | it has `procfile`, `static`",
        ),
        ("[build]\nbuildpacks = [\"readme\"]", "4:15 this box has no buildpack `readme`"),
        (
            "[build]\nmemory = \"4GiB\"",
            "4:10 staging needs 4GiB of memory, the box has 2GiB | at most 2GiB",
        ),
        ("[build]\ndisk = \"9GiB\"", "4:8 staging needs 9GiB of disk, the box has 8GiB"),
        (
            "[run]\nmemory = \"3GiB\"",
            "4:10 an instance of `web` needs 3GiB of memory, the box has 2GiB",
        ),
        (
            "[process.work]\ncommand = \"x\"\ndisk = \"16GiB\"",
            "5:8 an instance of `work` needs 16GiB of disk, the box has 8GiB",
        ),
        (
            "[[port]]\npublish = 61001",
            "4:11 port 61001 cannot be published | 61001 to 65534 are for the instances'",
        ),
    ] {
        let (good, found) = dir.said(&dir.site(), text);
        assert!(!good && found.len() == 1, "{text}: {found:?}");
        assert!(found[0].starts_with(said), "{text}: {found:?}");
    }
}

#[test]
fn everything_is_found_at_once_but_only_in_a_text_that_is_right() {
    let dir = Dir::new();
    let text = "source.path = \"none\"\n[build]\nstack = \"x\"\nbuildpacks = [\"y\"]";
    assert_eq!(dir.said(&dir.site(), text).1.len(), 3);
    let (_, found) = dir.said(&dir.site(), &format!("{text}\nz = 1"));
    assert_eq!(
        found,
        [
            "6:1 unknown key `z` in [build] | known here: lifecycle, buildpacks, stack, memory, disk, timeout"
        ]
    );
}

#[test]
fn instances_that_fit_one_by_one_but_not_all_are_a_warning() {
    let dir = Dir::new();
    let (good, found) = dir.said(&dir.site(), "[run]\ninstances = 5\nmemory = \"512MiB\"");
    assert!(good);
    let said = "4:13 warning all instances together need 2560MiB of memory | the box has 2GiB; not \
                all of them will run";
    assert_eq!(found, [said]);
    assert_eq!(dir.said(&dir.site(), "[run]\ninstances = 4\nmemory = \"512MiB\"").1, [""; 0]);
}

#[test]
fn a_box_without_buildpacks_or_of_unknown_size_says_so_or_nothing() {
    let dir = Dir::new();
    let empty = Site { buildpacks: vec![dir.0.join("none")], ..dir.site() };
    let said = "1:1 this box has no buildpack | put one into DIR/none";
    assert_eq!(dir.said(&empty, ""), (false, vec![said.to_owned()]));
    let unknown = Site { memory: None, disk: None, ..dir.site() };
    assert_eq!(dir.said(&unknown, "[run]\nmemory = \"1TiB\""), (true, vec![]));
}

#[test]
fn the_owners_buildpack_hides_the_one_that_came_with_the_box() {
    let dir = Dir::new();
    let all = dir.site().buildpacks();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["procfile", "static"]);
    assert_eq!(all["static"], dir.0.join("etc/static"));
}

#[test]
fn the_first_stack_is_the_first_by_name_and_of_an_empty_box_there_is_none() {
    let dir = Dir::new();
    let site = dir.site();
    assert_eq!(site.first_stack().as_deref(), Some("edgefs"));
    fs::write(site.stacks.join("a.digest"), "").expect("no stack");
    fs::create_dir(site.stacks.join("b.tar.zst")).expect("no stack either");
    assert_eq!(site.first_stack().as_deref(), Some("edgefs"));
    assert_eq!(Site { stacks: site.stacks.join("none"), ..site }.first_stack(), None);
}

#[test]
fn the_archive_of_an_image_must_be_there_and_nothing_else() {
    let dir = Dir::new();
    let bare = Site { stacks: dir.0.join("none"), buildpacks: Vec::new(), ..dir.site() };
    assert_eq!(dir.said(&bare, "image.ref = \"none.lan/app\""), (true, Vec::new()));
    assert_eq!(dir.said(&bare, "image.archive = \"app\""), (true, Vec::new()));
    let (fine, said) = dir.said(&bare, "image.archive = \"app.tar\"");
    assert!(!fine && said[0].starts_with("2:17 DIR/app.tar is not there | write"), "{said:?}");
}
