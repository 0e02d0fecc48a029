//! A client of Garden's protocol, as small as the bench needs it: one connection a call, as the Go
//! client does it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No answer takes longer; a daemon that is silent for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer, in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// Longest head of an answer, in lines.
const HEAD_LINES_MAX: usize = 100;

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    pub socket: PathBuf,
}

/// What `run` leaves to be read.
pub struct Ran {
    /// From connecting until the first byte of output.
    pub first_byte_us: u64,
    control: BufReader<UnixStream>,
}

impl Client {
    /// Makes a container.
    pub fn create(&self, handle: &str) -> Result<()> {
        let spec = json!({
            "handle": handle,
            "limits": {
                "memory_limits": {"limit_in_bytes": 64 << 20},
                "disk_limits": {"byte_hard": 8 << 20, "scope": 1},
                "cpu_limits": {"weight": 64},
                "pid_limits": {"max": 64},
            },
        });
        self.call("POST", "/containers", Some(&spec)).map(drop)
    }

    /// Removes it.
    pub fn destroy(&self, handle: &str) -> Result<()> {
        self.call("DELETE", &format!("/containers/{handle}"), None).map(drop)
    }

    /// Every handle.
    pub fn list(&self) -> Result<Vec<String>> {
        let answer = self.call("GET", "/containers", None)?;
        Ok(serde_json::from_value(answer["Handles"].clone())?)
    }

    /// Its directory in the depot.
    pub fn depot_dir(&self, handle: &str) -> Result<PathBuf> {
        let info = self.call("GET", &format!("/containers/{handle}/info"), None)?;
        Ok(info["ContainerPath"].as_str().context("no ContainerPath in info")?.into())
    }

    /// Runs a program that says something, until it has said it.
    pub fn run(&self, handle: &str, path: &str, args: &[&str]) -> Result<Ran> {
        let begun = Instant::now();
        let (mut control, first) = self.start(handle, path, args)?;
        let (process, stream) = (text(&first, "process_id")?, text(&first, "stream_id")?);
        let out = format!("/containers/{handle}/processes/{process}/attaches/{stream}/stdout");
        let mut output = self.send("GET", &out, None, "")?;
        let status = head(&mut output)?.0;
        ensure!(status == 200, "{out} answered {status}");
        let read = output.read_exact(&mut [0]);
        let first_byte_us = super::super::micros(begun);
        if read.is_err() {
            let mut last = String::new();
            control.read_line(&mut last)?;
            bail!("{path} said nothing: {last}");
        }
        Ok(Ran { first_byte_us, control })
    }

    /// Starts a program that says nothing and stays when this client has gone.
    pub fn leave_running(&self, handle: &str, path: &str, args: &[&str]) -> Result<()> {
        self.start(handle, path, args).map(drop)
    }

    fn start(
        &self,
        handle: &str,
        path: &str,
        args: &[&str],
    ) -> Result<(BufReader<UnixStream>, Value)> {
        let spec = json!({"path": path, "args": args, "user": "root", "dir": "/"});
        let target = format!("/containers/{handle}/processes");
        let mut control = self.send("POST", &target, Some(&spec), "")?;
        let (status, length) = head(&mut control)?;
        if status != 201 {
            bail!("{target} answered {status}: {}", body(&mut control, length)?);
        }
        let mut line = String::new();
        control.read_line(&mut line)?;
        let first = serde_json::from_str(&line).with_context(|| format!("{target}: {line}"))?;
        Ok((control, first))
    }

    fn call(&self, method: &str, target: &str, content: Option<&Value>) -> Result<Value> {
        let mut stream = self.send(method, target, content, "Connection: close\r\n")?;
        let (status, length) = head(&mut stream)?;
        let body = body(&mut stream, length)?;
        ensure!((200..300).contains(&status), "{method} {target} answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{method} {target}: {body}"))
    }

    fn send(
        &self,
        method: &str,
        target: &str,
        content: Option<&Value>,
        more: &str,
    ) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("cannot connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request(method, target, content, more).as_bytes())?;
        Ok(BufReader::new(stream))
    }
}

impl Ran {
    /// Waits for the end.
    pub fn wait(mut self) -> Result<()> {
        let mut line = String::new();
        self.control.read_line(&mut line)?;
        let last: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(last["exit_status"] == 0, "the process ended with {line}");
        Ok(())
    }
}

/// The document of the daemon's debug address.
pub fn debug_vars(port: u16) -> Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = request("GET", "/debug/vars", None, "Connection: close\r\n");
    stream.write_all(request.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let (status, length) = head(&mut stream)?;
    let body = body(&mut stream, length)?;
    ensure!(status == 200, "/debug/vars answered {status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

fn request(method: &str, target: &str, content: Option<&Value>, more: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: api\r\n{more}");
    match content {
        Some(value) => {
            let value = format!("{value}\n");
            let length = value.len();
            text += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            text += &value;
        }
        None => text += "\r\n",
    }
    text
}

/// Status and length of an answer, up to the empty line. No length: all until the end.
fn head(stream: &mut impl BufRead) -> Result<(u16, Option<u64>)> {
    let (mut status, mut length) = (None, None);
    for _ in 0..HEAD_LINES_MAX {
        let mut line = String::new();
        let read = stream.by_ref().take(64 << 10).read_line(&mut line).context("no answer")?;
        ensure!(read > 0, "the daemon broke off an answer");
        match (status, line.trim_end()) {
            (None, first) => {
                let code = first.split(' ').nth(1).and_then(|code| code.parse().ok());
                status = Some(code.with_context(|| format!("`{first}` is no answer"))?);
            }
            (Some(status), "") => return Ok((status, length)),
            (_, field) => {
                if let Some((name, value)) = field.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = Some(value.trim().parse()?);
                }
            }
        }
    }
    bail!("the head of an answer does not end")
}

fn body(stream: &mut impl Read, length: Option<u64>) -> Result<String> {
    let mut text = String::new();
    stream.take(length.unwrap_or(ANSWER_MAX).min(ANSWER_MAX)).read_to_string(&mut text)?;
    Ok(text)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("no {field} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_head_and_as_much_body_as_it_says() {
        let mut answer = &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nA: b\r\n\r\n{}\nrest"[..];
        assert_eq!(head(&mut answer).expect("a head"), (200, Some(3)));
        assert_eq!(body(&mut answer, Some(3)).expect("a body"), "{}\n");
        assert_eq!(answer, b"rest");
        for nonsense in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
            assert!(head(&mut nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_request_tells_the_length_of_what_it_carries() {
        let text = request("POST", "/containers", Some(&json!({"handle": "x"})), "A: b\r\n");
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
        assert!(head.starts_with("POST /containers HTTP/1.1\r\nHost: api\r\nA: b\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }
}
