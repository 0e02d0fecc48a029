//! What was typed, as a value. Needs nothing from the machine. Pure.

use super::text::nearest;
use super::verbs::{self, Flag, GLOBAL, Group, Id, VERBS, Verb};
use crate::unit::{AppName, span};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    Check {
        files: Vec<PathBuf>,
    },
    Exec(Exec),
    Help {
        verb: Option<Id>,
    },
    Init,
    Lifecycle {
        role: OsString,
        args: Vec<OsString>,
    },
    Logs {
        target: Target,
        follow: bool,
        lines: Option<usize>,
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
        UsageError { message: message.into(), cure: cure.into() }
    }
}

/// Words and flags, sorted by the table but not yet understood.
struct Typed {
    verb: Option<&'static Verb>,
    words: Vec<OsString>,
    flags: Vec<(&'static Flag, OsString)>,
    /// `exec`'s command, verbatim.
    command: Vec<OsString>,
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
    understand(sort(args)?)
}

fn plain(command: Command) -> Invocation {
    Invocation { global: Global::default(), command }
}

/// Tells words from flags.
fn sort(mut args: Vec<OsString>) -> Result<Typed, UsageError> {
    let end = args.iter().position(|word| word == "--");
    let after = end.map(|end| args.split_off(end));
    let after = || after.iter().flatten();
    let mut typed = Typed { verb: None, words: vec![], flags: vec![], command: vec![] };
    let mut parser = lexopt::Parser::from_args(args);
    loop {
        let flag = match parser.next().map_err(|err| typed.wrong(err.to_string()))? {
            None => break,
            Some(lexopt::Arg::Long(name)) => typed.flag(|flag| flag.long == name, "--", name)?,
            Some(lexopt::Arg::Short(name)) => {
                typed.flag(|flag| flag.short == Some(name), "-", &name.to_string())?
            }
            Some(lexopt::Arg::Value(word)) => {
                match typed.verb {
                    None => typed.verb = Some(named(&word)?),
                    Some(verb) if verb.id == Id::Exec && !typed.words.is_empty() => {
                        // From here on everything is the command's own.
                        typed.command.push(word);
                        let rest = parser.raw_args().map_err(|err| typed.wrong(err.to_string()))?;
                        typed.command.extend(rest);
                        typed.command.extend(after().cloned());
                        return Ok(typed);
                    }
                    Some(_) => typed.words.push(word),
                }
                continue;
            }
        };
        let value = match flag.value {
            Some(what) => {
                let missing = |_| typed.wrong(format!("--{} needs a {what}", flag.long));
                parser.value().map_err(missing)?
            }
            None => OsString::new(),
        };
        typed.flags.push((flag, value));
    }
    let rest = after().skip(1).cloned();
    match typed.verb {
        Some(verb) if verb.id == Id::Exec => typed.command.extend(rest),
        _ => typed.words.extend(rest),
    }
    Ok(typed)
}

/// The verb that `word` names.
fn named(word: &OsString) -> Result<&'static Verb, UsageError> {
    let text = word.to_string_lossy();
    verbs::find(&text).ok_or_else(|| {
        let known = VERBS.iter().filter(|verb| verb.group != Group::Hidden);
        let cure = match nearest(&text, known.map(|verb| verb.name)) {
            Some(near) => format!("did you mean `terrarium {near}`?"),
            None => "`terrarium help` lists all verbs".into(),
        };
        UsageError::new(format!("no verb `{}`", text.escape_debug()), cure)
    })
}

impl Typed {
    /// An error about the verb, with the way to its help.
    fn wrong(&self, message: impl Into<String>) -> UsageError {
        let verb = self.verb.map_or(String::new(), |verb| format!("{} ", verb.name));
        UsageError::new(message, format!("see `terrarium {verb}--help`"))
    }

    /// The flag that `is` finds among the verb's own and the global ones.
    fn flag(
        &self,
        is: impl Fn(&Flag) -> bool,
        dashes: &str,
        name: &str,
    ) -> Result<&'static Flag, UsageError> {
        let own = self.verb.map_or(&[][..], |verb| verb.flags);
        let known = || own.iter().chain(GLOBAL);
        known().find(|flag| is(flag)).ok_or_else(|| {
            let message = format!("no flag `{dashes}{}`", name.escape_debug());
            let long = known().filter(|flag| !flag.help.is_empty()).map(|flag| flag.long);
            match nearest(name, long) {
                Some(near) if dashes == "--" => {
                    UsageError::new(message, format!("did you mean `--{near}`?"))
                }
                _ => self.wrong(message),
            }
        })
    }

    fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag.long == long)
    }

    /// The values of a flag, in order.
    fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.flags.iter().filter(move |(flag, _)| flag.long == long).map(|(_, value)| value)
    }

    /// The last value of a flag as text.
    fn value(&self, long: &str) -> Result<Option<String>, UsageError> {
        self.values(long).last().map(|value| self.text(value)).transpose()
    }

    fn text(&self, word: &OsString) -> Result<String, UsageError> {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong(format!("`{}` is not UTF-8", word.display())))
    }

    /// The one word that the verb takes.
    fn only(&self) -> Result<&OsString, UsageError> {
        match &self.words[..] {
            [word] => Ok(word),
            [] => Err(self.wrong(self.missing())),
            [_, extra, ..] => Err(self.wrong(format!("`{}` is one too many", extra.display()))),
        }
    }

    /// Checks that there are words, or none.
    fn expect_words(&self, some: bool) -> Result<(), UsageError> {
        match (some, self.words.first()) {
            (true, None) => Err(self.wrong(self.missing())),
            (false, Some(word)) => Err(self.wrong(format!("`{}` is one too many", word.display()))),
            _ => Ok(()),
        }
    }

    fn missing(&self) -> String {
        self.verb.map_or(String::new(), |verb| format!("`{}` needs {}", verb.name, verb.args))
    }

    fn name(&self, word: &OsString) -> Result<AppName, UsageError> {
        self.text(word)?.parse().map_err(|err| self.wrong(format!("{err}")))
    }

    fn target(&self, word: &OsString) -> Result<Target, UsageError> {
        let text = self.text(word)?;
        let (rest, index) = match text.split_once('/') {
            Some((rest, index)) => {
                let wrong = |_| self.wrong(format!("`{index}` is no instance number"));
                (rest, Some(index.parse().map_err(wrong)?))
            }
            None => (text.as_str(), None),
        };
        let (app, process) = self.process(rest)?;
        Ok(Target { app, process, index })
    }

    /// `NAME[:PROCESS]`.
    fn process(&self, text: &str) -> Result<(AppName, Option<String>), UsageError> {
        let (app, process) = match text.split_once(':') {
            Some((_, "")) => return Err(self.wrong(format!("`{text}` names no process"))),
            Some((app, process)) => (app, Some(process.to_owned())),
            None => (text, None),
        };
        Ok((self.name(&app.into())?, process))
    }

    /// `NAME[:PROCESS]=N` or `NAME[:PROCESS] N`.
    fn scale(&self) -> Result<Command, UsageError> {
        let texts: Vec<String> =
            self.words.iter().map(|w| self.text(w)).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (what, number) = match texts[..] {
            [spec] => spec.split_once('=').ok_or_else(|| self.wrong(self.missing()))?,
            [what, number] if !what.contains('=') => (what, number),
            _ => return Err(self.wrong(self.missing())),
        };
        let instances = number.parse().ok().filter(|n| *n <= 1000);
        let instances = instances
            .ok_or_else(|| self.wrong(format!("`{number}` is not a number from 0 to 1000")))?;
        let (app, process) = self.process(what)?;
        Ok(Command::Scale { app, process, instances })
    }

    fn exec(&self) -> Result<Command, UsageError> {
        let target = self.target(self.only()?)?;
        let argv: Vec<String> =
            self.command.iter().map(|word| self.text(word)).collect::<Result<_, _>>()?;
        if argv.is_empty() {
            return Err(self.wrong("`exec` needs a command"));
        }
        let pair = |word| {
            let text = self.text(word)?;
            let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
            let pair = pair.ok_or_else(|| self.wrong(format!("`{text}` is not NAME=VALUE")))?;
            Ok((pair.0.to_owned(), pair.1.to_owned()))
        };
        let tty = match (self.has("tty"), self.has("no-tty")) {
            (true, true) => return Err(self.wrong("both --tty and --no-tty")),
            (false, false) => None,
            (tty, _) => Some(tty),
        };
        Ok(Command::Exec(Exec {
            target,
            user: self.value("user")?,
            dir: self.value("dir")?,
            env: self.values("env").map(pair).collect::<Result<_, _>>()?,
            tty,
            argv,
        }))
    }

    fn apply(&self) -> Result<Command, UsageError> {
        let files = self.words.iter().chain(self.values("file"));
        let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
        if files.is_empty() {
            return Err(self.wrong(self.missing()));
        }
        let timeout = self.value("timeout")?;
        let timeout = timeout.map(|text| span::parse(&text).map_err(|err| self.wrong(err)));
        let wait = !self.has("no-wait");
        Ok(Command::Apply { files, wait, timeout: timeout.transpose()? })
    }

    fn logs(&self) -> Result<Command, UsageError> {
        let lines = match self.value("lines")? {
            Some(text) => {
                let wrong = |_| self.wrong(format!("`{text}` is no number of lines"));
                Some(text.parse().map_err(wrong)?)
            }
            None => None,
        };
        let target = self.target(self.only()?)?;
        Ok(Command::Logs { target, follow: self.has("follow"), lines })
    }

    fn act(&self, act: Act) -> Result<Command, UsageError> {
        self.expect_words(true)?;
        let names = self.words.iter().map(|word| self.name(word)).collect::<Result<_, _>>()?;
        Ok(Command::Act { act, names })
    }
}

/// Gives words and flags their meaning.
fn understand(typed: Typed) -> Result<Invocation, UsageError> {
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
        Some(verb) => meaning(verb.id, &typed)?,
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
        Id::Check => typed.expect_words(true).map(|()| Command::Check { files: files() }),
        Id::Delete => typed.act(Act::Delete),
        Id::Exec => typed.exec(),
        Id::Help if typed.words.is_empty() => Ok(Command::Help { verb: None }),
        Id::Help => Ok(Command::Help { verb: Some(named(typed.only()?)?.id) }),
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
