//! The one table of verbs and flags: parser, help and completions are made from it. Pure.

mod cf;

/// A verb.
#[derive(Debug)]
pub struct Verb {
    /// Which one.
    pub id: Id,
    /// What is typed.
    pub name: &'static str,
    /// What else is understood.
    pub aliases: &'static [&'static str],
    /// Where help lists it.
    pub group: Group,
    /// What comes after it.
    pub args: &'static str,
    /// One line, lower case.
    pub summary: &'static str,
    /// What one has to know besides; may be empty.
    pub details: &'static str,
    /// A line that can be typed as it is.
    pub example: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
}

/// A flag.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub long: &'static str,
    /// Without the dash.
    pub short: Option<char>,
    /// The name of its value; `None`: it has none.
    pub value: Option<&'static str>,
    /// One line, lower case; empty: understood, but not shown.
    pub help: &'static str,
}

/// Headings of the help text, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Change what runs.
    Change,
    /// Look at what runs.
    Look,
    /// The box itself.
    Box,
    /// For other programs.
    Hidden,
}

/// Every verb there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Id {
    App,
    Apply,
    Apps,
    Bench,
    Cancel,
    Check,
    Delete,
    Drain,
    Events,
    Exec,
    Explain,
    Help,
    Image,
    Import,
    Init,
    Lifecycle,
    Logs,
    Push,
    Restage,
    Restart,
    Revisions,
    Rollback,
    Run,
    RunTask,
    Scale,
    Serve,
    Start,
    Status,
    Stop,
    Task,
    Tasks,
    Top,
    Undrain,
    Version,
}

const fn flag(
    long: &'static str,
    short: Option<char>,
    value: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag { long, short, value, help }
}

/// Flags that every verb takes.
pub const GLOBAL: &[Flag] = &[
    flag("help", Some('h'), None, "what the verb does, with an example"),
    flag("host", Some('H'), Some("ADDRESS"), "the daemon's socket, unix:///PATH (TERRARIUM_HOST)"),
    flag("json", None, None, "one JSON document; streams are a line of JSON for each item"),
    flag("no-color", None, None, "never use colours (NO_COLOR)"),
    flag("quiet", Some('q'), None, "say only what was asked for, and errors"),
    flag("root", None, Some("DIR"), "the tree that everything of the box lives in, default /"),
    flag("version", Some('V'), None, "the version of this program"),
];

/// What start, restart and delete have besides.
const UNASKED: &[Flag] = &[flag("force", Some('f'), None, ""), flag("yes", Some('y'), None, "")];

/// The table.
pub const VERBS: &[Verb] = &[
    Verb {
        id: Id::Run,
        name: "run",
        aliases: &[],
        group: Group::Change,
        args: "FILE",
        summary: "stage and run an app in the foreground until Ctrl-C",
        details: "Uses the daemon when one answers, and otherwise is one itself for that time.\n\
            Ctrl-C removes the app and everything that was made for it.",
        example: "terrarium run hello.toml",
        flags: &[],
    },
    Verb {
        id: Id::Apply,
        name: "apply",
        aliases: &[],
        group: Group::Change,
        args: "FILE|DIR...",
        summary: "make manifests true: stage, start, update",
        details: "All manifests are checked before the first is applied. A directory means every\n\
            *.toml in it. Ctrl-C ends the waiting, not the work.",
        example: "terrarium apply apps/",
        flags: &[
            flag("file", Some('f'), Some("FILE|DIR"), ""),
            flag("no-wait", None, None, "return when the manifest is accepted"),
            flag("timeout", None, Some("TIME"), "wait no longer than this, such as 5m (exit 7)"),
            flag("wait", None, None, ""),
        ],
    },
    cf::PUSH,
    Verb {
        id: Id::Scale,
        name: "scale",
        aliases: &[],
        group: Group::Change,
        args: "NAME[:PROCESS]=N",
        summary: "run this many instances",
        details: "Without a process it is `web`, or the only one. `scale NAME N` is understood too.",
        example: "terrarium scale orders:worker=3",
        flags: &[],
    },
    Verb {
        id: Id::Start,
        name: "start",
        aliases: &[],
        group: Group::Change,
        args: "NAME...",
        summary: "run a stopped or crashed app again",
        details: "",
        example: "terrarium start orders",
        flags: UNASKED,
    },
    Verb {
        id: Id::Stop,
        name: "stop",
        aliases: &[],
        group: Group::Change,
        args: "NAME...",
        summary: "end all instances and keep the app",
        details: "Returns when they have ended: each gets TERM, and KILL ten seconds later, unless [stop]\n\
            of its manifest says otherwise.",
        example: "terrarium stop orders",
        flags: &[
            flag("force", Some('f'), None, ""),
            flag("no-wait", None, None, "return when they are told to end"),
            flag("yes", Some('y'), None, ""),
        ],
    },
    Verb {
        id: Id::Restart,
        name: "restart",
        aliases: &[],
        group: Group::Change,
        args: "NAME... | NAME[:PROCESS]/INDEX",
        summary: "replace all instances by fresh ones, or a single one",
        details: "Of an app each fresh instance is healthy before the old one goes, where the box has\n\
            room for both. With an index that one ends and is made again.",
        example: "terrarium restart orders",
        flags: UNASKED,
    },
    cf::RESTAGE,
    cf::ROLLBACK,
    cf::RUN_TASK,
    Verb {
        id: Id::Delete,
        name: "delete",
        aliases: &["rm"],
        group: Group::Change,
        args: "NAME...",
        summary: "remove an app and all that was made for it",
        details: "Nothing is asked. Returns when nothing of the app is left.",
        example: "terrarium delete orders",
        flags: UNASKED,
    },
    Verb {
        id: Id::Cancel,
        name: "cancel",
        aliases: &[],
        group: Group::Change,
        args: "GUID...",
        summary: "end a task that has not completed",
        details: "It has failed at once; its processes get TERM, and KILL ten seconds later.",
        example: "terrarium cancel backup-2026-11-21",
        flags: &[],
    },
    Verb {
        id: Id::Exec,
        name: "exec",
        aliases: &["ssh"],
        group: Group::Change,
        args: "NAME[:PROCESS][/INDEX] [--] COMMAND...",
        summary: "run a command inside an instance",
        details: "With a terminal when stdin and stdout are one. The exit code is the command's own,\n\
            128+n after signal n. 126: it is not executable; 127: there is no such program; 125:\n\
            terrarium failed, be it the line that was typed, the daemon, the app or the instance.",
        example: "terrarium exec orders/0 -- sh",
        flags: &[
            flag("dir", Some('w'), Some("DIR"), "start in this directory"),
            flag("env", Some('e'), Some("NAME=VALUE"), "add to its environment; may be repeated"),
            flag("interactive", Some('i'), None, ""),
            flag("no-tty", Some('T'), None, "pipes, even on a terminal"),
            flag("tty", Some('t'), None, "a terminal, even from a pipe"),
            flag("user", Some('u'), Some("USER"), "as this user of the container"),
        ],
    },
    Verb {
        id: Id::Apps,
        name: "apps",
        aliases: &["ps", "ls"],
        group: Group::Look,
        args: "",
        summary: "list the apps",
        details: "",
        example: "terrarium apps --json",
        flags: &[],
    },
    Verb {
        id: Id::App,
        name: "app",
        aliases: &[],
        group: Group::Look,
        args: "NAME",
        summary: "show one app and its instances",
        details: "Exit code 3 when it is not running as it should.",
        example: "terrarium app orders",
        flags: &[],
    },
    Verb {
        id: Id::Logs,
        name: "logs",
        aliases: &[],
        group: Group::Look,
        args: "NAME[:PROCESS][/INDEX]",
        summary: "show what an app has written",
        details: "Of the past, the newest 100 lines; with --since all since then, at most 10000.",
        example: "terrarium logs orders -f",
        flags: &[
            flag("follow", Some('f'), None, "go on until the app is gone or stopped"),
            flag("lines", Some('n'), Some("LINES"), "so many of the newest, default 100"),
            flag(
                "since",
                None,
                Some("TIME"),
                "those since 10m ago, or since 2026-11-21T15:04 (UTC)",
            ),
            flag("source", None, Some("SOURCE"), "those of STG, APP, CELL, HEALTH, ..."),
        ],
    },
    Verb {
        id: Id::Events,
        name: "events",
        aliases: &[],
        group: Group::Look,
        args: "",
        summary: "what has happened to the apps, and what happens",
        details: "The last 1024 of them since the daemon began; with -f those to come, and after --since\n\
            both. A crash comes with its count and its reason. Each has an id, by which one goes on\n\
            where one has left off, also across a restart of the daemon; what is not known any more\n\
            is said.",
        example: "terrarium events -f --since 10m",
        flags: &[
            flag("follow", Some('f'), None, "go on until the daemon ends"),
            flag(
                "since",
                None,
                Some("ID|TIME"),
                "those after this one, such as 3-17, or since 10m ago",
            ),
        ],
    },
    cf::REVISIONS,
    Verb {
        id: Id::Explain,
        name: "explain",
        aliases: &["why"],
        group: Group::Look,
        args: "NAME[:PROCESS][/INDEX]",
        summary: "what happened to an app, why, what comes next, and what to do",
        details: "Exit code 3 when something of it is not running as it should.",
        example: "terrarium explain orders/0",
        flags: &[],
    },
    Verb {
        id: Id::Status,
        name: "status",
        aliases: &[],
        group: Group::Look,
        args: "[NAME]",
        summary: "one screen: is everything healthy? (also without any verb)",
        details: "Exit code 3 when anything is not healthy. Of the containers of\nGarden's clients the \
                  first 20 are shown; --json has all.",
        example: "terrarium status",
        flags: &[],
    },
    Verb {
        id: Id::Tasks,
        name: "tasks",
        aliases: &[],
        group: Group::Look,
        args: "",
        summary: "list the tasks: stagings, and what clients have asked for",
        details: "A task is done once; two minutes after its end it is forgotten.",
        example: "terrarium tasks --json",
        flags: &[],
    },
    Verb {
        id: Id::Top,
        name: "top",
        aliases: &[],
        group: Group::Look,
        args: "[NAME]",
        summary: "what every instance uses, the busiest first",
        details: "Processor in percent of one; memory and disk with their limits; processes and threads. On a\n\
                  terminal it is looked at again every two seconds until Ctrl-C; else, and with --json,\n\
                  once.",
        example: "terrarium top",
        flags: &[],
    },
    Verb {
        id: Id::Task,
        name: "task",
        aliases: &[],
        group: Group::Look,
        args: "GUID",
        summary: "show one task, its end and its result",
        details: "Exit code 3 when it has failed.",
        example: "terrarium task backup-2026-11-21",
        flags: &[],
    },
    Verb {
        id: Id::Image,
        name: "image",
        aliases: &["images"],
        group: Group::Box,
        args: "ls|pull|load|save|rm|gc|inspect [ARGS]...",
        summary: "the images of this box: from registries and from files",
        details: "ls              list them: names, digests, sizes, containers that are made of them\n\
            pull NAME       fetch one from its registry; prints its name with its digest\n\
            load FILE|DIR   take those of an archive (`docker save`, OCI) or of an OCI layout\n\
            save NAME FILE  write one as `docker load` reads it, and tell the id it has there\n\
            rm NAME...      forget a name; its last one: the image, unless it is in use\n\
            gc              remove what nobody can ask for or needs; --all: every image that\n\
            \x20               nothing on the box is made of\n\
            inspect NAME    all about one, as JSON, in docker's words\n\
            NAME is [HOST/]PATH[:TAG], a digest, or six digits or more that it begins with.",
        example: "terrarium image pull docker.io/library/busybox:1.36",
        flags: &[
            flag(
                "name",
                None,
                Some("NAME"),
                "load: with a tag, what the image is called; else before its tag",
            ),
            flag("all", None, None, "gc: every image that nothing is made of"),
        ],
    },
    cf::IMPORT,
    Verb {
        id: Id::Check,
        name: "check",
        aliases: &[],
        group: Group::Box,
        args: "FILE|DIR...",
        summary: "find the mistakes in manifests; needs no daemon",
        details: "Looks at the text, and whether this box has the source, the stack, the buildpacks\n\
            and room for an instance. Exit code 5 when there are mistakes; warnings are none.",
        example: "terrarium check hello.toml",
        flags: &[],
    },
    Verb {
        id: Id::Serve,
        name: "serve",
        aliases: &[],
        group: Group::Box,
        args: "",
        summary: "be the daemon, as systemd starts it",
        details: "Reads etc/terrarium/terrarium.toml below the root (or TERRARIUM_CONFIG).",
        example: "terrarium serve --root /srv/test",
        flags: &[],
    },
    Verb {
        id: Id::Drain,
        name: "drain",
        aliases: &[],
        group: Group::Box,
        args: "",
        summary: "start nothing new, let Tasks end, then end all instances",
        details: "What is desired stays as it is and starts again after `undrain`, or when the box\n\
            has been started anew; a restart of the daemon does not end it. Containers of\n\
            Garden's clients are left alone.",
        example: "terrarium drain --wait --timeout 10m",
        flags: &[
            flag("timeout", None, Some("TIME"), "Tasks may go on for so long"),
            flag("wait", None, None, "return when nothing is left; exit code 1: something is"),
        ],
    },
    Verb {
        id: Id::Undrain,
        name: "undrain",
        aliases: &[],
        group: Group::Box,
        args: "",
        summary: "serve again after `drain`",
        details: "",
        example: "terrarium undrain",
        flags: &[],
    },
    Verb {
        id: Id::Version,
        name: "version",
        aliases: &[],
        group: Group::Box,
        args: "",
        summary: "the version of this program",
        details: "",
        example: "terrarium version --json",
        flags: &[],
    },
    Verb {
        id: Id::Help,
        name: "help",
        aliases: &[],
        group: Group::Box,
        args: "[VERB]",
        summary: "this, or what one verb does",
        details: "",
        example: "terrarium help apply",
        flags: &[],
    },
    Verb {
        id: Id::Bench,
        name: "bench",
        aliases: &[],
        group: Group::Hidden,
        args: "",
        summary: "measure what containers cost, as JSON",
        details: "Below a root of its own; `cargo xtask bench` calls it.",
        example: "terrarium bench --stack target/rootfs/tiny.tar.zst --rounds 25",
        flags: &[
            flag("rounds", None, Some("N"), "how many containers are measured, default 25"),
            flag("stack", None, Some("FILE"), "what they are made of"),
        ],
    },
    Verb {
        id: Id::Init,
        name: "init",
        aliases: &[],
        group: Group::Hidden,
        args: "",
        summary: "be the first process of a container",
        details: "",
        example: "terrarium init",
        flags: &[],
    },
    Verb {
        id: Id::Lifecycle,
        name: "lifecycle",
        aliases: &[],
        group: Group::Hidden,
        args: "ROLE [ARGS]...",
        summary: "be one of the programs that run inside containers",
        details: "",
        example: "terrarium lifecycle launcher",
        flags: &[],
    },
];

/// The verb with this name or alias.
pub fn find(word: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == word || verb.aliases.contains(&word))
}

/// The verb's entry.
pub fn verb(id: Id) -> &'static Verb {
    VERBS.iter().find(|verb| verb.id == id).expect("the table has a row for every verb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_word_and_no_flag_means_two_things() {
        let mut words = BTreeSet::new();
        for verb in VERBS {
            for word in [&verb.name].into_iter().chain(verb.aliases) {
                assert!(words.insert(*word), "{word}");
            }
            let mut flags = BTreeSet::new();
            for flag in GLOBAL.iter().chain(verb.flags) {
                assert!(flags.insert(flag.long.to_owned()), "{} --{}", verb.name, flag.long);
                if let Some(short) = flag.short {
                    assert!(flags.insert(short.to_string()), "{} -{short}", verb.name);
                }
            }
        }
    }
}
