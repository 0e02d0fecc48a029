//! The verbs that users of cf look for: rows of the table. Pure.

use super::{Flag, Group, Id, Verb, flag};

/// What restage has.
const FOLLOWED: &[Flag] = &[
    flag("no-wait", None, None, "return when it is accepted"),
    flag("timeout", None, Some("TIME"), "wait no longer than this, such as 5m (exit 7)"),
    flag("wait", None, None, ""),
];

/// `push`.
pub const PUSH: Verb = Verb {
    id: Id::Push,
    name: "push",
    aliases: &[],
    group: Group::Change,
    args: "[PATH|IMAGE]",
    summary: "send a directory, or name an image: stage and run it, as cf does",
    details: "What the app is, manifest.yml in the directory says, else terrarium.toml there, else\n\
        the flags, which win in any case. The directory is sent without what .cfignore names.\n\
        PATH is the directory itself, default here, or a zip, jar or war, whose contents are\n\
        sent; -n takes one app of several. What has not changed is not staged again.\n\
        IMAGE has a tag, a digest or a registry, or is on this box; -o takes any name for one.\n\
        `-b null` and `-c null` take back what a manifest says.",
    example: "terrarium push shop -n shop -m 256M -i 2",
    flags: &[
        flag("app-start-timeout", Some('t'), Some("SECONDS"), "until the first healthy check"),
        flag("buildpack", Some('b'), Some("NAME"), "may be repeated"),
        flag("command", Some('c'), Some("COMMAND"), "what `web` starts"),
        flag("disk", Some('k'), Some("SIZE"), "of each instance, such as 1G"),
        flag("docker-image", Some('o'), Some("IMAGE"), "push this image, whatever it is called"),
        flag("endpoint", None, Some("PATH"), "of -u http"),
        flag("force", None, None, "stage it though nothing has changed"),
        flag("health-check-type", Some('u'), Some("TYPE"), "http, port or process"),
        flag("instances", Some('i'), Some("N"), "how many, whatever `scale` has said"),
        flag("manifest", Some('f'), Some("FILE"), "a manifest.yml that is elsewhere"),
        flag("memory", Some('m'), Some("SIZE"), "of each instance, such as 256M"),
        flag("name", Some('n'), Some("NAME"), "of the app, default as the directory's"),
        flag("no-manifest", None, None, "do not read one that is there"),
        flag("no-route", None, None, "publish no port of the box"),
        flag("no-start", None, None, "only send it; `start` stages and runs it"),
        flag("no-wait", None, None, "return when it is accepted"),
        flag("path", Some('p'), Some("PATH"), ""),
        flag("port", None, Some("N"), "of the box, default the one that it has, or a free one"),
        flag("random-route", None, None, ""),
        flag("services", None, Some("FILE"), "as of `import`"),
        flag("stack", Some('s'), Some("NAME"), "what it is staged and run on"),
        flag("var", None, Some("NAME=VALUE"), "as of `import`"),
        flag("vars-file", None, Some("FILE"), "as of `import`"),
    ],
};

/// `import`.
pub const IMPORT: Verb = Verb {
    id: Id::Import,
    name: "import",
    aliases: &[],
    group: Group::Box,
    args: "FILE|DIR",
    summary: "turn a manifest.yml of cf into manifests; needs no daemon",
    details: "Writes NAME.toml for each application, and lists below it what has no counterpart here,\n\
        or is done otherwise. A file that is there already is not touched. --services has\n\
        tables [NAME] with `credentials`, or VCAP_SERVICES as JSON, as `cf env` shows it.",
    example: "terrarium import manifest.yml --vars-file prod.yml -o apps/",
    flags: &[
        flag("force", Some('f'), None, "write over files that are there"),
        flag("output", Some('o'), Some("DIR"), "where to, default here"),
        flag("port", None, Some("N"), "of the box, for the first app with a route, default 8080"),
        flag("services", None, Some("FILE"), "what is known of services; may be repeated"),
        flag("var", None, Some("NAME=VALUE"), "of ((NAME)); may be repeated"),
        flag("vars-file", None, Some("FILE"), "the same, from YAML; may be repeated"),
    ],
};

/// `restage`.
pub const RESTAGE: Verb = Verb {
    id: Id::Restage,
    name: "restage",
    aliases: &[],
    group: Group::Change,
    args: "NAME",
    summary: "stage an app again, and replace its instances",
    details: "Whether its source has changed or not: buildpacks, stack or a tag may have.",
    example: "terrarium restage orders",
    flags: FOLLOWED,
};

/// `rollback`.
pub const ROLLBACK: Verb = Verb {
    id: Id::Rollback,
    name: "rollback",
    aliases: &[],
    group: Group::Change,
    args: "NAME",
    summary: "run an older version of an app again",
    details: "Without --to it is the last other one that was ever healthy. That makes a new revision;\n\
        nothing is staged. What its file says stays undone until the file changes.",
    example: "terrarium rollback orders --to 3",
    flags: &[
        flag("force", Some('f'), None, ""),
        flag("no-wait", None, None, "return when it is accepted"),
        flag("timeout", None, Some("TIME"), "wait no longer than this, such as 5m (exit 7)"),
        flag("to", None, Some("REVISION"), "this one, of those that `revisions` lists"),
        flag("wait", None, None, ""),
        flag("yes", Some('y'), None, ""),
    ],
};

/// `run-task`.
pub const RUN_TASK: Verb = Verb {
    id: Id::RunTask,
    name: "run-task",
    aliases: &[],
    group: Group::Change,
    args: "NAME [--] COMMAND...",
    summary: "run a command once, in a container of its own made as the app's are",
    details: "Prints the task's guid: `task GUID` shows its end, `cancel GUID` ends it, what it prints\n\
        is in `logs NAME --source APP/TASK`. Several words are one line for a shell. With --wait\n\
        the exit code is 3 when it has failed.",
    example: "terrarium run-task orders -- rake db:migrate",
    flags: &[
        flag("command", Some('c'), Some("COMMAND"), ""),
        flag("disk", Some('k'), Some("SIZE"), "such as 1GiB, default as the app's"),
        flag("memory", Some('m'), Some("SIZE"), "such as 256MiB, default as the app's"),
        flag("wait", Some('w'), None, "return when it has ended"),
    ],
};

/// `revisions`.
pub const REVISIONS: Verb = Verb {
    id: Id::Revisions,
    name: "revisions",
    aliases: &[],
    group: Group::Look,
    args: "NAME",
    summary: "what an app has run, which `rollback` can run again",
    details: "The last five that were ever healthy, and the last that was not, with the reason. --json has\n\
        the text of each manifest as well.",
    example: "terrarium revisions orders",
    flags: &[],
};
