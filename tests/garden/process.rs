//! What a process is started with, and how it ends.

use super::client::shell;
use super::place::Garden;
use serde_json::json;

#[test]
fn exit_statuses_are_those_of_the_process() {
    let garden = Garden::start("status");
    let c = garden.make("c");
    for (script, status) in
        [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)]
    {
        assert_eq!(garden.sh(&c, script).status, status, "{script}");
    }
    garden.finish();
}

#[test]
fn users_are_looked_up_in_the_container() {
    let garden = Garden::start("users");
    let c = garden.make("c");
    let script = "echo team:x:77:vcap,other >> /etc/group; echo crew:x:78:vcap >> /etc/group";
    garden.says(&c, script);
    for (user, ids) in [
        ("", "0:0:0"),
        ("root", "0:0:0"),
        ("vcap", "2000:2000:2000 77 78"),
        ("2000:2000", "2000:2000:"),
        ("1234:4321", "1234:4321:"),
        ("vcap:team", "2000:77:"),
    ] {
        let script = "echo $(id -u):$(id -g):$(id -G)";
        let spec = json!({"path": "sh", "args": ["-c", script], "user": user, "dir": "/"});
        let ended = garden.run(&c, &spec).finish();
        assert_eq!(ended.status, 0, "{user}: {ended:?}");
        assert!(ended.out.starts_with(ids), "{user}: {ended:?}");
    }
    let (status, kind, message) = garden.run_fails(&c, &json!({"path": "true", "user": "nobo"}));
    assert_eq!((status, kind.as_str()), (500, ""));
    let expected = "unable to find user nobo: no matching entries in passwd file";
    assert!(message.contains(expected), "{message}");
    garden.finish();
}

#[test]
fn a_missing_program_is_an_error_of_its_own() {
    let garden = Garden::start("missing");
    let c = garden.make("c");
    garden.says(&c, "echo plain > /tmp/plain");
    for path in ["/tmp", "/tmp/plain"] {
        let (status, _, message) = garden.run_fails(&c, &json!({"path": path, "user": "root"}));
        assert!(status == 500 && message.contains(path), "{path}: {message}");
    }
    for (path, text) in
        [("no-such-program", "executable file not found in $PATH"), ("/no/such/program", "")]
    {
        let (status, kind, message) = garden.run_fails(&c, &json!({"path": path, "user": "root"}));
        assert_eq!((status, kind.as_str()), (500, "ExecutableNotFoundError"), "{path}: {message}");
        assert!(message.contains(text) && message.contains(path), "{path}: {message}");
    }
    // Nothing of a process that did not start stays.
    let (status, kind, _) = garden.attach_fails(&c, "1");
    assert_eq!((status, kind.as_str()), (404, "ProcessNotFoundError"));
    garden.finish();
}

#[test]
fn ids_are_taken_once() {
    let garden = Garden::start("ids");
    let c = garden.make("c");
    let mut spec = shell("read line; exit 3");
    spec["id"] = json!("my process/1");
    let mut process = garden.run(&c, &spec);
    assert_eq!(process.id, "my process/1");
    let (status, kind, message) = garden.run_fails(&c, &spec);
    assert_eq!((status, kind.as_str()), (500, ""), "{message}");
    let taken = message.contains("already in use") || message.contains("already exists");
    assert!(taken, "{message}");
    let other = garden.attach(&c, "my process/1");
    process.stdin("go\n");
    assert_eq!(process.finish().status, 3);
    assert_eq!(other.finish().status, 3);
    let (one, two) = (garden.run(&c, &shell(":")), garden.run(&c, &shell(":")));
    assert_ne!(one.id, two.id, "generated");
    garden.finish();
}

#[test]
fn an_unknown_process_is_an_error_of_its_own() {
    let garden = Garden::start("noprocess");
    let c = garden.make("c");
    let mut wire = super::wire::Wire::dial(&garden.socket);
    wire.send(
        b"GET /containers/c/processes/a%2Fb HTTP/1.1\r\nHost: api\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = wire.answer();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.error().0, "ProcessNotFoundError");
    assert_eq!(answer.json()["ProcessID"], "a/b");
    drop(c);
    garden.finish();
}

#[test]
fn the_environment_is_the_containers_then_the_processes_then_what_is_missing() {
    let garden = Garden::start("env");
    let c = garden.create(&json!({"handle": "c", "env": ["A=container", "B=container", "E="]}));
    let env = |user: &str, env: serde_json::Value| {
        let spec = json!({"path": "env", "user": user, "env": env});
        let ended = garden.run(&c, &spec).finish();
        assert_eq!(ended.status, 0, "{ended:?}");
        let mut lines: Vec<String> = ended.out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let root = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let lines = env("root", json!(["B=process", "C=1=2", "B=last"]));
    assert_eq!(lines, ["A=container", "B=last", "C=1=2", "E=", "HOME=/root", root, "USER=root"]);
    let lines = env("vcap", json!([]));
    let path = "PATH=/usr/local/bin:/usr/bin:/bin";
    assert_eq!(lines, ["A=container", "B=container", "E=", "HOME=/home/vcap", path, "USER=vcap"]);
    let given = json!(["PATH=/bin:/usr/bin", "USER=me", "HOME=/h"]);
    let lines = env("vcap", given);
    assert_eq!(
        lines,
        ["A=container", "B=container", "E=", "HOME=/h", "PATH=/bin:/usr/bin", "USER=me"]
    );
    garden.finish();
}

#[test]
fn the_directory_is_the_users_home_or_made_for_the_user() {
    let garden = Garden::start("dir");
    let c = garden.make("c");
    let at = |user: &str, dir: &str| {
        let spec = json!({"path": "sh", "args": ["-c", "pwd; stat -c %u:%g ."], "user": user,
            "dir": dir});
        garden.run(&c, &spec).finish().out.replace('\n', " ")
    };
    assert_eq!(at("root", ""), "/root 0:0 ");
    assert_eq!(at("vcap", ""), "/home/vcap 2000:2000 ");
    assert_eq!(at("vcap", "/usr"), "/usr 0:0 ");
    assert_eq!(at("vcap", "/made/for/it"), "/made/for/it 2000:2000 ");
    garden.finish();
}

/// The hard limit of this process, which is the daemon's; unless it may raise it.
fn most(name: &str) -> u64 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let read = |file| std::fs::read_to_string(format!("/proc/self/{file}")).expect(file);
    let (status, limits) = (read("status"), read("limits"));
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
    let capabilities = u64::from_str_radix(field.trim(), 16).expect("a mask");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let hard = line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok());
    hard.filter(|_| capabilities & SYS_RESOURCE == 0).unwrap_or(u64::MAX)
}

#[test]
fn resource_limits_are_soft_and_hard_alike() {
    let garden = Garden::start("rlimits");
    let c = garden.make("c");
    let limits = json!({"as": 4u64 << 30, "core": 5, "cpu": 600, "data": 2u64 << 30,
        "fsize": 1 << 20, "locks": 7, "memlock": 65536, "msgqueue": 8192, "nice": 11,
        "nofile": 100, "nproc": 120, "rss": 1 << 20, "rtprio": 3, "sigpending": 90,
        "stack": 4 << 20});
    let spec = json!({"path": "cat", "args": ["/proc/self/limits"], "user": "root",
        "rlimits": limits});
    let out = garden.run(&c, &spec).finish().out;
    for (name, value) in [
        ("Max address space", 4u64 << 30),
        ("Max core file size", 5),
        ("Max cpu time", 600),
        ("Max data size", 2 << 30),
        ("Max file size", 1 << 20),
        ("Max file locks", 7),
        ("Max locked memory", 65536),
        ("Max msgqueue size", 8192),
        ("Max nice priority", 11),
        ("Max open files", 100),
        ("Max processes", 120),
        ("Max resident set", 1 << 20),
        ("Max realtime priority", 3),
        ("Max pending signals", 90),
        ("Max stack size", 4 << 20),
    ] {
        let line = out.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let found: Vec<&str> = line.split_whitespace().take(2).collect();
        // Without the capability to raise limits, nobody gets more than the daemon has.
        let value = value.min(most(name)).to_string();
        assert_eq!(found, [value.clone(), value], "{name}");
    }
    garden.finish();
}

#[test]
fn a_hundred_short_programs_lose_nothing() {
    let garden = Garden::start("hundred");
    let c = garden.make("c");
    for n in 0..100 {
        let spec = json!({"path": "echo", "args": [format!("round {n}")], "user": "root"});
        let ended = garden.run(&c, &spec).finish();
        assert_eq!((ended.status, ended.out), (0, format!("round {n}\n")), "{}", ended.err);
    }
    garden.finish();
}
