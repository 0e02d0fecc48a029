use super::*;
use crate::config::sink::absent_keys;

const SAMPLE: &str = include_str!("../../../config/terrarium.toml");

fn defaults() -> Config {
    Config::defaults(Path::new("/"), "box")
}

/// The sample with its keys switched on.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    SAMPLE.lines().map(line).collect()
}

#[test]
fn the_sample_shows_every_key_with_its_true_default() {
    let text = uncommented();
    // Something else first: a key that the sample lacks would stay as it is here.
    let mut config = defaults();
    let odd = "[cell]\nmemory = \"1GiB\"\ndisk = \"1GiB\"\ncontainers = 1\n\
               [store]\nsize_max = \"1GiB\"\n\
               [net]\npool = \"10.1.0.0/16\"\ntag = \"x\"\nmtu = 600\ndns = [\"9.9.9.9\"]\n\
               ports = \"2000-3000\"\n[cgroup]\nparent = \"x\"\n\
               [log]\nlevel = \"warn\"\napp_bytes = \"1MiB\"\napp_files = 1\n\
               [socket]\ngroup = \"x\"\nmode = \"0600\"\n";
    config.apply(odd, "odd").expect("good values");
    config.apply(&text, "terrarium.toml").unwrap_or_else(|bad| panic!("{}", bad.render(false)));
    assert_eq!(config, defaults());
    assert_eq!(absent_keys(&text, |top| defaults().read(top)), [""; 0]);
    assert_ne!(absent_keys("", |top| defaults().read(top)), [""; 0]);
}

#[test]
fn the_sample_as_shipped_changes_nothing() {
    let mut config = defaults();
    config.apply(SAMPLE, "terrarium.toml").expect("only comments and headers");
    assert_eq!(config, defaults());
}

#[test]
fn bad_values_are_named_with_their_place() {
    for (text, expected) in [
        ("[cel]", "1:2: unknown key `cel`"),
        ("[net]\nmut = 1", "2:1: unknown key `mut` in [net]"),
        ("[cell]\nmemory = 4", "2:10: size `4` has no unit"),
        ("[cell]\nmemory = \"1MiB\"", "2:10: `cell.memory` is 1MiB, out of range"),
        ("[cell]\ncontainers = 20000", "2:14: `cell.containers` is 20000, out of range"),
        ("[cell]\nname = \"a b\"", "2:8: name `a b` is not good"),
        ("[store]\nsize_max = \"20GB\"", "2:12: unit `GB` is not known"),
        ("[net]\npool = \"10.254.1.0/16\"", "2:8: `10.254.1.0/16` is not a pool"),
        ("[net]\npool = \"8.8.0.0/16\"", "2:8: `8.8.0.0/16` is not a pool"),
        ("[net]\ntag = \"a1\"", "2:7: `a1` is not a tag"),
        ("[net]\nmtu = 100", "2:7: `net.mtu` is 100, out of range"),
        ("[net]\ndns = [\"dns.lan\"]", "2:8: `dns.lan` is not an IPv4 address"),
        ("[net]\nports = \"80-90\"", "2:9: `80-90` is not a range of ports"),
        ("[cgroup]\nparent = \"../x\"", "2:10: name `../x` is not good"),
        ("[log]\nlevel = \"debug\"", "2:9: `log.level` cannot be \"debug\""),
        ("[log]\napp_files = 0", "2:13: `log.app_files` is 0, out of range"),
        ("[socket]\nmode = \"0777\"", "2:8: `0777` is not a mode"),
        ("[socket]\nmode = \"0060\"", "2:8: `0060` is not a mode"),
    ] {
        let bad = defaults().apply(text, "t").expect_err(text).to_string();
        assert!(bad.starts_with(&format!("t:{expected}")), "{text}: {bad}");
    }
}

/// A directory of its own for one test.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("terrarium-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("scratch directory");
    dir
}

#[test]
fn drop_ins_win_by_name_and_key_by_key() {
    let root = scratch("dropins");
    let etc = root.join("etc/terrarium");
    let put = |name: &str, text: &str| {
        std::fs::create_dir_all(etc.join("terrarium.toml.d")).expect("etc");
        std::fs::write(etc.join(name), text).expect(name);
    };
    assert_eq!(load(&root, None).expect("no file at all").net.mtu, 1500);

    put("terrarium.toml", "[net]\nmtu = 1400\ntag = \"a\"\n[cell]\nname = \"one\"\n");
    put("terrarium.toml.d/20-b.toml", "[net]\nmtu = 1200\n");
    put("terrarium.toml.d/10-a.toml", "[net]\nmtu = 1300\n[cell]\nname = \"two\"\n");
    put("terrarium.toml.d/30.toml.bak", "nonsense");
    let config = load(&root, None).expect("three files");
    assert_eq!((config.net.mtu, config.net.tag.as_str()), (1200, "a"));
    assert_eq!(config.cell.name, "two");
    assert_eq!(config.paths.socket(), root.join("run/terrarium/terrarium.sock"));

    put("terrarium.toml.d/05.toml", "mtu = 1");
    put("terrarium.toml.d/40.toml", "[net]\nmtu = \"1\"");
    let Err(ConfigError::Invalid(bad)) = load(&root, None) else { panic!("two bad files") };
    assert_eq!(bad.len(), 2);

    let other = root.join("other.toml");
    let missing = load(&root, Some(&other)).expect_err("a named file must exist");
    assert_eq!(missing.to_string(), format!("cannot read {}", other.display()));
    std::fs::remove_dir_all(&root).expect("scratch directory is ours");
}
