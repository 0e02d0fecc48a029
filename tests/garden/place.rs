//! A box whose daemon speaks Garden's protocol, with an uplink that leads nowhere.

use super::client::{Client, eventually};
use super::lab::{Lab, tool};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::ops::Deref;

/// Address of the box on its uplink.
pub const EXTERNAL: &str = "198.51.100.2";

/// A machine on the other side of the uplink, which answers every TCP connection on `OUTSIDE_PORTS`
/// and every ping.
pub const OUTSIDE: &str = "198.51.100.1";

/// Another address of that machine.
pub const FARTHER: &str = "203.0.113.9";

/// Where it listens.
pub const OUTSIDE_PORTS: [u16; 2] = [8080, 9090];

/// One box. It gives the calls of its client.
pub struct Garden {
    client: Client,
    /// Taken by `finish`.
    lab: Option<Lab>,
    /// The test has ended the daemon and not started the next one.
    ended: bool,
}

impl Deref for Garden {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Garden {
    /// A box with a daemon that serves. `name`: at most ten letters, unique among the tests.
    pub fn start(name: &str) -> Garden {
        Garden::with(name, "")
    }

    /// The same with more lines of configuration, which begin in `[garden]`.
    pub fn with(name: &str, more: &str) -> Garden {
        let mut lab = Lab::new(name);
        tool("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        tool("ip", &["link", "set", "up1", "up"]);
        tool("ip", &["address", "add", &format!("{EXTERNAL}/24"), "dev", "up0"]);
        tool("ip", &["link", "set", "up0", "up"]);
        tool("ip", &["route", "add", "default", "via", "198.51.100.1"]);
        let config = lab.root.join("etc/terrarium/terrarium.toml");
        let text = fs::read_to_string(&config).expect("configuration");
        fs::write(
            &config,
            format!("{text}\n[garden]\nenabled = true\ndefault_rootfs = \"tiny\"\n{more}\n"),
        )
        .expect("configuration");
        lab.serve();
        let client = Client { socket: lab.root.join("run/terrarium/garden.sock") };
        let garden = Garden { client, lab: Some(lab), ended: false };
        garden.until_served();
        garden
    }

    fn until_served(&self) {
        eventually("Garden's socket is there", || self.socket.exists().then_some(()));
        assert_eq!(self.get("/ping"), json!({}));
    }

    /// The box below.
    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("it is there until `finish`")
    }

    /// The next daemon is the program in this file.
    pub fn run_from(&mut self, file: &std::path::Path) {
        self.lab.as_mut().expect("it is there until `finish`").binary = file.to_owned();
    }

    /// Ends the daemon without starting another.
    pub fn end(&mut self, signal: Signal) {
        self.ended = true;
        self.lab.as_mut().expect("it is there until `finish`").end_daemon(signal);
    }

    /// Starts the next daemon.
    pub fn serve(&mut self) {
        self.lab.as_mut().expect("it is there until `finish`").serve();
        self.ended = false;
        self.until_served();
    }

    /// Ends the daemon and starts the next one.
    pub fn restart(&mut self, signal: Signal) {
        self.end(signal);
        self.serve();
    }

    /// A container with nothing said about it but its handle.
    pub fn make(&self, handle: &str) -> String {
        self.create(&json!({"handle": handle}))
    }

    /// Destroys what is left, ends the daemon, and checks that the box is as it was.
    pub fn finish(mut self) {
        for handle in self.list("?garden.state=all").into_iter().chain(self.list("")) {
            self.call("DELETE", &super::client::container(&handle, ""), None);
        }
        assert_eq!(self.list(""), [""; 0]);
        self.lab.take().expect("it is taken once").finish();
    }
}

/// Puts the far end of the uplink into a network of its own, in which threads answer until the test
/// program ends.
pub fn outside() {
    use std::io::{Read, Write};
    let (sender, moved) = std::sync::mpsc::channel();
    let (done, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network of its own");
        done.send(nix::unistd::gettid().to_string()).expect("the test waits");
        let () = moved.recv().expect("the test goes on");
        for address in [OUTSIDE, FARTHER] {
            tool("ip", &["address", "add", &format!("{address}/24"), "dev", "up1"]);
        }
        tool("ip", &["link", "set", "up1", "up"]);
        let listeners = OUTSIDE_PORTS
            .map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).expect("listen outside"));
        done.send(String::new()).expect("the test waits");
        for listener in listeners {
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\noutside\n");
                }
            });
        }
    });
    let thread = ready.recv().expect("its number");
    tool("ip", &["link", "set", "up1", "netns", &thread]);
    sender.send(()).expect("the thread waits");
    ready.recv().expect("it listens");
}

impl Drop for Garden {
    /// A failed test leaves no container behind; its daemon may be gone or deaf, and a second panic
    /// would end all tests, so nothing here expects an answer.
    fn drop(&mut self) {
        let Some(mut lab) = self.lab.take() else { return };
        if self.ended {
            // Only a daemon can take away what a daemon has made.
            let served = std::panic::AssertUnwindSafe(|| lab.serve());
            let _ = std::panic::catch_unwind(served);
        }
        let client = self.client.clone();
        let swept = std::thread::spawn(move || {
            for handle in client.list("") {
                client.call("DELETE", &super::client::container(&handle, ""), None);
            }
            eventually("no container is left", || client.list("").is_empty().then_some(()));
        });
        if swept.join().is_err() {
            eprintln!("{}: containers may be left", lab.root.display());
        }
        // A store that nobody removes takes more of the disk than most machines have twenty times.
        let root = lab.root.clone();
        drop(lab);
        let _ = fs::remove_dir_all(root);
    }
}
