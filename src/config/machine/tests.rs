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
    let odd = "[cell]\nmemory = \"1GiB\"\ndisk = \"1GiB\"\ncontainers = 1\nvolumes = []\n\
               reserve = 9\nrootfs = [\"x:/y\"]\nzone = \"z\"\npolling_interval = \"never\"\n\
               evacuation_timeout = \"1s\"\nevacuation_polling_interval = \"1s\"\n\
               cpu_shares_max = 100\nplacement_tags = [\"a\"]\n\
               optional_placement_tags = [\"b\"]\nexport_network_variables = false\ntemp_dir = \"/t\"\napps = false\n\
               [stacks]\npreloaded = [\"x:/y\"]\n\
               [self_check]\ninterval = \"never\"\nunhealthy_interval = \"1s\"\n\
               timeout = \"1s\"\n\
               [health]\nstart_timeout = \"1s\"\ninterval_unhealthy = \"1s\"\n\
               interval_healthy = \"1s\"\n\
               [tasks]\nretry_interval = \"1s\"\npending_max = \"1s\"\nkept = \"1s\"\n\
               [pools]\ncreate = 1\ndelete = 1\nread = 1\nmetrics = 1\nhealth = 1\n\
               [store]\nsize_max = \"1GiB\"\nquotas = false\nimages_max = \"never\"\n\
               [downloads]\nsize = \"64MiB\"\ndir = \"/d\"\n\
               [net]\npool = \"10.1.0.0/16\"\ntag = \"x\"\nmtu = 600\ndns = [\"9.9.9.9\"]\n\
               external_address = \"10.0.0.9\"\nadditional_dns = [\"9.9.9.8\"]\n\
               additional_hosts = [\"10.0.0.7 db\"]\ndeny = [\"0.0.0.0/0\"]\n\
               allow = [\"10.0.0.7\"]\nallow_host_access = true\n\
               ports = \"2000-3000\"\n[cgroup]\nparent = \"x\"\n\
               [garden]\nenabled = true\nsocket = \"/x\"\nsocket_mode = \"0777\"\n\
               listen = \"0.0.0.0:7777\"\ndebug = \"[::1]:7778\"\nlisten_anywhere = true\n\
               connections = 16\ngrace_time = \"5m\"\ndefault_rootfs = \"tiny\"\n\
               graph = \"snapshot\"\ncontainers = 7\nid_mapping = \"garden\"\n\
               init_name = \"wshd\"\napparmor = \"garden\"\ncleanup_threshold = \"0B\"\n\
               persistent_images = [\"docker:///busybox\"]\n\
               [registry]\ndefault = \"x:5000\"\ninsecure = [\"y\"]\nv1 = [\"z\"]\n\
               mirrors = [\"a=b\"]\nmirrors_tell_tags = true\ntoken_servers = [\"t\"]\n\
               logins = \"/x\"\ncerts = \"/y\"\npreload = \"/z\"\n\
               [log]\nlevel = \"warn\"\napp_bytes = \"1MiB\"\napp_files = 1\n\
               rate = \"none\"\nrate_lines = 5\njournal = true\n\
               [metrics]\nlisten = \"127.0.0.1:9100\"\n\
               [socket]\ngroup = \"x\"\nmode = \"0600\"\n\
               [bridge]\nlisten = \"127.0.0.1:8787\"\nlifecycle = \"mount\"\n\
               docker_stack = \"x\"\nfiles = \"/f\"\n\
               [bbs]\nlisten = \"127.0.0.1:8889\"\ncert_file = \"/c\"\nkey_file = \"/k\"\n\
               ca_file = \"/a\"\n\
               [cloud_controller]\nurl = \"https://cc\"\nuser = \"u\"\n\
               password_file = \"/p\"\nskip_cert_verify = true\ncrashes = \"v4\"\n";
    config.apply(odd, "odd").expect("good values");
    // One that is known only to say why there is none.
    let none = "cell.inodes";
    assert_eq!(absent_keys(odd, |top| defaults().read(top)), ["cell.name", none]);
    config.apply(&text, "terrarium.toml").unwrap_or_else(|bad| panic!("{}", bad.render(false)));
    assert_eq!(config, defaults());
    assert_eq!(absent_keys(&text, |top| defaults().read(top)), [none]);
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
        ("[cell]\nreserve = 17", "2:11: `cell.reserve` is 17, out of range"),
        ("[cell]\nname = \"a b\"", "2:8: name `a b` is not good"),
        ("[cell]\nzone = \"a b\"", "2:8: zone `a b` is not good"),
        ("[cell]\npolling_interval = 30", "2:20: time `30` has no unit"),
        ("[cell]\npolling_interval = \"1ms\"", "2:20: `cell.polling_interval` is 1ms, out of"),
        ("[cell]\nevacuation_timeout = \"25h\"", "2:22: `cell.evacuation_timeout` is 1d1h, out"),
        (
            "[cell]\nevacuation_polling_interval = \"0s\"",
            "2:31: `cell.evacuation_polling_interval` is 0s, out of range",
        ),
        ("[cell]\ninodes = 5", "2:10: the store has no limit of inodes"),
        ("[cell]\nplacement_tags = [\"a b\"]", "2:19: tag `a b` is not good"),
        ("[health]\nstart_timeout = \"25h\"", "2:17: `health.start_timeout` is 1d1h, out of"),
        ("[health]\ninterval_healthy = \"1ms\"", "2:20: `health.interval_healthy` is 1ms, out"),
        ("[tasks]\nkept = \"0s\"", "2:8: `tasks.kept` is 0s, out of range"),
        ("[cell]\ncpu_shares_max = 99", "2:18: `cell.cpu_shares_max` is 99, out of range"),
        (
            "[cell]\nexport_network_variables = \"no\"",
            "2:28: `cell.export_network_variables` must be true or false",
        ),
        ("[cell]\ntemp_dir = \"tmp\"", "2:12: `tmp` is no absolute path"),
        ("[stacks]\npreloaded = [\"/x\"]", "2:14: `/x` names no archive"),
        ("[stacks]\npreloaded = [\"x:y\"]", "2:14: `y` is no absolute path"),
        ("[stacks]\npreloaded = [\"a b:/y\"]", "2:14: stack `a b` is not good"),
        ("[self_check]\ninterval = \"no\"", "2:12: `no` is not a time"),
        (
            "[self_check]\nunhealthy_interval = \"0s\"",
            "2:22: `self_check.unhealthy_interval` is 0s, out of range",
        ),
        ("[self_check]\ntimeout = \"2h\"", "2:11: `self_check.timeout` is 2h, out of range"),
        ("[pools]\ncreate = 0", "2:10: `pools.create` is 0, out of range"),
        ("[pools]\nhealth = 257", "2:10: `pools.health` is 257, out of range"),
        ("[pools]\nfetch = 1", "2:1: unknown key `fetch` in [pools]"),
        ("[downloads]\ndir = \"x\"", "2:7: `x` is no absolute path"),
        ("[bbs]\nlisten = \"0.0.0.0:8889\"", "2:10: `0.0.0.0:8889` can be reached from other"),
        (
            "[bbs]\ncert_file = \"/c\"\nlisten = \"127.0.0.1:8889\"",
            "3:10: of `cert_file`, `key_file` and `ca_file` some are there without",
        ),
        ("[bbs]\ncert_file = \"c\"", "2:13: `c` is no absolute path"),
        ("[store]\nsize_max = \"20GB\"", "2:12: unit `GB` is not known"),
        ("[store]\nimages_max = 5", "2:14: size `5` has no unit"),
        ("[net]\npool = \"10.254.1.0/16\"", "2:8: `10.254.1.0/16` is not a pool"),
        ("[net]\npool = \"8.8.0.0/16\"", "2:8: `8.8.0.0/16` is not a pool"),
        ("[net]\ntag = \"a1\"", "2:7: `a1` is not a tag"),
        ("[net]\nmtu = 100", "2:7: `net.mtu` is 100, out of range"),
        ("[net]\ndns = [\"dns.lan\"]", "2:8: `dns.lan` is not an IPv4 address"),
        ("[net]\nports = \"80-90\"", "2:9: `80-90` is not a range of ports"),
        ("[net]\nexternal_address = \"0.0.0.0\"", "2:20: `net.external_address` is 0.0.0.0"),
        ("[net]\nadditional_hosts = [\"db 10.0.0.7\"]", "2:21: `db 10.0.0.7` is no line"),
        ("[net]\ndeny = [\"10.0.0.1/8\"]", "2:9: `10.0.0.1/8` is not the start of its network"),
        ("[net]\nallow = \"10.0.0.0/8\"", "2:9: `net.allow` must be a list, not a string"),
        ("[net]\nallow_host_access = 1", "2:21: `net.allow_host_access` must be true or false"),
        ("[downloads]\nsize = \"0B\"", "2:8: "),
        ("[metrics]\nlisten = \"0.0.0.0:9100\"", "2:10: `0.0.0.0:9100` can be reached"),
        ("[store]\nquotas = \"on\"", "2:10: `store.quotas` must be true or false"),
        ("[cgroup]\nparent = \"../x\"", "2:10: name `../x` is not good"),
        ("[log]\nlevel = \"debug\"", "2:9: `log.level` cannot be \"debug\""),
        ("[log]\napp_files = 0", "2:13: `log.app_files` is 0, out of range"),
        ("[log]\nrate = \"16KiB\"", "2:8: `16KiB` is not a rate"),
        ("[log]\nrate_lines = 0", "2:14: `log.rate_lines` is 0, out of range"),
        ("[socket]\nmode = \"0777\"", "2:8: `0777` is not a mode"),
        ("[socket]\nmode = \"0060\"", "2:8: `0060` is not a mode"),
    ] {
        let bad = defaults().apply(text, "t").expect_err(text).to_string();
        assert!(bad.starts_with(&format!("t:{expected}")), "{text}: {bad}");
    }
}

#[test]
fn bad_values_of_garden_are_named_with_their_place() {
    for (line, expected) in [
        ("enable = true", "1: unknown key `enable` in [garden]"),
        ("enabled = \"yes\"", "11: `garden.enabled` must be true or false, not a string"),
        ("socket = \"garden.sock\"", "10: `garden.sock` is no absolute path"),
        ("socket_mode = \"0077\"", "15: `0077` is not a mode"),
        ("socket_mode = 600", "15: `garden.socket_mode` must be a string"),
        ("listen = \":7777\"", "10: `:7777` is no address with a port"),
        ("listen = \"127.0.0.1:61001\"", "10: port 61001 may become a container's"),
        ("listen = \"0.0.0.0:7777\"", "10: `0.0.0.0:7777` can be reached from other machines"),
        ("debug = \"[fd00::7]:7777\"", "9: `[fd00::7]:7777` can be reached from other"),
        ("connections = 1", "15: `garden.connections` is 1, out of range"),
        ("grace_time = \"5\"", "14: time `5` has no unit"),
        ("grace_time = 300", "14: time `300` has no unit"),
        ("grace_time = \"4000d\"", "14: `garden.grace_time` is 4000d, out of range"),
        ("default_rootfs = \"a/b\"", "18: `a/b` is no absolute path"),
        ("default_rootfs = \"a b\"", "18: stack `a b` is not good"),
        ("graph = \"aufs\"", "9: `garden.graph` cannot be \"aufs\""),
        ("containers = 0", "14: `garden.containers` is 0, out of range"),
        ("id_mapping = \"none\"", "14: `garden.id_mapping` cannot be \"none\""),
        ("init_name = \"sixteen-bytes-xx\"", "13: name `sixteen-bytes-xx` is not good"),
        ("apparmor = \"a b\"", "12: `a b` is no name of a profile"),
        ("cleanup_threshold = \"-1\"", "21: `-1` is not a size"),
        ("persistent_images = [\"\"]", "22: `` is no image"),
    ] {
        let text = format!("[garden]\n{line}");
        let bad = defaults().apply(&text, "t").expect_err(line).to_string();
        assert!(bad.starts_with(&format!("t:2:{expected}")), "{line}: {bad}");
    }
}

#[test]
fn bad_values_of_registries_are_named_with_their_place() {
    for (line, expected) in [
        ("default = \"https://x\"", "11: `https://x` is no registry"),
        ("insecure = [\"x\", \"y/z\"]", "18: `y/z` is no network"),
        ("insecure = [\"10.0.0.0/33\"]", "13: `10.0.0.0/33` is no network"),
        ("mirrors = [\"mirror.lan\"]", "12: `mirror.lan` names no mirror"),
        ("mirrors = [\"a=b/c\"]", "12: `b/c` is no registry"),
        ("logins = \"auth.json\"", "10: `auth.json` is no absolute path"),
        ("preload = \"images\"", "11: `images` is no absolute path"),
    ] {
        let text = format!("[registry]\n{line}");
        let bad = defaults().apply(&text, "t").expect_err(line).to_string();
        assert!(bad.starts_with(&format!("t:2:{expected}")), "{line}: {bad}");
    }
}

#[test]
fn a_key_nobody_knows_is_answered_with_those_that_are_known() {
    let bad = defaults().apply("[garden]\nzzzzzzzzzz = 1", "t").expect_err("unknown");
    assert!(bad.render(false).contains("known here: enabled, socket, "), "{}", bad.render(false));
}

#[test]
fn who_opens_garden_to_the_network_says_so_in_this_file_or_an_earlier_one() {
    let open = "[garden]\nlisten = \"10.0.0.7:7777\"\n";
    let mut config = defaults();
    let both = format!("{open}listen_anywhere = true");
    config.apply(&both, "first").expect("both in one file");
    config.apply(open, "second").expect("said earlier");
    let bad = config.apply("[garden]\nlisten_anywhere = false", "third").expect_err("taken back");
    assert!(bad.to_string().starts_with("third:2:19: `10.0.0.7:7777` can be reached"), "{bad}");

    let mut config = defaults();
    config.apply("[garden]\nlisten = \"127.0.0.1:7777\"", "first").expect("loopback");
    let bad = config.apply("[garden]\ndebug = \"127.0.0.1:7777\"", "second").expect_err("twice");
    assert!(bad.to_string().starts_with("second:2:9: `listen` and `debug` are one"), "{bad}");
}

#[test]
fn nothing_is_a_grace_time_without_end_and_auto_is_what_the_box_has() {
    let mut config = defaults();
    let read = |config: &mut Config, text: &str| {
        config.apply(&format!("[garden]\n{text}"), "t").expect(text);
    };
    read(&mut config, "grace_time = \"5m\"\nsocket = \"/x\"\ncontainers = 9");
    assert_eq!(config.garden.grace_time, Some(std::time::Duration::from_secs(300)));
    assert_eq!(config.garden_containers(), 9);
    for none in ["0", "0s"] {
        read(&mut config, &format!("grace_time = \"{none}\""));
        assert_eq!(config.garden.grace_time, None);
        read(&mut config, "grace_time = \"1ms\"");
    }
    read(&mut config, "socket = \"auto\"\ncontainers = \"auto\"\ndefault_rootfs = \"/x.tar\"");
    assert_eq!(config.garden.socket, config.paths.garden_socket());
    assert_eq!(config.garden_containers(), config.cell.containers);
    assert_eq!(config.garden.default_rootfs, RootFs::Path("/x.tar".into()));
    read(&mut config, "default_rootfs = \"preloaded:tiny\"");
    assert_eq!(config.garden.default_rootfs, RootFs::Stack("tiny".into()));
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
