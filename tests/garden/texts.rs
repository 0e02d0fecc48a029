//! What a person reads: the command line's view of Garden's containers, the words of a refusal, and
//! the lines of the daemon's log.

use super::client::container;
use super::files::stream_into;
use super::place::Garden;
use serde_json::json;

#[test]
fn the_command_line_shows_what_gardens_clients_have() {
    let garden = Garden::start("shown");
    assert!(!garden.lab().ok(&["status"]).out.contains("garden:"));
    let limits = json!({"memory_limits": {"limit_in_bytes": 67_108_864}});
    garden.create(&json!({"handle": "web/1", "limits": limits}));
    let sleep = garden.run("web/1", &json!({"path": "/bin/sleep", "args": ["600"]}));
    for n in 0..21 {
        garden.make(&format!("z{n:02}"));
    }
    let out = garden.lab().ok(&["status"]).out;
    assert!(out.contains("\ngarden: 22 containers\n"), "{out}");
    let line = out.lines().find(|line| line.starts_with("web/1 ")).expect("its line");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1..3], ["active", "1"], "{line}");
    assert!(cells[3].ends_with("/64M") && cells[4].starts_with("10.254."), "{line}");
    assert!(out.contains("\nz18 ") && !out.contains("\nz19 "), "{out}");
    assert!(out.contains("\nand 2 more; `terrarium status --json` has all\n"), "{out}");
    let json =
        serde_json::from_str::<serde_json::Value>(&garden.lab().ok(&["status", "--json"]).out)
            .expect("json");
    let all = json["box"]["garden"]["containers"].as_array().expect("a list").clone();
    assert_eq!((all.len(), &all[21]["handle"]), (22, &json!("z20")));
    assert_eq!(all[0]["memory_limit_bytes"], 67_108_864);
    let refused = garden.lab().run(&["delete", "z01"]);
    assert_eq!(refused.code, 4);
    let whose =
        "z01 is a container of Garden's clients, who destroy it through their socket: curl ";
    assert!(refused.err.contains(whose), "{}", refused.err);
    assert!(garden.list("").contains(&"z01".to_owned()));
    drop(sleep);
    garden.finish();
}

#[test]
fn a_refusal_and_the_log_name_the_container_as_its_client_does() {
    let garden = Garden::start("named");
    let bind = json!([{"src_path": "/no/such/place", "dst_path": "/mnt"}]);
    let said = garden.create_fails(&json!({"handle": "a/b c", "bind_mounts": bind}));
    assert!(said.starts_with("cannot ") && said.contains(" container a/b c: "), "{said}");
    assert!(said.contains("/no/such/place"), "{said}");
    garden.make("kept");
    garden.make("first");
    garden.ok("POST", &container("first", "/net/in"), Some(&json!({"host_port": 7})));
    let said = garden.fails("POST", &container("kept", "/net/in"), Some(&json!({"host_port": 7})));
    assert!(said.2.starts_with("container kept: host port 7 "), "{said:?}");
    garden.destroy("kept");

    let log = garden.lab().daemon_log();
    let line = |event: &str, garden: &str| {
        let of = |line: &&str| line.contains(event) && line.contains(garden);
        log.lines().find(of).unwrap_or_else(|| panic!("{event} {garden}: {log}")).to_owned()
    };
    for (event, handle) in [
        ("container.refused", "garden=\"a/b c\""),
        ("container.created", "garden=kept"),
        ("container.destroyed", "garden=kept"),
    ] {
        let line = line(event, handle);
        assert!(line.contains(" handle=") && !line.contains("handle=kept"), "{line}");
    }
    let called = line("api.called", "path=containers/kept/net/in");
    assert!(called.contains("status=500"), "{called}");
    assert!(called.contains(" err=\"container kept: host port 7 "), "{called}");
    garden.finish();
}

#[test]
fn a_body_that_will_not_do_is_told_by_its_field() {
    let garden = Garden::start("bodies");
    garden.make("c");
    let said = |method: &str, path: &str, body: &str| {
        let answer = garden.call(method, path, Some(body));
        assert_eq!((answer.status(), answer.error().0.as_str()), (500, ""), "{body}");
        answer.error().1
    };
    let limits = r#"{"handle":"x","limits":{"memory_limits":{"limit_in_bytes":"64MiB"}}}"#;
    assert_eq!(
        said("POST", "/containers", limits),
        "field `limits.memory_limits.limit_in_bytes` is the text \"64MiB\", not a whole number \
         from 0 to 18446744073709551615"
    );
    let cut = said("POST", "/containers", r#"{"handle":"x""#);
    assert!(cut.starts_with("the body is no JSON: EOF while parsing an object at line"), "{cut}");
    assert_eq!(said("POST", "/containers", ""), "EOF");
    let port = said("POST", &container("c", "/net/in"), r#"{"host_port":"80"}"#);
    assert!(port.starts_with("field `host_port` is the text \"80\", not a whole "), "{port}");
    let (status, kind, why) = garden.run_fails("c", &json!({"path": "/bin/true", "args": "x"}));
    assert_eq!((status, kind.as_str()), (500, ""));
    assert_eq!(why, "field `args` is the text \"x\", not a list");
    garden.finish();
}

#[test]
fn a_memory_limit_that_nothing_starts_with_is_told_as_such() {
    let garden = Garden::start("tiny-mem");
    let with = |bytes: u64| {
        let limits = json!({"memory_limits": {"limit_in_bytes": bytes}});
        json!({"handle": format!("m{bytes}"), "limits": limits})
    };
    for bytes in [4096, 65_536, 262_144] {
        let said = garden.create_fails(&with(bytes));
        let why = format!("its memory limit of {bytes} bytes is too small for its init process");
        assert!(said.contains(&format!(" container m{bytes}: {why}")), "{said}");
        assert!(said.ends_with("; ask for 4194304 or more"), "{said}");
    }
    garden.create(&with(4_194_304));
    let ended = garden.run("m4194304", &json!({"path": "/bin/true"})).finish();
    assert_eq!(ended.status, 0);
    garden.finish();
}

#[test]
fn a_root_that_will_not_do_is_told_with_the_cure() {
    let garden = Garden::start("roots");
    let dir = garden.lab().root.join("rootless");
    std::fs::create_dir(&dir).expect("directory");
    let dir = dir.to_str().expect("UTF-8");
    let layout = garden.lab().root.join("layout");
    std::fs::create_dir(&layout).expect("directory");
    for (file, text) in [("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"), ("index.json", "{}")]
    {
        std::fs::write(layout.join(file), text).expect("file");
    }
    let layout = layout.to_str().expect("UTF-8");
    let text = garden.lab().root.join("text");
    std::fs::write(&text, "no archive").expect("file");
    let said = garden.create_fails(&json!({"rootfs": text.to_str().expect("UTF-8")}));
    assert!(said.contains("/text: the archive ends in the middle of a header; name a "), "{said}");
    let stacks = garden.lab().root.join("usr/lib/terrarium/stacks").display().to_string();
    for (root, expected) in [
        ("/nope", "/nope is not there; name a root directory or a tar archive of this box".into()),
        (
            "relative",
            "root `relative` is a relative path; name it from `/` on, or a stack of the box as \
             `preloaded:NAME`"
                .into(),
        ),
        (
            "oci:///nope",
            "image layout /nope: it is not there; name a directory that holds `oci-layout` and \
             `index.json`"
                .into(),
        ),
        (
            "oci:///dev/null",
            "image layout /dev/null: it is not a directory; name a directory that holds \
             `oci-layout` and `index.json`"
                .into(),
        ),
        (
            &format!("oci://{dir}"),
            format!("image layout {dir}: it has no `index.json`, so it is no image layout"),
        ),
        (
            "preloaded:nope",
            format!("there is no stack `nope` in {stacks}; it has `edgefs`, `tiny`"),
        ),
        (dir, format!("{dir} holds no files; name one that holds a root filesystem")),
        (
            layout,
            format!(
                "image layout {layout}: it is an image layout, and no root; name it as oci://DIR"
            ),
        ),
        (
            "docker:///busy//box",
            "`docker:///busy//box` names no image: an empty part in its path; write \
             [host[:port]/]path[:tag][@sha256:...]"
                .into(),
        ),
    ] {
        assert_eq!(garden.create_fails(&json!({"rootfs": root})), expected);
        assert_eq!(garden.create_fails(&json!({"image": {"uri": root}})), expected);
    }
    garden.finish();
}

#[test]
fn a_full_disk_is_told_with_container_scope_and_cure() {
    let garden = Garden::start("full");
    let spec = |handle: &str, bytes: u64, scope: u8| {
        let disk = json!({"byte_hard": bytes, "scope": scope});
        json!({"handle": handle, "limits": {"disk_limits": disk}})
    };
    let said = garden.create_fails(&spec("small", 1000, 0));
    let begin = "container small: disk limit of 1000 bytes is smaller than the image, which has ";
    let rest = said.strip_prefix(begin).unwrap_or_else(|| panic!("{said}"));
    let image: u64 = rest.split(';').next().expect("a number").parse().expect("a number");
    let total = image + 4_000_000;
    garden.create(&spec("total/1", total, 0));
    garden.create(&spec("own", 4_000_000, 1));
    let mut tar = Vec::new();
    let mut header = tar::Header::new_gnu();
    header.set_size(20 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    let big = std::io::Read::take(std::io::repeat(b'x'), 20 << 20);
    let mut builder = tar::Builder::new(&mut tar);
    builder.append_data(&mut header, "big", big).expect("a tar");
    builder.finish().expect("a tar");
    drop(builder);
    for (handle, bytes, scope) in [("total/1", total, "total"), ("own", 4_000_000, "exclusive")] {
        let answer = stream_into(&garden, handle, "root", "/tmp", &tar);
        let said = answer.error().1;
        assert_eq!(answer.status(), 500, "{said}");
        let begin = format!("error streaming in: container {handle}: tar-in: entry `big`: ");
        assert!(said.starts_with(&begin), "{said}");
        let limit = format!("its disk limit is {bytes} bytes in {scope} scope, ");
        assert!(said.contains("Quota exceeded") && said.contains(&limit), "{said}");
        assert!(said.contains("remove files, or ask for more in `disk_limits`"), "{said}");
    }
    let said = garden.create_fails(&spec("tiny", 1000, 1));
    assert!(said.contains(" container tiny: Quota exceeded"), "{said}");
    assert!(said.contains("its disk limit is 1000 bytes in exclusive scope, "), "{said}");
    garden.finish();
}

#[test]
fn a_limit_of_one_process_is_told_as_such() {
    let garden = Garden::start("one-pid");
    let spec = json!({"handle": "c", "limits": {"pid_limits": {"max": 1}}});
    let answer = garden.call("POST", "/containers", Some(&spec.to_string()));
    let said = match answer.status() {
        200 => garden.run_fails("c", &json!({"path": "/bin/true"})).2,
        _ => answer.error().1,
    };
    assert!(said.contains("its limit is 1 processes and threads"), "{said}");
    assert!(said.ends_with("or ask for more in `pid_limits`"), "{said}");
    garden.finish();
}

#[test]
fn a_tar_that_needs_more_memory_than_there_is_names_the_limit() {
    let garden = Garden::start("tar-mem");
    let limits = json!({"memory_limits": {"limit_in_bytes": 4 << 20}});
    garden.create(&json!({"handle": "c", "limits": limits}));
    let hog = garden.run("c", &super::client::shell("exec tail -n 1 /dev/zero")).finish();
    assert_eq!(hog.status, 137);
    let mut tar = tar::Builder::new(Vec::new());
    for n in 0..2000 {
        let mut header = tar::Header::new_gnu();
        header.set_size(64 << 10);
        header.set_mode(0o644);
        header.set_cksum();
        let data = vec![b'x'; 64 << 10];
        tar.append_data(&mut header, format!("dev/shm/{n}"), &*data).expect("a tar");
    }
    let answer = stream_into(&garden, "c", "root", "/", &tar.into_inner().expect("a tar"));
    let said = answer.error().1;
    assert!(said.contains("error streaming in: container c: "), "{said}");
    assert!(said.contains("limit of 4194304 bytes") || said.contains("(os error 28)"), "{said}");
    garden.finish();
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("tests/garden/README.md")).expect("the table");
    let mut named = 0;
    for cited in table.split('`').filter(|word| word.contains("::") && !word.contains(' ')) {
        let (file, test) = cited.split_once("::").expect("just seen");
        let file = match file {
            "file" => continue,
            file if file.starts_with("src/") => file.to_owned(),
            file if file.starts_with("kernel/") => format!("tests/{file}"),
            file => format!("tests/garden/{file}.rs"),
        };
        let text = std::fs::read_to_string(root.join(&file)).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}()")), "{cited} is not in {file}");
        named += 1;
    }
    assert!(named > 100, "{named} tests");
}
