//! Commands with an end: each is given a time, after which it is killed.

use crate::host;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Waits for a child for at most `limit`; `None`: it still runs.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command without input or output; whether it succeeded within `limit`.
pub fn succeeds(command: &mut Command, limit: Duration) -> Result<bool> {
    let name = host::shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let status = wait(&mut child, limit)?;
    if status.is_none() {
        end(&mut child);
    }
    Ok(status.is_some_and(|status| status.success()))
}

/// Runs a command and gives each line that it prints to `line` as it comes.
///
/// Errors: it cannot be started, or has not ended after `limit`.
pub fn follow(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let name = host::shown(command);
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let stdout = child.stdout.take().expect("it was asked for");
    let (sender, receiver) = sync_channel(64);
    // Ends with the pipe, or when nobody listens any more.
    std::thread::spawn(move || {
        for bytes in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                break;
            }
        }
    });
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        match receiver.recv_timeout(left) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                bail!("{name} has not ended after {} s", limit.as_secs());
            }
        }
    }
    match wait(&mut child, limit.saturating_sub(begun.elapsed()))? {
        Some(status) => Ok(status),
        None => {
            end(&mut child);
            bail!("{name} has closed its output and not ended");
        }
    }
}

/// Kills a child and forgets it.
pub fn end(child: &mut Child) {
    // It has ended by itself, or the kill ends it: nothing else can become of the two.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn lines_come_with_the_status() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo a; printf b; exit 3"]);
        let status = follow(&mut command, LONG, |line| lines.push(line.to_owned())).expect("runs");
        assert_eq!((lines.join(" ").as_str(), status.code()), ("a b", Some(3)));
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let short = Duration::from_millis(20);
        assert!(!succeeds(&mut command, short).expect("starts"));
        let err = follow(&mut command, short, |_| ()).expect_err("it goes on");
        assert_eq!(err.to_string(), "`sleep 1000` has not ended after 0 s");
    }
}
