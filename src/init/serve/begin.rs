//! How a process comes into the table: forked by pid 1, or adopted.

use super::super::proto::FailKind;
use super::super::spool::Stream;
use super::super::start::{self, Failure, Launched, Sent};
use super::super::table::{PeerId, Phase, Process};
use super::{Server, system};
use crate::model::process::{INTERNAL, ProcessSpec, Program};
use crate::sys::fd;

/// What is said of a process that is put into the table.
pub(super) struct About {
    pub(super) id: String,
    /// What it runs, for messages.
    pub(super) program: String,
    /// It has a terminal.
    pub(super) tty: bool,
    /// Its input is kept open for who attaches later.
    pub(super) keep_stdin: bool,
    /// Who reads its outputs is looked after.
    pub(super) never_waits: bool,
}

impl Server {
    /// Forks a process; the answer comes when exec has worked or failed.
    pub(super) fn start(
        &mut self,
        peer: PeerId,
        seq: u64,
        spec: &ProcessSpec,
        sent: Sent,
    ) -> Result<(), Failure> {
        self.make_way(&spec.id, spec.program == Program::Ours)?;
        let launched = start::start(&self.workshop, spec, sent)?;
        let about = About {
            id: spec.id.clone(),
            program: spec.path.clone(),
            tty: spec.tty.is_some(),
            keep_stdin: spec.keep_stdin,
            never_waits: spec.never_waits && spec.program == Program::Path,
        };
        self.add(peer, seq, about, launched);
        Ok(())
    }

    /// Takes a process that somebody else has forked, and lets it go.
    pub(super) fn adopt(
        &mut self,
        peer: PeerId,
        seq: u64,
        about: About,
        launched: Launched,
    ) -> Result<(), Failure> {
        self.make_way(&about.id, false)?;
        // It may have been killed: then there is nobody at its gate.
        let open = launched.gate.as_ref().map_or(Ok(0), |gate| fd::write(gate, &[1]));
        open.map_err(system("start a process that has ended at its gate"))?;
        self.add(peer, seq, about, launched);
        Ok(())
    }

    /// Makes way for a new process, or says why there shall be none of this name.
    fn make_way(&mut self, id: &str, ours: bool) -> Result<(), Failure> {
        for id in self.table.make_way(id) {
            self.depot.forget(&id).map_err(system("remove the files of an ended process"))?;
        }
        self.table.check_new(id, ours).map_err(|text| (FailKind::Refused, text))
    }

    /// Puts a process into the table.
    fn add(&mut self, peer: PeerId, seq: u64, about: About, launched: Launched) {
        let About { id, program, tty, keep_stdin, never_waits } = about;
        let streams = launched.outputs.into_iter().zip(["out", "err"]);
        self.table.add(Process {
            program,
            pid: launched.pid,
            tty,
            internal: id.starts_with(INTERNAL),
            phase: Phase::Starting {
                errors: launched.errors,
                peer,
                seq,
                stdin: launched.stdin,
                lowered: launched.lowered,
            },
            streams: streams.map(|(fd, end)| Stream::new(fd, format!("{id}.{end}"))).collect(),
            attached: None,
            never_waits,
            keep_input: keep_stdin,
            input: None,
            id,
        });
    }
}
