//! What pid 1 does for each request.

use super::super::proto::{Answer, Ask, FailKind};
use super::super::start::{Failure, Launched, Sent};
use super::super::table::{PeerId, Phase, Process, Table};
use super::begin::About;
use super::{FOR_EMPTY_MAX, Server, system};
use crate::sys::{pty, signal};
use std::os::fd::OwnedFd;

impl Server {
    /// Does what is asked. `None`: the answer comes later.
    pub(super) fn answer(
        &mut self,
        peer: PeerId,
        seq: u64,
        ask: Ask,
        sent: Vec<OwnedFd>,
    ) -> Result<Option<(Answer, Vec<OwnedFd>)>, Failure> {
        let done = Ok(Some((Answer::Done, Vec::new())));
        match ask {
            Ask::Start(spec) | Ask::StartIn { spec } => {
                let sent = Sent::sort(&spec, sent)?;
                self.start(peer, seq, &spec, sent).map(|()| None)
            }
            Ask::Adopt { id, program, pid, tty, keep_stdin, lowered } => {
                let launched = Launched::received(pid, tty, lowered, sent)?;
                let about = About { id, program, tty, keep_stdin, never_waits: false };
                self.adopt(peer, seq, about, launched).map(|()| None)
            }
            Ask::Attach { id, never_waits } => {
                let (process, depot) = (find(&mut self.table, &id)?, &self.depot);
                if matches!(process.phase, Phase::Starting { .. }) || process.internal {
                    let text = format!("`{id}` is being started, or not for others");
                    return Err((FailKind::NoSuchProcess, text));
                }
                let fds = process.stream_copies().map_err(system("copy the streams"))?;
                if process.attached.is_none() {
                    process.drain(depot, &mut self.buffer);
                }
                process.streams.iter_mut().for_each(|stream| stream.hand_over(depot));
                process.attached = Some(peer);
                process.never_waits = never_waits;
                Ok(Some((Answer::Attached, fds)))
            }
            Ask::ReadOn { id, err } => {
                let process = find(&mut self.table, &id)?;
                match process.streams.get_mut(usize::from(err)) {
                    Some(stream) if process.attached == Some(peer) => stream.hand_over(&self.depot),
                    _ => {
                        let text = format!("that output of process `{id}` is not yours to read");
                        return Err((FailKind::Refused, text));
                    }
                }
                done
            }
            Ask::Signal { id, signal, group } => {
                check_signal(signal)?;
                let Some(pid) = find(&mut self.table, &id)?.live_pid() else {
                    return Err((FailKind::NoSuchProcess, format!("process `{id}` has ended")));
                };
                match group {
                    // Every process of ours leads a group of its own.
                    true => signal::send_to_group(pid, signal),
                    false => signal::send(pid, signal),
                }
                .map_err(system("signal the process"))?;
                done
            }
            Ask::SignalAll { signal } => {
                check_signal(signal)?;
                signal::send_to_all_others(signal).map_err(system("signal the processes"))?;
                done
            }
            Ask::Empty if self.for_empty.len() >= FOR_EMPTY_MAX => {
                let text = format!("{FOR_EMPTY_MAX} requests wait for the end of all processes");
                Err((FailKind::Refused, text))
            }
            Ask::Empty => {
                self.for_empty.push((peer, seq));
                Ok(None)
            }
            Ask::Resize { id, size } => {
                let process = find(&mut self.table, &id)?;
                let [terminal] = &process.streams[..] else {
                    return Err((FailKind::Refused, format!("process `{id}` has no terminal")));
                };
                pty::set_size(&terminal.fd, size.rows, size.columns)
                    .map_err(system("resize the terminal"))?;
                done
            }
            Ask::EndInput { id } => {
                find(&mut self.table, &id)?.input = None;
                done
            }
            Ask::Notified => match &mut self.notices {
                Some(notices) => {
                    // What was sent before the question counts.
                    notices.hear();
                    Ok(Some((Answer::Notified(notices.told()), Vec::new())))
                }
                None => Err((FailKind::Refused, "there is no socket for sd_notify".into())),
            },
            Ask::List => Ok(Some((Answer::Processes(self.table.states()), Vec::new()))),
            Ask::Forget { id } => {
                if let Some((serial, process)) = self.table.by_id(&id) {
                    if process.live_pid().is_some() {
                        return Err((FailKind::Refused, format!("process `{id}` still runs")));
                    }
                    self.table.remove(serial);
                    self.depot.forget(&id).map_err(system("remove its files"))?;
                }
                done
            }
        }
    }
}

/// The process of this name.
fn find<'a>(table: &'a mut Table, id: &str) -> Result<&'a mut Process, Failure> {
    let found = table.by_id(id).map(|(_, process)| process);
    found.ok_or_else(|| (FailKind::NoSuchProcess, format!("there is no process `{id}`")))
}

/// Only real signals are sent.
fn check_signal(number: i32) -> Result<(), Failure> {
    match signal::is_valid(number) {
        true => Ok(()),
        false => Err((FailKind::Refused, format!("{number} is no signal; 1 to 64 are"))),
    }
}
