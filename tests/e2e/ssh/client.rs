//! Debian's OpenSSH client with a configuration of its own.

use super::super::docker::text;
use super::super::lab::{Lab, PATIENCE, Ran};
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Who comes in, and where.
#[derive(Clone)]
pub struct Client {
    port: u64,
    dir: PathBuf,
    key: String,
    options: Vec<String>,
    env: Option<(String, String)>,
    input: String,
}

impl Client {
    /// Makes a key pair unless it is there; gives the public line.
    pub fn key(lab: &Lab, name: &str) -> String {
        assert!(
            lab.root.join("usr/lib/terrarium/ssh/dropbearmulti").exists(),
            "no SSH server was built: run `cargo xtask ssh`, or `cargo xtask test e2e`"
        );
        let dir = lab.root.join("client");
        fs::create_dir_all(&dir).expect("directory");
        let file = dir.join(name);
        if !file.exists() {
            let quiet = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", text(&file)];
            super::tool("ssh-keygen", &quiet);
        }
        let line = fs::read_to_string(file.with_extension("pub")).expect("public key");
        line.trim().to_owned()
    }

    /// One with the key `me`, who believes what the app's view says of the server.
    pub fn new(lab: &Lab, view: &Value) -> Client {
        let said = view["host_key"].as_str().expect("a host key").to_owned();
        Client::who_knows(lab, view["publish"].as_u64().expect("a port"), &said)
    }

    /// The same for a server elsewhere.
    pub fn who_knows(lab: &Lab, port: u64, host_key: &str) -> Client {
        let dir = lab.root.join("client");
        // By an alias, so that a port of another server has the same name.
        fs::write(dir.join("known"), format!("app {host_key}\n")).expect("known hosts");
        let key = "me".to_owned();
        let (options, env, input) = (Vec::new(), None, String::new());
        Client { port, dir, key, options, env, input }
    }

    /// The same for another port, where it expects the same server.
    pub fn at(&self, port: u64) -> Client {
        Client { port, ..self.clone() }
    }

    pub fn as_key(&self, name: &str) -> Client {
        Client { key: name.into(), ..self.clone() }
    }

    pub fn option(&self, option: &str) -> Client {
        let mut more = self.clone();
        more.options.push(option.into());
        more
    }

    pub fn with_env(&self, name: &str, value: &str) -> Client {
        Client { env: Some((name.into(), value.into())), ..self.clone() }
    }

    pub fn with_input(&self, input: &str) -> Client {
        Client { input: input.into(), ..self.clone() }
    }

    /// Runs a command over there to its end.
    pub fn run(&self, command: &str) -> Ran {
        let mut child = self
            .program("ssh")
            .args(&self.options)
            .args(["box", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh");
        let mut stdin = child.stdin.take().expect("it was asked for");
        // One that was refused reads nothing.
        let _ = stdin.write_all(self.input.as_bytes());
        drop(stdin);
        Ran::new(child.wait_with_output().expect("ssh ends"))
    }

    /// What a person would type for [`Client::run`].
    pub fn typed(&self, command: &str) -> String {
        let words = self.options.iter().map(|word| format!("{word} ")).collect::<String>();
        let quoted = match command.contains([' ', '$', ';']) {
            true => format!("'{}'", command.replace('\'', "'\\''")),
            false => command.to_owned(),
        };
        format!("ssh {words}box {quoted}").trim_end().to_owned()
    }

    /// Copies; it has to succeed.
    pub fn scp(&self, args: &[&str]) {
        let output = self.program("scp").args(args).output().expect("scp");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Copies from or to `dir`, or not.
    pub fn scp_in(&self, dir: &Path, args: &[&str]) -> Ran {
        Ran::new(self.program("scp").current_dir(dir).args(args).output().expect("scp"))
    }

    /// Copies, or not.
    pub fn try_scp(&self, args: &[&str]) -> Ran {
        Ran::new(self.program("scp").args(args).output().expect("scp"))
    }

    /// A session of sftp by the lines of a file in `dir`.
    pub fn sftp(&self, dir: &Path, batch: &str) -> Ran {
        let mut sftp = self.program("sftp");
        Ran::new(sftp.current_dir(dir).args(["-b", batch, "box"]).output().expect("sftp"))
    }

    /// Forwards ports until it is dropped.
    pub fn forward(&self, args: &[&str]) -> Forward {
        let mut ssh = self.program("ssh");
        let child = ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]).args(args).arg("box");
        Forward(child.stdin(Stdio::null()).spawn().expect("ssh"))
    }

    /// A client whose command has a terminal and has begun; it is killed when it is dropped.
    pub fn left_behind(&self, command: &str) -> Forward {
        let mut ssh = self.program("ssh");
        ssh.args(&self.options).args(["-tt", "box", command]);
        let mut child =
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh on a terminal");
        let mut output = child.stdout.take().expect("it was asked for");
        let (mut said, mut piece) = (Vec::new(), [0; 64]);
        while !said.ends_with(b"\n") {
            match output.read(&mut piece) {
                Ok(count @ 1..) => said.extend(&piece[..count]),
                _ => panic!("it never began: {}", String::from_utf8_lossy(&said)),
            }
        }
        Forward(child)
    }

    /// A shell on a terminal of this size.
    pub fn terminal(&self, rows: u16, columns: u16) -> Terminal {
        self.on_terminal((rows, columns), &["-t", "box"])
    }

    /// `ssh` with these words on a terminal of this size, in rows and columns.
    pub fn on_terminal(&self, (rows, columns): (u16, u16), words: &[&str]) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a terminal");
        let name = nix::unistd::ttyname(&pair.slave).expect("its name");
        let slave = || Stdio::from(pair.slave.try_clone().expect("the same terminal"));
        let ssh = self.program("ssh");
        let mut child = Command::new("setsid");
        child.args(["--ctty", "--wait", "ssh"]).args(ssh.get_args());
        child.args(&self.options).args(words);
        child.env("TERM", "vt100").stdin(slave()).stdout(slave()).stderr(slave());
        let child = child.spawn().expect("ssh on a terminal");
        drop(pair.slave);
        let input = File::from(pair.master);
        let mut output = input.try_clone().expect("the same terminal");
        let (to, from) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let _ = to.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
        });
        Terminal { child, name, input, from, said: String::new(), seen: String::new() }
    }

    /// The host key that the server shows, `TYPE BASE64`.
    pub fn scanned(&self) -> String {
        let port = self.port.to_string();
        let mut scan = Command::new("ssh-keyscan");
        let output = scan.args(["-t", "ed25519", "-p", &port, "127.0.0.1"]).output().expect("scan");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = lines.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        line.split_once(' ').map(|(_, key)| key.to_owned()).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        let file = self.dir.join(format!("config-{}-{}", self.port, self.key));
        let config = format!(
            "Host box\n HostName 127.0.0.1\n Port {}\n HostKeyAlias app\n User cf:any/0\n \
             IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {}\n \
             GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n SendEnv SENT\n \
             NumberOfPasswordPrompts 1\n BatchMode yes\n LogLevel ERROR\n",
            self.port,
            self.dir.join(&self.key).display(),
            self.dir.join("known").display(),
        );
        fs::write(&file, config).expect("configuration");
        let mut command = Command::new(name);
        command.arg("-F").arg(file).env_remove("LANG");
        command.envs(self.env.clone());
        command
    }
}

/// A client that forwards, or stays.
pub struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A person at a terminal.
pub struct Terminal {
    child: Child,
    name: PathBuf,
    input: File,
    from: Receiver<String>,
    said: String,
    /// All that came before `said`.
    seen: String,
}

impl Terminal {
    pub fn send(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).expect("type");
    }

    pub fn say(&mut self, line: &str) {
        self.send(&format!("{line}\r"));
    }

    /// Whether this has come so far.
    pub fn heard(&mut self, text: &str) -> bool {
        self.said.extend(self.from.try_iter());
        self.said.contains(text)
    }

    /// Waits until it has come, and forgets what came before.
    pub fn until(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.heard(text) {
            assert!(begin.elapsed() < PATIENCE, "no `{text}` in: {}", self.said);
            let more = self.from.recv_timeout(PATIENCE);
            self.said.push_str(&more.unwrap_or_else(|_| panic!("no `{text}` in: {}", self.said)));
        }
        let end = self.said.find(text).map_or(0, |at| at + text.len());
        self.seen.extend(self.said.drain(..end));
    }

    /// Types a line at the shell's next prompt.
    pub fn ask(&mut self, line: &str) {
        self.until("$ ");
        self.say(line);
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        super::tool("stty", &["-F", text(&self.name), "rows", &rows, "cols", &columns]);
    }

    /// Its exit status, and all that came to the terminal.
    pub fn end(mut self) -> (i32, String) {
        let code = self.child.wait().expect("ssh ends").code().unwrap_or(-1);
        // Until nobody has the other side open.
        self.said.extend(self.from.iter());
        (code, self.seen + &self.said)
    }
}
