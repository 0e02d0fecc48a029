//! SSH into apps with Debian's OpenSSH client: what a person types, and what comes back.

mod bare;
mod bounds;
pub mod client;
mod keys;
mod record;
mod session;

use super::docker::{self, text};
use super::lab::{Lab, Ran, get, tool};
use client::Client;
use serde_json::Value;
use session::Session;
use std::fs;

/// An app that serves, lets `key` in, and publishes both.
fn serving(lab: &Lab, name: &str, key: &str, more: &str) -> String {
    let manifest = format!(
        "[run]\nmemory = \"48MiB\"\ndisk = \"32MiB\"\n\n[env]\nGREETING = \"hello\"\n\n\
         [[port]]\ncontainer = 8080\npublish = 8000\n\n\
         [ssh]\nauthorized_keys = [\"{key}\"]\npublish = 2022\n{more}"
    );
    lab.app(name, super::WEB, &manifest)
}

fn running(name: &str) -> (Lab, Client) {
    let lab = Lab::start(name);
    let key = Client::key(&lab, "me");
    lab.ok(&["apply", &serving(&lab, "web", &key, "")]);
    let view = lab.until_state("web", "running");
    let client = Client::new(&lab, &view["ssh"]);
    (lab, client)
}

/// Row 77: a command, its output and exit status, who and where it is, what it has in its
/// environment; as in a shell on another machine.
#[test]
fn a_command_runs_as_the_app_s_user() {
    let (lab, ssh) = running("ssh-exec");
    let mut all = Session::new(&lab);
    let ran = all.ssh(&ssh, "echo out; echo err >&2; id -un; id -u; pwd; exit 7");
    assert_eq!((ran.code, ran.out.as_str()), (7, "out\nvcap\n2000\n/home/vcap\n"), "{}", ran.err);
    assert_eq!(ran.err, "err\n");
    let sent = ssh.with_env("SENT", "from afar");
    let words = "echo $GREETING $PORT $HOME $USER $PATH $LANG $INSTANCE_INDEX $SENT";
    let ran = all.ssh(&sent, words);
    let want = "hello 8080 /home/vcap vcap /bin:/usr/bin en_US.UTF-8 0 from afar\n";
    assert_eq!(ran.out, want, "{}", ran.err);
    let env = sent.run("env").out;
    assert!(env.contains("GREETING=hello") && !env.contains("SSHD_"), "{env}");
    // What it reads, it reads to the end.
    assert_eq!(all.ssh(&ssh.with_input("one\ntwo\n"), "wc -l").out.trim(), "2");
    // A signal ends it: the client has no exit status to tell.
    assert_eq!(all.ssh(&ssh, "kill -TERM $$").code, 255);
    all.ssh(&ssh, "no-such-program");
    all.golden("exec");
    // No keys among the words of processes or in their environment.
    let words = ssh.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '");
    assert!(words.out.contains("dropbear -F"), "{}", words.out);
    assert!(!words.out.contains("PRIVATE") && !words.out.contains("ssh-ed25519"), "{}", words.out);
    lab.finish();
}

/// Row 77: a shell on a terminal: its size, which follows the client's, and its end.
#[test]
fn a_shell_has_a_terminal_whose_size_follows() {
    let (lab, ssh) = running("ssh-pty");
    let mut all = Session::new(&lab);
    let mut shell = ssh.terminal(24, 80);
    shell.ask("tty; echo $TERM; stty size");
    shell.until("/dev/pts/0");
    shell.until("24 80");
    // Who runs on it is told of another size, as on any terminal.
    shell.ask("sh -c \"trap 'stty size; exit' WINCH; echo wa''its; while sleep .1;do :;done\"");
    shell.until("waits");
    shell.resize(30, 100);
    shell.until("30 100");
    shell.ask("stty size");
    shell.until("30 100");
    // The terminal's own keys: ^C ends what runs, not the shell.
    // The program itself says so: the terminal is its own by then.
    shell.ask("sh -c \"echo sl''eeps; exec sleep 1000\"");
    shell.until("sleeps");
    shell.send("\u{3}");
    shell.ask("echo aw''ake; exit 3");
    shell.until("awake");
    let (code, screen) = shell.end();
    if let Some(banner) = screen.lines().find(|line| line.starts_with("BusyBox v")) {
        all.call(banner.trim(), "BusyBox");
    }
    all.saw("ssh -t box", (code, &screen));
    assert_eq!(code, 3);
    all.golden("shell");
    lab.finish();
}

/// Row 77: files both ways: today's scp, which speaks sftp, the old protocol, and sftp itself.
#[test]
fn files_go_both_ways() {
    let (lab, ssh) = running("ssh-files");
    let mut all = Session::new(&lab);
    let dir = lab.root.join("files");
    fs::create_dir_all(dir.join("tree/deep")).expect("directory");
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.join("tree/large"), &bytes).expect("file");
    fs::write(dir.join("tree/deep/a b"), "small").expect("file");
    for (kind, to) in [("-s", "new"), ("-O", "old")] {
        all.scp(&ssh, &dir, &[kind, "-r", "-p", "tree", &format!("box:/home/vcap/{to}")]);
        all.scp(&ssh, &dir, &[kind, "-r", &format!("box:{to}"), &format!("back-{to}")]);
        let back = dir.join(format!("back-{to}"));
        assert!(fs::read(back.join("large")).expect("came back") == bytes, "{kind}");
        assert_eq!(fs::read_to_string(back.join("deep/a b")).expect("came back"), "small");
        all.ssh(&ssh, &format!("cd {to}; find . | sort; wc -c large; stat -c %u:%g .; cat deep/*"));
        all.scp(&ssh, &dir, &[kind, "box:none", "."]);
        all.scp(&ssh, &dir, &[kind, "tree/deep/a b", "box:/etc/a"]);
    }
    all.golden("scp");
    assert_eq!(ssh.run("cat 'old/deep/a b'; id -u; stat -c %u old").out, "small2000\n2000\n");
    fs::write(dir.join("batch"), BATCH).expect("batch");
    let mut session = ssh.sftp(&dir, "batch");
    let lines = session.out.lines().map(|line| match line.split_whitespace().collect::<Vec<_>>() {
        // Of a long listing the time differs.
        words if line.contains(" 2000 ") && words.len() > 7 => {
            format!(
                "{} {} {} {} TIME {}",
                words[0],
                words[2],
                words[3],
                words[4],
                words[7..].join(" ")
            )
        }
        _ => line.to_owned(),
    });
    session.out = lines.map(|line| line + "\n").collect();
    let mut all = Session::new(&lab);
    all.ran("sftp -b batch box", &session);
    all.golden("sftp");
    assert_eq!(fs::read_to_string(dir.join("copy")).expect("came back"), "small");
    lab.finish();
}

const BATCH: &str = "pwd\nmkdir d\ncd d\nput \"tree/deep/a b\" f\nrename f g\nchmod 600 g\n\
                     ls -l\nln -s g l\nls -1\nget g copy\nrm l\nrm g\ncd ..\nrmdir d\n-rm nothing\n";

/// Row 77: ports both ways: the app's through the client's, and a service of the client's for the app.
#[test]
fn ports_are_forwarded_both_ways() {
    let (lab, ssh) = running("ssh-ports");
    let mut all = Session::new(&lab);
    let to = "127.0.0.1:7001:127.0.0.1:8080";
    let forward = ssh.forward(&["-L", to]);
    let body = lab.until("the app answers here", |_| get("127.0.0.1", 7001));
    assert!(body.starts_with("instance 0 "), "{body}");
    all.call(body.trim().rsplit(' ').next().expect("a name"), "HOST");
    let url = "http://127.0.0.1:7001/";
    let got = Ran { code: 0, out: tool("curl", &["-sS", url]), err: String::new() };
    all.ran(&format!("ssh -N -L {to} box & curl -sS {url}"), &got);
    drop(forward);
    let request = ssh.with_input("GET / HTTP/1.0\r\n\r\n").option("-W").option("127.0.0.1:8080");
    let mut ran = request.run("");
    // Of the answer only what is the same each time.
    ran.out = ran.out.lines().filter(|it| it.contains("instance")).collect();
    all.ran("echo 'GET / HTTP/1.0' | ssh -W 127.0.0.1:8080 box", &ran);
    let ran = all
        .ssh(&ssh.option("-R").option("7002:127.0.0.1:8000"), "wget -qO- http://127.0.0.1:7002/");
    assert!(ran.out.starts_with("instance 0 "), "{}{}", ran.out, ran.err);
    // Where nobody listens.
    all.ssh(&ssh.option("-W").option("127.0.0.1:1"), "");
    all.golden("forward");
    lab.finish();
}

/// Row 77: who has no key that the manifest names does not come in, nor does anybody ask him for a password; a
/// server with another key than the app's is not believed. The key stays the app's, whatever restarts.
#[test]
fn keys_are_checked_on_both_sides() {
    let (mut lab, ssh) = running("ssh-keys");
    let shown = lab.ok(&["app", "web"]).out;
    assert!(shown.contains("ssh        ssh -p 2022 vcap@localhost"), "{shown}");
    let fingerprint = lab.view("web")["ssh"]["fingerprint"].as_str().expect("text").to_owned();
    assert!(shown.contains(&fingerprint), "{shown}");
    assert_eq!(ssh.scanned(), lab.view("web")["ssh"]["host_key"].as_str().expect("text"));

    let mut all = Session::new(&lab);
    all.call(&fingerprint, "SHA256:OF-WEB");
    Client::key(&lab, "other");
    let ran = all.ssh(&ssh.as_key("other"), "true");
    assert_eq!(ran.code, 255);
    assert!(ran.err.contains("Permission denied (publickey)"), "{}", ran.err);
    all.ssh(&ssh, "echo in");
    all.golden("keys");

    let other = lab.app("app2", super::WEB, &manifest_of(&Client::key(&lab, "me")));
    lab.ok(&["apply", &other]);
    let theirs = lab.until_state("app2", "running");
    assert_ne!(theirs["ssh"]["host_key"], lab.view("web")["ssh"]["host_key"]);
    let mut all = Session::new(&lab);
    all.call(&fingerprint, "SHA256:OF-WEB");
    let of_theirs = theirs["ssh"]["fingerprint"].as_str().expect("text");
    all.call(of_theirs, "SHA256:OF-APP2");
    meet_for_the_first_time(&lab, &ssh, &mut all, (&fingerprint, of_theirs));
    let wrong = ssh.at(port_of(&theirs));
    let ran = all.ssh(&wrong, "true");
    assert!(ran.err.contains("Host key verification failed"), "{}", ran.err);
    all.golden("host-key");

    lab.ok(&["restart", "web"]);
    lab.until("it is let in again", |_| (ssh.run("true").code == 0).then_some(()));
    lab.ok(&["delete", "web"]);
    lab.end_daemon(nix::sys::signal::Signal::SIGTERM);
    lab.serve();
    let key = Client::key(&lab, "me");
    lab.ok(&["apply", &serving(&lab, "web", &key, "")]);
    lab.until_state("web", "running");
    assert_eq!(ssh.run("echo the same").out, "the same\n");
    lab.finish();
}

/// Somebody who knows no host key is shown its fingerprint, and types what `terrarium app` has told him: only
/// that lets him in.
fn meet_for_the_first_time(
    lab: &Lab,
    ssh: &Client,
    all: &mut Session,
    (right, wrong): (&str, &str),
) {
    let known = format!("UserKnownHostsFile={}", text(&lab.root.join("client/new")));
    let asks = ["StrictHostKeyChecking=ask", "BatchMode=no", &known];
    let asks = asks.iter().fold(ssh.clone(), |ssh, it| ssh.option("-o").option(it));
    let mut terminal = asks.on_terminal((24, 80), &["box", "echo in"]);
    for answer in [wrong, right] {
        terminal.until(if answer == wrong { "[fingerprint])? " } else { "the fingerprint: " });
        terminal.say(answer);
    }
    let (code, screen) = terminal.end();
    all.saw(&asks.typed("echo in"), (code, &screen));
    assert_eq!(code, 0, "{screen}");
}

fn manifest_of(key: &str) -> String {
    let port = super::PORT;
    format!(
        "[run]\nmemory = \"48MiB\"\ndisk = \"32MiB\"\n\n{port}\n[ssh]\nauthorized_keys = [\"{key}\"]\n"
    )
}

/// The box's port that leads to an instance's SSH server.
fn port_of(view: &Value) -> u64 {
    let ports = view["processes"][0]["instances"][0]["ports"].as_array().expect("ports").clone();
    let ssh = ports.iter().find(|port| port["container"] == 2222).expect("the server's port");
    ssh["host"].as_u64().expect("a number")
}

/// An app from an image, as a user without a name in it.
#[test]
fn an_app_from_an_image_is_come_into_as_a_user_without_a_name() {
    let lab = Lab::start("ssh-image");
    let dir = lab.root.join("fixtures");
    fs::create_dir_all(&dir).expect("directory");
    let fill = |root: &std::path::Path| {
        docker::fill(root);
        for link in ["tty", "stty", "pwd"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(link)).expect("link");
        }
    };
    let layout = docker::image(&dir, fill, &["--config.cmd", "/bin/serve"]);
    let key = Client::key(&lab, "me");
    let file = dir.join("pic.toml");
    let manifest = format!(
        "name = \"pic\"\nimage.archive = \"{}\"\nrun.user = \"1234:77\"\nrun.memory = \"64MiB\"\n\
         run.disk = \"64MiB\"\nrun.command = \"exec /bin/busybox httpd -f -p 8080 -h /srv\"\n\n\
         [ssh]\nauthorized_keys = [\"{key}\"]\npublish = 2022\n",
        text(&layout)
    );
    fs::write(&file, manifest).expect("manifest");
    lab.ok(&["apply", text(&file)]);
    let view = lab.until_state("pic", "running");
    let ssh = Client::new(&lab, &view["ssh"]);
    let ran = ssh.run("id -u; id -g");
    assert_eq!((ran.code, ran.out.as_str()), (0, "1234\n77\n"), "{}", ran.err);
    let ran = ssh.option("-tt").run("tty");
    assert_eq!(ran.out.trim_end(), "/dev/pts/0", "{}", ran.err);
    fs::write(dir.join("up"), "up").expect("file");
    for kind in ["-s", "-O"] {
        ssh.scp(&[kind, text(&dir.join("up")), &format!("box:/tmp/up{kind}")]);
    }
    assert_eq!(ssh.run("cat /tmp/up-s /tmp/up-O").out, "upup");
    tool("rm", &["-r", text(&layout)]);
    lab.finish();
}
