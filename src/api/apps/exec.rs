//! An exec session between its connection and the service.

use super::{ExecControl, ExecSession};
use crate::api::http::server::Hijacked;
use crate::api::http::wire::{Exit, Frame};
use crate::api::http::{FrameWriter, Frames};
use smol::io::{AsyncWriteExt, BoxedWriter};
use smol::{Timer, channel, future};
use std::time::Duration;

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "terrarium-exec";

/// How long a silent output is still waited for after the process has ended: something it left
/// in the background may hold its pipes open for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs the session until the process has ended or the client has gone; dropping what is left of
/// it hangs up.
pub(super) async fn run(session: ExecSession, stream: Hijacked) {
    let writer = FrameWriter::new(stream.writer);
    let ExecSession { stdin, stdout, stderr, control, exit } = session;
    // Closed, never written to, when the process has ended.
    let (running, ended) = channel::bounded::<()>(1);
    let ended = &ended;
    let last = move || async move {
        let _ = ended.recv().await;
        Timer::after(DRAIN).await;
    };
    let output = async {
        let stderr = async {
            match stderr {
                Some(stderr) => writer.copy(stderr, Frame::Stderr, last()).await,
                None => Ok(()),
            }
        };
        let stdout = writer.copy(stdout, Frame::Stdout, last());
        // A client that cannot be written to ends the session by its other side.
        let _ = future::zip(stdout, stderr).await;
    };
    let exit = async {
        let exit = exit.await;
        drop(running);
        exit
    };
    let session = async {
        let (exit, ()) = future::zip(exit, output).await;
        let _ = writer.send(&Frame::Exit(exit.into())).await;
    };
    let input = input(Frames::new(stream.reader), stdin, control);
    future::or(session, input).await;
}

/// Takes the client's frames until it goes or breaks the rules.
async fn input(
    mut frames: Frames,
    mut stdin: Option<BoxedWriter>,
    control: smol::channel::Sender<ExecControl>,
) {
    while let Ok(Some(frame)) = frames.next().await {
        match frame {
            Frame::Stdin(data) => {
                let written = match &mut stdin {
                    Some(pipe) => pipe.write_all(&data).await,
                    None => Ok(()),
                };
                if written.is_err() {
                    // The process no longer reads; it may still have much to say.
                    stdin = None;
                }
            }
            Frame::StdinEof => stdin = None,
            // A closed channel means that the process has ended: its exit is on the way.
            Frame::Resize(size) => drop(control.send(ExecControl::Resize(size)).await),
            Frame::Signal(number) => drop(control.send(ExecControl::Signal(number)).await),
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) => return,
        }
    }
}

impl From<super::Served<crate::model::process::ExitStatus>> for Exit {
    fn from(ended: super::Served<crate::model::process::ExitStatus>) -> Exit {
        match ended {
            Ok(status) => Exit { code: status.code(), error: None },
            Err(err) => Exit { code: 125, error: Some(err.message) },
        }
    }
}
