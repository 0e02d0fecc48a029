//! What the manifest, or whoever starts the server himself, does not allow of SSH.

use super::client::Client;
use crate::lab::{Lab, get};

/// Row 77: ports are refused in both directions where the manifest says so, and what is idle is closed.
#[test]
fn row_77_ports_are_refused_and_idle_connections_closed_where_the_manifest_says_so() {
    let lab = Lab::start("ssh-bounds");
    let key = Client::key(&lab, "me");
    let more = "forwarding = false\nidle_timeout = \"5s\"\n";
    lab.ok(&["apply", &super::serving(&lab, "web", &key, more)]);
    let view = lab.until_state("web", "running");
    let ssh = Client::new(&lab, &view["ssh"]);
    assert_eq!(ssh.run("echo in").out, "in\n");
    let ran = ssh.option("-W").option("127.0.0.1:8080").run("");
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("forwarding failed"), "{}", ran.err);
    assert!(get("127.0.0.1", 8000).is_some(), "the app itself answers");
    let ran =
        ssh.option("-R").option("7002:127.0.0.1:8000").run("wget -qO- http://127.0.0.1:7002/");
    assert!(!ran.out.contains("instance 0"), "{}{}", ran.out, ran.err);
    // It would go on for ever.
    let ran = ssh.run("echo begun; exec sleep 100000");
    assert_eq!((ran.code, ran.out.as_str()), (255, "begun\n"), "{}", ran.err);
    lab.finish();
}

/// Row 77: the server by its own flags: algorithms that were not named are refused, who needs no key has none.
/// And what a client that is gone has left on a terminal ends with it.
#[test]
fn row_77_the_server_takes_the_original_s_flags() {
    let lab = Lab::start("ssh-flags");
    Client::key(&lab, "me");
    let script = "exec /tmp/lifecycle/diego-sshd -address=0.0.0.0:$PORT -inheritDaemonEnv \\\n\
                  -allowUnauthenticatedClients -allowedCiphers=aes256-ctr \\\n\
                  -allowedMACs=hmac-sha2-256 -allowedKeyExchanges=curve25519-sha256\n";
    let manifest = "[run]\nmemory = \"48MiB\"\ndisk = \"32MiB\"\n\n[[port]]\ncontainer = 8080\n\
                    publish = 2022\n";
    lab.ok(&["apply", &lab.app("web", script, manifest)]);
    lab.until_state("web", "running");
    let stranger = Client::who_knows(&lab, 2022, "");
    let key = lab.until("it answers", |_| Some(stranger.scanned()).filter(|it| !it.is_empty()));
    // There is no such key: nobody asks for one.
    let ssh = Client::who_knows(&lab, 2022, &key).as_key("none");
    // Why there is no connection is no error to the client.
    let ssh = ssh.option("-o").option("LogLevel=INFO");
    for (option, bad, good, kind) in [
        ("Ciphers", "aes128-ctr", "aes256-ctr", "cipher"),
        ("MACs", "hmac-sha2-512", "hmac-sha2-256", "MAC"),
        ("KexAlgorithms", "ecdh-sha2-nistp256", "curve25519-sha256", "key exchange method"),
    ] {
        let with = |name: &str| ssh.option("-o").option(&format!("{option}={name}"));
        let ran = with(bad).run("echo in");
        assert_eq!((ran.code, &*ran.out), (255, ""), "{option} {bad}: {}", ran.err);
        let refused = format!("no matching {kind} found");
        assert!(ran.err.contains(&refused), "{refused}: {}", ran.err);
        let ran = with(good).run("echo in");
        assert_eq!((ran.code, &*ran.out), (0, "in\n"), "{option} {good}: {}", ran.err);
    }
    // Its client dies without a word: the terminal hangs up on what runs there.
    let lives = |lab: &Lab| lab.inside("web", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out;
    let client = ssh.left_behind("echo begun; exec sleep 4242");
    assert!(lives(&lab).contains("sleep 4242 "), "{}", lives(&lab));
    drop(client);
    lab.until("what it ran is gone", |lab| (!lives(lab).contains("sleep 4242 ")).then_some(()));
    assert_eq!(ssh.run("echo still in").out, "still in\n");
    lab.finish();
}
