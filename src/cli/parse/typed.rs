//! Words and flags of a command line, sorted by the table of verbs, and the checks on each. Pure.

use super::{
    Act, Command, EventsSince, Exec, Image, Import, Push, RunTask, Since, Target, UsageError, What,
};
use crate::cli::text::{nearest, parse_size, parse_utc};
use crate::cli::verbs::{self, Flag, GLOBAL, Group, Id, VERBS, Verb};
use crate::unit::{AppName, Bytes, ImageRef, span};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Words and flags, sorted by the table but not yet understood.
#[derive(Default)]
pub struct Typed {
    pub verb: Option<&'static Verb>,
    pub words: Vec<OsString>,
    flags: Vec<(&'static Flag, OsString)>,
    /// `exec`'s command, verbatim.
    command: Vec<OsString>,
}

/// The verb that `word` names.
pub fn named(word: &OsString) -> Result<&'static Verb, UsageError> {
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
    /// Tells words from flags.
    pub fn sort(&mut self, mut args: Vec<OsString>) -> Result<(), UsageError> {
        let end = args.iter().position(|word| word == "--");
        let after = end.map(|end| args.split_off(end));
        let after = || after.iter().flatten();
        let mut parser = lexopt::Parser::from_args(args);
        loop {
            let flag = match parser.next().map_err(|err| self.wrong(err.to_string()))? {
                None => break,
                Some(lexopt::Arg::Long(name)) => self.flag(|flag| flag.long == name, "--", name)?,
                Some(lexopt::Arg::Short(name)) => {
                    self.flag(|flag| flag.short == Some(name), "-", &name.to_string())?
                }
                Some(lexopt::Arg::Value(word)) => {
                    match self.verb {
                        None => self.verb = Some(named(&word)?),
                        Some(Verb { id: Id::Exec | Id::RunTask, .. }) if !self.words.is_empty() => {
                            // From here on everything is the command's own.
                            self.command.push(word);
                            let rest = parser.raw_args();
                            self.command.extend(rest.map_err(|err| self.wrong(err.to_string()))?);
                            self.command.extend(after().cloned());
                            return Ok(());
                        }
                        Some(_) => self.words.push(word),
                    }
                    continue;
                }
            };
            let value = match flag.value {
                Some(what) => {
                    let missing = |_| self.wrong(format!("--{} needs a {what}", flag.long));
                    parser.value().map_err(missing)?
                }
                None => OsString::new(),
            };
            self.flags.push((flag, value));
        }
        let rest = after().skip(1).cloned();
        match self.verb {
            Some(Verb { id: Id::Exec | Id::RunTask, .. }) => self.command.extend(rest),
            _ => self.words.extend(rest),
        }
        Ok(())
    }

    /// An error about the verb, with the way to its help.
    pub fn wrong(&self, message: impl Into<String>) -> UsageError {
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

    pub fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag.long == long)
    }

    /// The values of a flag, in order.
    pub fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.flags.iter().filter(move |(flag, _)| flag.long == long).map(|(_, value)| value)
    }

    /// The last value of a flag as text.
    pub fn value(&self, long: &str) -> Result<Option<String>, UsageError> {
        self.values(long).last().map(|value| self.text(value)).transpose()
    }

    pub fn text(&self, word: &OsString) -> Result<String, UsageError> {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong(format!("`{}` is not UTF-8", word.display())))
    }

    /// The one word that the verb takes.
    pub fn only(&self) -> Result<&OsString, UsageError> {
        match &self.words[..] {
            [word] => Ok(word),
            [] => Err(self.wrong(self.missing())),
            [_, extra, ..] => Err(self.wrong(format!("`{}` is one too many", extra.display()))),
        }
    }

    /// Checks that there are words, or none.
    pub fn expect_words(&self, some: bool) -> Result<(), UsageError> {
        match (some, self.words.first()) {
            (true, None) => Err(self.wrong(self.missing())),
            (false, Some(word)) => Err(self.wrong(format!("`{}` is one too many", word.display()))),
            _ => Ok(()),
        }
    }

    pub fn missing(&self) -> String {
        self.verb.map_or(String::new(), |verb| format!("`{}` needs {}", verb.name, verb.args))
    }

    pub fn name(&self, word: &OsString) -> Result<AppName, UsageError> {
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
    pub fn scale(&self) -> Result<Command, UsageError> {
        let texts: Vec<String> =
            self.words.iter().map(|w| self.text(w)).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (what, number) = match texts[..] {
            [spec] => spec.split_once('=').ok_or_else(|| self.wrong(self.missing()))?,
            [what, number] if !what.contains('=') => (what, number),
            _ => return Err(self.wrong(self.missing())),
        };
        let instances = number.parse().ok().filter(|n| *n <= 1000);
        let instances = instances.ok_or_else(|| {
            let no_number = format!("`{number}` is not a number from 0 to 1000");
            self.wrong(match number.split_once('=') {
                Some((process, count)) => format!("{no_number}; write `{what}:{process}={count}`"),
                None => no_number,
            })
        })?;
        let (app, process) = self.process(what)?;
        Ok(Command::Scale { app, process, instances })
    }

    pub fn exec(&self) -> Result<Command, UsageError> {
        let target = self.target(self.only()?)?;
        let argv: Vec<String> =
            self.command.iter().map(|word| self.text(word)).collect::<Result<_, _>>()?;
        if argv.is_empty() {
            return Err(self.wrong("`exec` needs a command"));
        }
        let tty = match (self.has("tty"), self.has("no-tty")) {
            (true, true) => return Err(self.wrong("both --tty and --no-tty")),
            (false, false) => None,
            (tty, _) => Some(tty),
        };
        Ok(Command::Exec(Exec {
            target,
            user: self.value("user")?,
            dir: self.value("dir")?,
            env: self.values("env").map(|word| self.pair(word)).collect::<Result<_, _>>()?,
            tty,
            argv,
        }))
    }

    /// `NAME=VALUE`.
    fn pair(&self, word: &OsString) -> Result<(String, String), UsageError> {
        let text = self.text(word)?;
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.ok_or_else(|| self.wrong(format!("`{text}` is not NAME=VALUE")))?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    }

    /// `[PATH|IMAGE]` with cf's letters.
    pub fn push(&self) -> Result<Command, UsageError> {
        let (path, image) = (self.values("path").last(), self.values("docker-image").last());
        // As in `cf push NAME -p PATH`, a word beside what is pushed is the app's name.
        let (what, kind, named) = match (&self.words[..], path, image) {
            (_, Some(_), Some(_)) => return Err(self.wrong("both --path and --docker-image")),
            ([_, word, ..], ..) => {
                return Err(self.wrong(format!("`{}` is one too many", word.display())));
            }
            ([], None, None) => (None, What::Any, None),
            ([word], None, None) => (Some(word), What::Any, None),
            (words, Some(path), None) => (Some(path), What::Path, words.first()),
            (words, None, Some(image)) => (Some(image), What::Image, words.first()),
        };
        let health = self.value("health-check-type")?.map(|kind| match &*kind {
            "http" | "port" | "process" => Ok(kind),
            "none" => Ok("process".to_owned()),
            _ => Err(self.wrong(format!("`{kind}` is no check: http, port or process"))),
        });
        let start_timeout_s = self.value("app-start-timeout")?.map(|text| match text.parse() {
            Ok(seconds @ 1..=86_400) => Ok(seconds),
            _ => Err(self.wrong(format!("`{text}` is no number of seconds"))),
        });
        let name = self.values("name").last().map(|word| self.name(word)).transpose()?;
        let named = named.map(|word| self.name(word)).transpose()?;
        if let (Some(name), Some(other)) = (&name, &named)
            && name != other
        {
            return Err(self.wrong(format!("the app is called both `{other}` and `{name}`")));
        }
        let name = name.or(named);
        let instances = self.value("instances")?.map(|text| {
            let number = text.parse().ok().filter(|number| *number <= 1000);
            number.ok_or_else(|| self.wrong(format!("`{text}` is not a number from 0 to 1000")))
        });
        let cf = self.manifest_of_cf()?;
        Ok(Command::Push(Push {
            what: what.map(|word| self.text(word)).transpose()?,
            kind,
            name,
            buildpacks: self
                .values("buildpack")
                .map(|it| self.text(it))
                .collect::<Result<_, _>>()?,
            memory: self.size("memory")?,
            disk: self.size("disk")?,
            instances: instances.transpose()?,
            command: self.value("command")?,
            stack: self.value("stack")?,
            port: cf.port,
            health: health.transpose()?,
            endpoint: self.value("endpoint")?,
            start_timeout_s: start_timeout_s.transpose()?,
            no_route: self.has("no-route"),
            random_route: self.has("random-route"),
            no_manifest: self.has("no-manifest"),
            force: self.has("force"),
            no_start: self.has("no-start"),
            no_wait: self.has("no-wait"),
            cf: Import {
                file: self.values("manifest").last().map(PathBuf::from).unwrap_or_default(),
                force: false,
                ..cf
            },
        }))
    }

    pub fn restage(&self) -> Result<Command, UsageError> {
        let (name, wait) = (self.name(self.only()?)?, !self.has("no-wait"));
        Ok(Command::Restage { name, wait, timeout: self.timeout()? })
    }

    pub fn rollback(&self) -> Result<Command, UsageError> {
        let (name, wait) = (self.name(self.only()?)?, !self.has("no-wait"));
        let to = self.value("to")?.map(|text| {
            text.parse().map_err(|_| self.wrong(format!("`{text}` is no revision's number")))
        });
        Ok(Command::Rollback { name, to: to.transpose()?, wait, timeout: self.timeout()? })
    }

    /// `NAME COMMAND...`; several words are one line.
    pub fn run_task(&self) -> Result<Command, UsageError> {
        let (name, words) = self.words.split_first().ok_or_else(|| self.wrong(self.missing()))?;
        let words = words.iter().chain(&self.command).chain(self.values("command").last());
        let words: Vec<String> = words.map(|word| self.text(word)).collect::<Result<_, _>>()?;
        if words.iter().all(|word| word.trim().is_empty()) {
            return Err(self.wrong("`run-task` needs a command"));
        }
        Ok(Command::RunTask(RunTask {
            app: self.name(name)?,
            command: words.join(" "),
            memory: self.size("memory")?,
            disk: self.size("disk")?,
            wait: self.has("wait"),
        }))
    }

    /// A size, also in cf's words: `256M`, `1G`, `1T`.
    fn size(&self, flag: &str) -> Result<Option<Bytes>, UsageError> {
        let wrong = |why: String| self.wrong(format!("--{flag}: {why}"));
        self.value(flag)?.map(|text| parse_size(&text).map_err(wrong)).transpose()
    }

    pub fn import(&self) -> Result<Command, UsageError> {
        Ok(Command::Import(Import { file: self.only()?.into(), ..self.manifest_of_cf()? }))
    }

    /// What a manifest of cf is read with.
    pub fn manifest_of_cf(&self) -> Result<Import, UsageError> {
        let paths = |flag| self.values(flag).map(PathBuf::from).collect();
        let port = self.value("port")?.map(|text| match text.parse::<u16>() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(self.wrong(format!("`{text}` is no port"))),
        });
        Ok(Import {
            file: PathBuf::new(),
            vars_files: paths("vars-file"),
            vars: self.values("var").map(|word| self.pair(word)).collect::<Result<_, _>>()?,
            services: paths("services"),
            out: self.values("output").last().map(PathBuf::from),
            port: port.transpose()?,
            force: self.has("force"),
        })
    }

    pub fn apply(&self) -> Result<Command, UsageError> {
        let files = self.words.iter().chain(self.values("file"));
        let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
        if files.is_empty() {
            return Err(self.wrong(self.missing()));
        }
        let wait = !self.has("no-wait");
        Ok(Command::Apply { files, wait, timeout: self.timeout()? })
    }

    fn timeout(&self) -> Result<Option<Duration>, UsageError> {
        let timeout = self.value("timeout")?;
        let timeout = timeout.map(|text| span::parse(&text).map_err(|err| self.wrong(err)));
        timeout.transpose()
    }

    pub fn drain(&self) -> Result<Command, UsageError> {
        self.expect_words(false)?;
        Ok(Command::Drain { wait: self.has("wait"), timeout: self.timeout()? })
    }

    pub fn bench(&self) -> Result<Command, UsageError> {
        self.expect_words(false)?;
        let rounds = match self.value("rounds")? {
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=1000).contains(n))
                .ok_or_else(|| self.wrong(format!("`{text}` is not a number from 1 to 1000")))?,
            None => 25,
        };
        let stack = self.values("stack").last().map(PathBuf::from);
        let stack = stack.ok_or_else(|| self.wrong("`bench` needs --stack FILE"))?;
        Ok(Command::Bench { stack, rounds })
    }

    /// `image WHAT ...`.
    pub fn image(&self) -> Result<Command, UsageError> {
        let (what, words) = match &self.words[..] {
            [] => return Err(self.wrong(self.missing())),
            [what, words @ ..] => (self.text(what)?, words),
        };
        let named = |word| -> Result<ImageRef, UsageError> {
            self.text(word)?.parse().map_err(|err| self.wrong(format!("{err}")))
        };
        let name = self.values("name").last();
        if name.is_some() && what != "load" {
            return Err(self.wrong("--name belongs to `image load`"));
        }
        if self.has("all") && what != "gc" {
            return Err(self.wrong("--all belongs to `image gc`"));
        }
        let label = |word| match named(word) {
            Ok(name) if name.digest().is_some() => {
                Err(self.wrong("--name has a digest; an image gets its own from what is in it"))
            }
            name => name,
        };
        let image = match (what.as_str(), words) {
            ("ls" | "list", []) => Image::List,
            ("pull", [name]) => Image::Pull(named(name)?),
            ("load", [path]) => {
                Image::Load { path: path.into(), name: name.map(label).transpose()? }
            }
            ("save", [image, file]) => Image::Save { image: self.text(image)?, file: file.into() },
            ("rm" | "remove", [_, ..]) => {
                Image::Remove(words.iter().map(|word| self.text(word)).collect::<Result<_, _>>()?)
            }
            ("gc", []) => Image::Collect { all: self.has("all") },
            ("inspect", [image]) => Image::Inspect(self.text(image)?),
            ("ls" | "list" | "pull" | "load" | "save" | "rm" | "remove" | "gc" | "inspect", _) => {
                let text = format!("`image {what}` has too few or too many words behind it");
                return Err(self.wrong(text));
            }
            _ => return Err(self.wrong(format!("no `image {}`", what.escape_debug()))),
        };
        Ok(Command::Image(image))
    }

    pub fn logs(&self) -> Result<Command, UsageError> {
        let lines = match self.value("lines")? {
            Some(text) => {
                let wrong = |_| self.wrong(format!("`{text}` is no number of lines"));
                Some(text.parse().map_err(wrong)?)
            }
            None => None,
        };
        let since = self.value("since")?.map(|text| self.since(&text)).transpose()?;
        let source = self.value("source")?;
        let target = self.target(self.only()?)?;
        Ok(Command::Logs { target, follow: self.has("follow"), lines, since, source })
    }

    pub fn events(&self) -> Result<Command, UsageError> {
        self.expect_words(false)?;
        let since = match self.value("since")? {
            None => None,
            Some(text) => Some(match text.parse() {
                Ok(id) => EventsSince::Id(id),
                Err(_) => EventsSince::Time(self.since(&text).map_err(|_| {
                    let wrong =
                        format!("`{text}` is neither an event's id, nor so long ago, nor a time");
                    UsageError::new(
                        wrong,
                        "write \"3-17\", \"10m\" or \"2026-11-21T15:04:05\" (UTC)",
                    )
                })?),
            }),
        };
        Ok(Command::Events { since, follow: self.has("follow") })
    }

    pub fn explain(&self) -> Result<Command, UsageError> {
        Ok(Command::Explain { target: self.target(self.only()?)? })
    }

    fn since(&self, text: &str) -> Result<Since, UsageError> {
        let at = || parse_utc(text).map(Since::At);
        span::parse(text).ok().map(Since::Ago).or_else(at).ok_or_else(|| {
            let wrong = format!("`{text}` is neither so long ago nor a time in UTC");
            UsageError::new(wrong, "write \"10m\" or \"2026-11-21T15:04:05\"")
        })
    }

    /// `NAME...`, or one `NAME[:PROCESS]/INDEX`.
    pub fn restart(&self) -> Result<Command, UsageError> {
        let one = |word: &OsString| word.to_str().is_some_and(|word| word.contains(['/', ':']));
        if !self.words.iter().any(one) {
            return self.act(Act::Restart);
        }
        let target = self.target(self.only()?)?;
        match target.index {
            Some(_) => Ok(Command::Afresh(target)),
            None => {
                Err(self.wrong("a process is restarted as a whole app, or instance by instance"))
            }
        }
    }

    pub fn cancel(&self) -> Result<Command, UsageError> {
        self.expect_words(true)?;
        let guids = self.words.iter().map(|word| self.text(word)).collect::<Result<_, _>>()?;
        Ok(Command::Cancel { guids })
    }

    pub fn act(&self, act: Act) -> Result<Command, UsageError> {
        self.expect_words(true)?;
        let names = self.words.iter().map(|word| self.name(word)).collect::<Result<_, _>>()?;
        Ok(Command::Act { act, names, wait: !self.has("no-wait") })
    }
}
