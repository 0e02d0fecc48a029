//! `exec`: a command inside an instance, on this terminal.

use super::change::choose;
use super::error::{CliError, code};

use super::parse::Exec;
use super::remote::Remote;
use super::signals::{Signals, signals};
use super::text::clean;
use super::ui::Ui;
use crate::api::apps::{EXEC_PROTOCOL, ExecRequest};
use crate::api::http::client::{Call, ClientError};
use crate::api::http::wire::{Exit, Frame, PAYLOAD_MAX};
use crate::api::http::{FrameWriter, Frames};
use crate::model::process::WindowSize;
use crate::sys::pty::{self, RawMode};
use crate::sys::signal::Signal;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
use smol::stream::StreamExt;
use smol::{Unblock, future};
use std::fs::File;
use std::io::{self, IsTerminal, Stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{LazyLock, Mutex, Once, PoisonError};

/// What the command reads and writes on this side.
pub struct Streams {
    /// Its stdin.
    pub stdin: BoxedReader,
    /// Its stdout.
    pub stdout: BoxedWriter,
    /// Its stderr.
    pub stderr: BoxedWriter,
}

/// The verb on the process's own streams. Nothing but the command itself has an exit code below
/// 125, so that scripts can tell its failures from ours.
pub fn exec(ui: &mut Ui, remote: Result<Remote, CliError>, exec: Exec) -> Result<u8, CliError> {
    let result = remote.and_then(|remote| connected(&remote, exec));
    outcome(ui, result)
}

/// Runs the command to its end.
fn connected(remote: &Remote, exec: Exec) -> Result<Exit, CliError> {
    let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH];
    let signals = signals(&wanted)?;
    let both = io::stdin().is_terminal() && io::stdout().is_terminal();
    let tty = exec.tty.unwrap_or(both);
    let size = tty.then(|| window().unwrap_or(WindowSize { rows: 24, columns: 80 }));
    let streams = Streams {
        stdin: Box::pin(Unblock::new(file(io::stdin().as_fd())?)),
        stdout: Box::pin(Unblock::new(file(io::stdout().as_fd())?)),
        stderr: Box::pin(Unblock::new(file(io::stderr().as_fd())?)),
    };
    smol::block_on(async {
        let frames = start(remote, exec, size).await?;
        let raw = if tty && io::stdin().is_terminal() { Some(Raw::enter()?) } else { None };
        let exit = session(frames, streams, signals, tty).await;
        // Before anything is said to the operator.
        drop(raw);
        exit
    })
}

/// The exit code: the command's own, or why there is none.
fn outcome(ui: &mut Ui, result: Result<Exit, CliError>) -> Result<u8, CliError> {
    match result {
        Ok(Exit { code, error }) => {
            if let Some(error) = error {
                ui.complain(&format!("terrarium: {}\n", clean(&error)));
            }
            Ok(u8::try_from(code).unwrap_or(code::EXEC_FAILED))
        }
        Err(err) => {
            if !err.is_silent() {
                ui.complain(&format!("terrarium: {}\n", crate::log::chain(&err)));
            }
            // Not executable and not found have codes of their own; what else there is, is ours.
            Ok(err.code().max(code::EXEC_FAILED))
        }
    }
}

/// Asks for the command to be started.
pub async fn start(
    remote: &Remote,
    exec: Exec,
    tty: Option<WindowSize>,
) -> Result<(FrameWriter, Frames), CliError> {
    let name = exec.target.app;
    let process = match exec.target.process {
        Some(process) => process,
        None => {
            let app = remote.app(&name).await?;
            choose(&app, |process| format!("{name}:{process}"))?
        }
    };
    let mut env = exec.env;
    if let (true, Ok(term)) = (tty.is_some(), std::env::var("TERM")) {
        env.insert(0, ("TERM".into(), term));
    }
    let (argv, user, dir) = (exec.argv, exec.user, exec.dir);
    let request = ExecRequest { argv, user, env, dir, tty, stdin: true };
    let index = exec.target.index.unwrap_or(0).to_string();
    let path = ["v1", "apps", name.as_str(), "instances", &process, &index, "exec"];
    let call = Call::new("POST", &path).json(&request).upgrade(EXEC_PROTOCOL);
    let stream = remote.send(call).await?.into_stream();
    Ok((FrameWriter::new(stream.writer), Frames::new(stream.reader)))
}

/// Carries bytes both ways until the command has ended.
pub async fn session(
    (writer, mut frames): (FrameWriter, Frames),
    streams: Streams,
    signals: Signals,
    tty: bool,
) -> Result<Exit, CliError> {
    let Streams { stdin, mut stdout, mut stderr } = streams;
    let output = async {
        loop {
            let broken = |err| CliError::Client(ClientError::Broken(err));
            let frame = frames.next().await.map_err(broken)?;
            let (stream, data) = match frame {
                Some(Frame::Stdout(data)) => (&mut stdout, data),
                Some(Frame::Stderr(data)) => (&mut stderr, data),
                Some(Frame::Exit(exit)) => return Ok(exit),
                Some(_) => {
                    let what = "a frame that only a client sends".to_owned();
                    return Err(ClientError::Nonsense(what).into());
                }
                None => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            };
            stream.write_all(&data).await.map_err(CliError::Output)?;
            stream.flush().await.map_err(CliError::Output)?;
        }
    };
    // When the server no longer listens, its last words are still on their way.
    let input = async {
        let _ = feed(stdin, &writer).await;
        future::pending().await
    };
    let orders = async {
        match pass_on(signals, &writer, tty).await {
            Some(exit) => Ok(exit),
            None => future::pending().await,
        }
    };
    future::or(output, future::or(input, orders)).await
}

/// Sends stdin and its end.
async fn feed(mut stdin: BoxedReader, writer: &FrameWriter) -> io::Result<()> {
    let mut buffer = vec![0; PAYLOAD_MAX / 4];
    loop {
        match stdin.read(&mut buffer).await? {
            0 => return writer.send(&Frame::StdinEof).await,
            count => writer.send(&Frame::Stdin(buffer[..count].to_vec())).await?,
        }
    }
}

/// Sends the terminal's new size, and signals that are meant for the command. When our own
/// terminal has gone nobody waits for the command any longer: the session is over.
async fn pass_on(mut signals: Signals, writer: &FrameWriter, tty: bool) -> Option<Exit> {
    while let Some(number) = signals.next().await {
        let frame = match number == Signal::SIGWINCH as i32 {
            true if !tty => continue,
            true => match window() {
                Some(size) => Frame::Resize(size),
                None => continue,
            },
            false => Frame::Signal(number),
        };
        writer.send(&frame).await.ok()?;
        if number == Signal::SIGHUP as i32 {
            return Some(Exit { code: 128 + number, error: None });
        }
    }
    None
}

/// The size of the terminal on stdout or stdin.
fn window() -> Option<WindowSize> {
    let size = pty::size(io::stdout()).or_else(|_| pty::size(io::stdin())).ok();
    size.map(|(rows, columns)| WindowSize { rows, columns })
}

/// A copy of a standard stream that can be read or written on another thread.
fn file(stream: BorrowedFd<'_>) -> Result<File, CliError> {
    let copy = stream.try_clone_to_owned().map(File::from);
    copy.map_err(|source| CliError::Terminal { doing: "open", source })
}

/// Raw mode of our stdin, undone when this is dropped, and before a panic ends the process.
struct Raw;

static STDIN: LazyLock<Stdin> = LazyLock::new(io::stdin);
static RAW: Mutex<Option<RawMode<'static>>> = Mutex::new(None);

impl Raw {
    fn enter() -> Result<Raw, CliError> {
        static HOOK: Once = Once::new();
        // A release build aborts on a panic: no destructor would run.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        let raw = RawMode::enter(STDIN.as_fd());
        let raw = raw.map_err(|source| CliError::Terminal { doing: "set up", source })?;
        *RAW.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        Ok(Raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was.
fn restore() {
    // Not `lock`: the panic may have come while it was held.
    if let Ok(mut raw) = RAW.try_lock() {
        *raw = None;
    }
}
