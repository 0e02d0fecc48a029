//! What was typed, as a value. Needs nothing from the machine. Pure.

mod typed;

use super::verbs::Id;
use crate::unit::{AppName, ImageRef};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use typed::{Typed, named};

/// A whole command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Flags that every verb takes.
    pub global: Global,
    /// The verb and what belongs to it.
    pub command: Command,
}

/// Flags that every verb takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Global {
    pub host: Option<String>,
    pub json: bool,
    pub no_color: bool,
    pub quiet: bool,
    pub root: Option<PathBuf>,
}

/// A verb and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    App {
        name: AppName,
    },
    Apply {
        files: Vec<PathBuf>,
        wait: bool,
        timeout: Option<Duration>,
    },
    Apps,
    /// Measures `rounds` containers made of the archive `stack`.
    Bench {
        stack: PathBuf,
        rounds: usize,
    },
    Check {
        files: Vec<PathBuf>,
    },
    Exec(Exec),
    Help {
        verb: Option<Id>,
    },
    Image(Image),
    Init,
    Lifecycle {
        role: OsString,
        args: Vec<OsString>,
    },
    Logs {
        target: Target,
        follow: bool,
        lines: Option<usize>,
        since: Option<Since>,
        source: Option<String>,
    },
    Run {
        file: PathBuf,
    },
    Scale {
        app: AppName,
        process: Option<String>,
        instances: u32,
    },
    Serve,
    Status,
    /// start, stop, restart or delete these apps.
    Act {
        act: Act,
        names: Vec<AppName>,
        wait: bool,
    },
    Version,
}

/// What can be done to an app as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Act {
    Start,
    Stop,
    Restart,
    Delete,
}

/// `image`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Image {
    List,
    Pull(ImageRef),
    Load { path: PathBuf, name: Option<ImageRef> },
    Save { image: String, file: PathBuf },
    Remove(Vec<String>),
    Collect { all: bool },
    Inspect(String),
}

/// `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Exec {
    pub target: Target,
    pub user: Option<String>,
    pub dir: Option<String>,
    pub env: Vec<(String, String)>,
    /// `None`: when stdin and stdout are terminals.
    pub tty: Option<bool>,
    pub argv: Vec<String>,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

/// `NAME[:PROCESS][/INDEX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Target {
    pub app: AppName,
    pub process: Option<String>,
    pub index: Option<u32>,
}

/// A command line that means nothing: what is wrong and what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    cure: String,
    /// The verb that was typed wrongly, once it is known.
    pub verb: Option<Id>,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.cure)
    }
}

impl std::error::Error for UsageError {}

impl UsageError {
    /// What is wrong, and the cure.
    pub fn new(message: impl Into<String>, cure: impl Into<String>) -> UsageError {
        UsageError { message: message.into(), cure: cure.into(), verb: None }
    }
}

/// Reads the command line `args`, without the program's own name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    // What these two get is not ours to read.
    match args.first().and_then(|word| word.to_str()) {
        Some("init") => return Ok(plain(Command::Init)),
        Some("lifecycle") if args.len() > 1 => {
            let rest = args.split_off(2);
            return Ok(plain(Command::Lifecycle { role: args.remove(1), args: rest }));
        }
        _ => {}
    }
    let mut typed = Typed::default();
    let understood = typed.sort(args).and_then(|()| understand(&typed));
    understood.map_err(|err| UsageError { verb: typed.verb.map(|verb| verb.id), ..err })
}

fn plain(command: Command) -> Invocation {
    Invocation { global: Global::default(), command }
}

/// Gives words and flags their meaning.
fn understand(typed: &Typed) -> Result<Invocation, UsageError> {
    let global = Global {
        host: typed.value("host")?,
        json: typed.has("json"),
        no_color: typed.has("no-color"),
        quiet: typed.has("quiet"),
        root: typed.values("root").last().map(PathBuf::from),
    };
    let command = match typed.verb {
        _ if typed.has("help") => Command::Help { verb: typed.verb.map(|verb| verb.id) },
        _ if typed.has("version") => Command::Version,
        None => Command::Status,
        Some(verb) => meaning(verb.id, typed)?,
    };
    Ok(Invocation { global, command })
}

fn meaning(id: Id, typed: &Typed) -> Result<Command, UsageError> {
    let files = || typed.words.iter().map(PathBuf::from).collect();
    let alone = |command| typed.expect_words(false).map(|()| command);
    match id {
        Id::App => Ok(Command::App { name: typed.name(typed.only()?)? }),
        Id::Apply => typed.apply(),
        Id::Apps => alone(Command::Apps),
        Id::Bench => typed.bench(),
        Id::Check => typed.expect_words(true).map(|()| Command::Check { files: files() }),
        Id::Delete => typed.act(Act::Delete),
        Id::Exec => typed.exec(),
        Id::Help if typed.words.is_empty() => Ok(Command::Help { verb: None }),
        Id::Help => Ok(Command::Help { verb: Some(named(typed.only()?)?.id) }),
        Id::Image => typed.image(),
        Id::Init => Ok(Command::Init),
        Id::Lifecycle => Err(typed.wrong(typed.missing())),
        Id::Logs => typed.logs(),
        Id::Restart => typed.act(Act::Restart),
        Id::Run => Ok(Command::Run { file: typed.only()?.into() }),
        Id::Scale => typed.scale(),
        Id::Serve => alone(Command::Serve),
        Id::Start => typed.act(Act::Start),
        Id::Status if typed.words.is_empty() => Ok(Command::Status),
        Id::Status => Ok(Command::App { name: typed.name(typed.only()?)? }),
        Id::Stop => typed.act(Act::Stop),
        Id::Version => alone(Command::Version),
    }
}

#[cfg(test)]
mod tests;
