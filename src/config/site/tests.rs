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
            preloaded: Default::default(),
            waits: Waits::new(),
            volumes: vec![self.0.join("srv")],
            own: vec![self.0.join("srv/own")],
            ssh_server: self.0.join("lib/readme"),
            health: Default::default(),
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

/// Row 17, row 45: what a manifest leaves open the box's owner decides.
#[test]
fn row_17_the_box_has_its_own_times_of_checks() {
    let dir = Dir::new();
    let time = std::time::Duration::from_secs;
    let health =
        HealthTimes { start_timeout: time(7), interval_healthy: time(8), ..Default::default() };
    let site = Site { health, ..dir.site() };
    let text = "name = \"web\"\nsource.path = \"app\"\n[process.web]\n\
                [process.own]\nhealth = { type = \"process\", start_timeout = \"9s\" }\n";
    let (manifest, _) = site.examine(text, "web.toml", &dir.0).expect("a manifest");
    let of = |name: &str| {
        let health = &manifest.processes[name].health;
        (health.start_timeout, health.interval_healthy)
    };
    assert_eq!(of("web"), (time(7), time(8)));
    assert_eq!(of("own"), (time(9), time(8)));
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
             it has `edgefs`, `tiny`; or copy the archive there",
        ),
        (
            "[build]\nbuildpacks = [\"static\", \"ruby\"]",
            "4:25 this box has no buildpack `ruby` | it has `procfile`, `static`",
        ),
        (
            "[build]\nbuildpacks = [\"https://u:secret@h/x@1/ruby.zip\"]",
            "4:15 buildpack https://h/x@1/ruby.zip cannot be fetched: an app without [[egress]] reaches \
             nothing, its staging neither | unpack it into",
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
fn a_buildpack_by_url_comes_where_there_is_a_way() {
    let dir = Dir::new();
    let sum = "0".repeat(64);
    for text in [
        "[build]\nbuildpacks = [\"https://h/ruby.zip\"]\n[[egress]]\nallow = \"all\"\n",
        &format!(
            "[build]\nbuildpacks = [{{ url = \"https://h/ruby.zip\", sha256 = \"{sum}\" }}]\n"
        ),
    ] {
        let (good, found) = dir.said(&dir.site(), text);
        assert!(good, "{text}: {found:?}");
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
    let said = "4:13 warning all instances together need 2.5GiB of memory | the box has 2GiB; not \
                all of them will run";
    assert_eq!(found, [said]);
    assert_eq!(dir.said(&dir.site(), "[run]\ninstances = 4\nmemory = \"512MiB\"").1, [""; 0]);
}

/// A box has what it has, to the last page; what is to be written is a size that a manifest takes.
#[test]
fn sizes_are_told_so_that_people_read_them_and_may_write_them() {
    let dir = Dir::new();
    let odd = Site { memory: Some(Bytes::new(24_684_084 << 10)), ..dir.site() };
    for (text, said) in [
        (
            "[run]\nmemory = \"1TiB\"",
            "4:10 an instance of `web` needs 1TiB of memory, the box has 23.5GiB | at most 24105MiB",
        ),
        // To a tenth both would be the same.
        (
            "[run]\nmemory = \"24106MiB\"",
            "4:10 an instance of `web` needs 24106MiB of memory, the box has 24684084KiB | at most 24105MiB",
        ),
    ] {
        assert_eq!(dir.said(&odd, text), (false, vec![said.to_owned()]));
    }
    let (good, found) = dir.said(&odd, "[run]\ninstances = 40\nmemory = \"1GiB\"");
    let said = "need 40GiB of memory | the box has 23.5GiB; not all of them will run";
    assert!(good && found.iter().any(|it| it.ends_with(said)), "{found:?}");
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
fn of_an_image_only_its_archive_is_looked_for_and_one_that_is_gone_is_told() {
    let dir = Dir::new();
    let bare = Site { stacks: dir.0.join("none"), buildpacks: Vec::new(), ..dir.site() };
    assert_eq!(dir.said(&bare, "image.ref = \"none.lan/app\""), (true, Vec::new()));
    assert_eq!(dir.said(&bare, "image.archive = \"app\""), (true, Vec::new()));
    let (fine, said) = dir.said(&bare, "image.archive = \"app.tar\"");
    assert!(
        fine && said[0].starts_with("2:17 warning DIR/app.tar is not there | only"),
        "{said:?}"
    );
}

#[test]
fn apps_that_wait_for_each_other_are_refused_where_the_first_is_named() {
    let dir = Dir::new();
    let app = |name: &str| name.parse::<AppName>().expect("name");
    let waits = [(app("db"), vec![app("cache")]), (app("cache"), vec![app("web")])].into();
    let site = Site { waits, ..dir.site() };
    let text = "after = [\"log\"]\nneeds = [\"db\"]";
    let why = "these apps wait for each other: web -> db -> cache -> web";
    let cure = "remove one of the names, here or in another of these manifests";
    assert_eq!(said_after(&dir, &site, text), [format!("3:10 {why} | {cure}")]);
    assert_eq!(said_after(&dir, &site, "after = [\"log\"]"), [""; 0]);
}

/// What is said of a manifest that begins with `text`.
fn said_after(dir: &Dir, site: &Site, text: &str) -> Vec<String> {
    dir.said(site, &format!("{text}\nsource.path = \"app\"")).1
}

/// Row 63: only directories that the box's owner has opened, whatever a link says.
#[test]
fn row_63_a_volume_lies_where_the_owner_allows_it() {
    let dir = Dir::new();
    for sub in ["srv/a", "srv/own/x", "else"] {
        fs::create_dir_all(dir.0.join(sub)).expect("directory");
    }
    fs::write(dir.0.join("srv/file"), "").expect("file");
    std::os::unix::fs::symlink(dir.0.join("else"), dir.0.join("srv/link")).expect("link");
    let site = dir.site();
    let told = |from: &str| {
        let text = format!("[[volume]]\nfrom = \"{}/{from}\"\nto = \"/a\"", dir.0.display());
        dir.said(&site, &text).1.first().cloned().unwrap_or_default()
    };
    assert_eq!(told("srv/a"), "");
    let below = "what may is below DIR/srv; the box's owner adds to it in [cell] volumes of \
                 terrarium.toml";
    assert_eq!(told("else"), format!("4:8 DIR/else may not be given to an app | {below}"));
    let link = "4:8 DIR/srv/link, which leads to DIR/else, may not be given to an app";
    assert_eq!(told("srv/link"), format!("{link} | {below}"));
    assert_eq!(told("srv/none"), "4:8 DIR/srv/none is not there | make the directory");
    assert_eq!(told("srv/file"), "4:8 DIR/srv/file is not a directory | name one");
    let own = "holds files of Terrarium itself | name another directory";
    assert_eq!(told("srv/own/x"), format!("4:8 DIR/srv/own/x {own}"));
    assert_eq!(told("srv"), format!("4:8 DIR/srv {own}"));
}

/// Row 63: an app that may write where a `[[file]]` comes from does not get another file of the box by
/// a link of its own.
#[test]
fn row_63_the_source_of_a_file_is_not_a_link_where_apps_may_write() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    fs::create_dir_all(dir.0.join("srv/a")).expect("directory");
    fs::create_dir_all(dir.0.join("else")).expect("directory");
    for file in ["srv/a/file", "else/file"] {
        fs::write(dir.0.join(file), file).expect("file");
    }
    symlink(dir.0.join("else/file"), dir.0.join("srv/a/link")).expect("link");
    symlink(dir.0.join("else"), dir.0.join("srv/b")).expect("link");
    symlink(dir.0.join("srv/a/file"), dir.0.join("else/link")).expect("link");
    let site = dir.site();
    let told = |path: &str| site.file(&dir.0.join(path)).err().map(|(what, _)| what);
    for path in ["srv/a/file", "else/file", "else/link"] {
        assert_eq!(told(path), None, "{path}");
    }
    for path in ["srv/a/link", "srv/b/file"] {
        let why = told(path).expect("a link");
        assert!(why.starts_with("a link is on the way to"), "{path}: {why}");
    }
    assert!(told("srv/a/../../else/file").is_some(), "it leads out of there");
    assert!(site.where_apps_write(&dir.0.join("srv/a/file")).is_some());
    assert!(site.where_apps_write(&dir.0.join("else/file")).is_none());
}
