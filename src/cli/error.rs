//! Why a verb did not do what it was asked, and the exit code that says so.

use super::parse::UsageError;
use super::text::clean;
use super::verbs::Id;
use crate::api::apps::ErrorKind;
use crate::api::http::client::ClientError;
use crate::config::machine::ConfigError;
use crate::daemon::DaemonError;
use crate::model::view::ErrorView;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Exit codes of the command line; `exec` has the command's own besides.
pub mod code {
    /// The app is there but does not run as it should.
    pub const NOT_RUNNING: u8 = 3;
    /// There is no such app or image.
    pub const NOT_FOUND: u8 = 4;
    /// A manifest is invalid; nothing was changed.
    pub const INVALID: u8 = 5;
    /// `exec`: it was terrarium that failed, as docker has it; smaller codes are the command's own.
    pub const EXEC_FAILED: u8 = 125;
}

/// Why a verb failed.
#[derive(Debug)]
pub enum CliError {
    /// The command line means nothing.
    Usage(UsageError),
    /// No answer.
    Client(ClientError),
    /// The daemon's own words.
    Refused(ErrorView),
    /// "cannot {doing} {path}"
    File {
        /// Verb.
        doing: &'static str,
        /// Object.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// "{bad} of {all} manifests are invalid; nothing was changed"; shown one by one before.
    Invalid {
        /// How many.
        bad: usize,
        /// Of how many.
        all: usize,
    },
    /// "{name} stands in {first} and in {second}; rename one of them"
    Twice {
        /// The app.
        name: String,
        /// One manifest.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// "port {port} of the box stands in {first} and in {second}; write another `publish` in one of them"
    PortTwice {
        /// Of the box.
        port: u16,
        /// FILE:LINE:COLUMN.
        first: String,
        /// The other.
        second: String,
    },
    /// The box's own configuration cannot be read.
    Config(ConfigError),
    /// "the configuration of the box is invalid"; its mistakes were shown before.
    ConfigInvalid {
        /// In how many files.
        files: usize,
    },
    /// The daemon could not be or stay.
    Daemon(DaemonError),
    /// "not done after {0}; it goes on, see `terrarium status`"
    TimedOut(Duration),
    /// "the daemon ended before this was done, which goes on when it runs again; see `terrarium status`"
    Ended(io::Error),
    /// "cannot write the output"
    Output(io::Error),
    /// "cannot {doing} the terminal"
    Terminal {
        /// Verb.
        doing: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl CliError {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            CliError::Usage(err) if err.verb == Some(Id::Exec) => code::EXEC_FAILED,
            CliError::Usage(_) => 2,
            CliError::Client(ClientError::Unreachable { .. }) | CliError::Ended(_) => 6,
            CliError::Refused(view) => match ErrorKind::of(view) {
                ErrorKind::NotRunning => code::NOT_RUNNING,
                ErrorKind::NotFound => code::NOT_FOUND,
                ErrorKind::Invalid => code::INVALID,
                ErrorKind::Conflict => 9,
                ErrorKind::NotExecutable => 126,
                ErrorKind::NoProgram => 127,
                ErrorKind::Failed => 1,
            },
            CliError::Invalid { .. } | CliError::Twice { .. } | CliError::PortTwice { .. } => {
                code::INVALID
            }
            CliError::TimedOut(_) => 7,
            // Whoever read our output has seen enough.
            CliError::Output(err) if err.kind() == io::ErrorKind::BrokenPipe => 0,
            CliError::Client(_)
            | CliError::File { .. }
            | CliError::Config(_)
            | CliError::ConfigInvalid { .. }
            | CliError::Daemon(_)
            | CliError::Output(_)
            | CliError::Terminal { .. } => 1,
        }
    }

    /// Nobody is left who could read a message.
    pub fn is_silent(&self) -> bool {
        self.code() == 0
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(err) => err.fmt(f),
            CliError::Client(err) => err.fmt(f),
            // Words of archives, registries and apps may be in it. It may have several lines.
            CliError::Refused(view) => {
                let lines: Vec<String> = view.message.split('\n').map(clean).collect();
                f.write_str(&lines.join("\n"))
            }
            CliError::File { doing, path, .. } => write!(f, "cannot {doing} {}", path.display()),
            CliError::Invalid { bad, all: 1 } if *bad == 1 => {
                f.write_str("the manifest is invalid; nothing was changed")
            }
            CliError::Invalid { bad, all } => {
                write!(f, "{bad} of {all} manifests are invalid; nothing was changed")
            }
            CliError::Twice { name, first, second } => write!(
                f,
                "`{name}` stands in {} and in {}; rename one of them",
                first.display(),
                second.display()
            ),
            CliError::PortTwice { port, first, second } => write!(
                f,
                "port {port} of the box stands in {first} and in {second}; write another `publish` in one \
                 of them"
            ),
            CliError::Config(err) => err.fmt(f),
            CliError::ConfigInvalid { files: 1 } => {
                f.write_str("the configuration of the box is invalid; nothing was done")
            }
            CliError::ConfigInvalid { files } => write!(
                f,
                "the configuration of the box is invalid in {files} files; nothing was done"
            ),
            CliError::Daemon(err) => err.fmt(f),
            CliError::TimedOut(span) => {
                let span = crate::unit::span::show(*span);
                write!(f, "not done after {span}; it goes on, see `terrarium status`")
            }
            CliError::Ended(_) => f.write_str(
                "the daemon ended before this was done, which goes on when it runs again; see `terrarium \
                 status`",
            ),
            CliError::Output(_) => f.write_str("cannot write the output"),
            CliError::Terminal { doing, .. } => write!(f, "cannot {doing} the terminal"),
        }
    }
}

impl std::error::Error for CliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CliError::Client(err) => err.source(),
            CliError::Config(err) => err.source(),
            CliError::Daemon(err) => err.source(),
            CliError::File { source, .. }
            | CliError::Ended(source)
            | CliError::Output(source)
            | CliError::Terminal { source, .. } => Some(source),
            CliError::Usage(_)
            | CliError::Refused(_)
            | CliError::Invalid { .. }
            | CliError::ConfigInvalid { .. }
            | CliError::Twice { .. }
            | CliError::PortTwice { .. }
            | CliError::TimedOut(_) => None,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(err: ClientError) -> CliError {
        CliError::Client(err)
    }
}

impl From<UsageError> for CliError {
    fn from(err: UsageError) -> CliError {
        CliError::Usage(err)
    }
}
