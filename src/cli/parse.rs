//! What was typed, as a value. Needs nothing from the machine. Pure.

mod typed;

use super::verbs::Id;
use crate::model::event::EventId;
use crate::unit::{AppName, Bytes, ImageRef};
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
    Cancel {
        guids: Vec<String>,
    },
    Check {
        files: Vec<PathBuf>,
    },
    Drain {
        wait: bool,
        timeout: Option<Duration>,
    },
    Events {
        since: Option<EventsSince>,
        follow: bool,
    },
    Exec(Exec),
    Explain {
        target: Target,
    },
    Help {
        verb: Option<Id>,
    },
    Image(Image),
    Import(Import),
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
    Push(Push),
    Restage {
        name: AppName,
        wait: bool,
        timeout: Option<Duration>,
    },
    Revisions {
        name: AppName,
    },
    Rollback {
        name: AppName,
        to: Option<u64>,
        wait: bool,
        timeout: Option<Duration>,
    },
    Run {
        file: PathBuf,
    },
    RunTask(RunTask),
    Scale {
        app: AppName,
        process: Option<String>,
        instances: u32,
    },
    Serve,
    Status,
    /// A fresh instance in this index's place.
    Afresh(Target),
    Task {
        guid: String,
    },
    Tasks,
    /// Of this app, or of all.
    Top {
        name: Option<AppName>,
    },
    /// start, stop, restart or delete these apps.
    Act {
        act: Act,
        names: Vec<AppName>,
        wait: bool,
    },
    Undrain,
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

/// `import`, and what `push` reads a manifest of cf with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Import {
    pub file: PathBuf,
    pub vars_files: Vec<PathBuf>,
    pub vars: Vec<(String, String)>,
    pub services: Vec<PathBuf>,
    /// Where to; `None`: here.
    pub out: Option<PathBuf>,
    pub port: Option<u16>,
    pub force: bool,
}

/// `push`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Push {
    /// A directory, an archive of one, or an image's name; `None`: here.
    pub what: Option<String>,
    pub kind: What,
    pub name: Option<AppName>,
    pub buildpacks: Vec<String>,
    pub memory: Option<Bytes>,
    pub disk: Option<Bytes>,
    pub instances: Option<u32>,
    pub command: Option<String>,
    pub stack: Option<String>,
    /// Of the box, where no manifest says it.
    pub port: Option<u16>,
    pub health: Option<String>,
    pub endpoint: Option<String>,
    pub start_timeout_s: Option<u32>,
    pub no_route: bool,
    pub random_route: bool,
    pub no_manifest: bool,
    pub force: bool,
    pub no_start: bool,
    pub no_wait: bool,
    /// How a manifest of cf is read; its file is empty when none was named.
    pub cf: Import,
}

/// What is said of what is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum What {
    #[default]
    Any,
    Path,
    Image,
}

/// `run-task`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RunTask {
    pub app: AppName,
    pub command: String,
    pub memory: Option<Bytes>,
    pub disk: Option<Bytes>,
    pub wait: bool,
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

/// Which event is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsSince {
    /// The one after this.
    Id(EventId),
    /// The first one then or later.
    Time(Since),
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
        Id::Cancel => typed.cancel(),
        Id::Check => typed.expect_words(true).map(|()| Command::Check { files: files() }),
        Id::Delete => typed.act(Act::Delete),
        Id::Drain => typed.drain(),
        Id::Events => typed.events(),
        Id::Exec => typed.exec(),
        Id::Explain => typed.explain(),
        Id::Help if typed.words.is_empty() => Ok(Command::Help { verb: None }),
        Id::Help => Ok(Command::Help { verb: Some(named(typed.only()?)?.id) }),
        Id::Image => typed.image(),
        Id::Import => typed.import(),
        Id::Init => Ok(Command::Init),
        Id::Lifecycle => Err(typed.wrong(typed.missing())),
        Id::Logs => typed.logs(),
        Id::Push => typed.push(),
        Id::Restage => typed.restage(),
        Id::Restart => typed.restart(),
        Id::Revisions => Ok(Command::Revisions { name: typed.name(typed.only()?)? }),
        Id::Rollback => typed.rollback(),
        Id::RunTask => typed.run_task(),
        Id::Run => Ok(Command::Run { file: typed.only()?.into() }),
        Id::Scale => typed.scale(),
        Id::Serve => alone(Command::Serve),
        Id::Start => typed.act(Act::Start),
        Id::Status if typed.words.is_empty() => Ok(Command::Status),
        Id::Status => Ok(Command::App { name: typed.name(typed.only()?)? }),
        Id::Stop => typed.act(Act::Stop),
        Id::Task => Ok(Command::Task { guid: typed.text(typed.only()?)? }),
        Id::Tasks => alone(Command::Tasks),
        Id::Top if typed.words.is_empty() => Ok(Command::Top { name: None }),
        Id::Top => Ok(Command::Top { name: Some(typed.name(typed.only()?)?) }),
        Id::Undrain => alone(Command::Undrain),
        Id::Version => alone(Command::Version),
    }
}

#[cfg(test)]
mod tests;
