//! What every Rust file is held to. Each rule takes a parsed file and returns what it found.

use super::Finding;
use super::rooms::{self, Rooms};
use super::source::{self, Path, Token};

/// One file with all that the rules want to know of it.
pub struct File<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub tokens: Vec<Token>,
    pub paths: Vec<Path>,
    pub room: Option<&'a str>,
}

impl<'a> File<'a> {
    pub fn new(name: &'a str, text: &'a str) -> File<'a> {
        let tokens = source::tokens(text);
        let paths = source::paths(&tokens);
        File { name, text, tokens, paths, room: rooms::room_of(name) }
    }

    /// A file of tests only: under `tests/`, or called so by a room.
    fn is_test(&self) -> bool {
        let stem = self.name.rsplit('/').next().unwrap_or(self.name).trim_end_matches(".rs");
        self.name.starts_with("tests/") || stem == "tests" || stem.ends_with("_tests")
    }

    fn fail(&self, line: usize, rule: &'static str, what: String, cure: &str) -> Finding {
        Finding { file: self.name.to_owned(), line, rule, what, cure: cure.to_owned(), fatal: true }
    }
}

/// A room imports from lower rows only.
pub fn arrows(file: &File, all: &Rooms) -> Vec<Finding> {
    let Some(room) = file.room.filter(|_| file.name != "src/lib.rs") else { return Vec::new() };
    let mut found = Vec::new();
    for path in &file.paths {
        let Some(target) = rooms::target(file.name, path) else { continue };
        if let Some(why) = rooms::refusal(all, room, target) {
            found.push(file.fail(
                path.line,
                "arrows",
                why,
                "move the shared part down, or pass it in as a value",
            ));
        }
    }
    found
}

/// A room's `mod.rs` opens with its owner's card.
pub fn cards(file: &File) -> Option<Finding> {
    let is_door = file.name.split('/').count() == 3 && file.name.ends_with("/mod.rs");
    if !is_door || file.room.is_none() {
        return None;
    }
    let card: Vec<&str> =
        file.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let card = card.join(" ");
    let missing: Vec<&str> = ["Owns:", "Must not:", "Called by:", "Calls:"]
        .into_iter()
        .filter(|key| !card.contains(key))
        .collect();
    (!missing.is_empty()).then(|| {
        file.fail(
            1,
            "cards",
            format!("the card lacks {}", missing.join(" ")),
            "open mod.rs with `//!` lines as src/unit/mod.rs does",
        )
    })
}

/// `unsafe` is written in `src/sys` only.
pub fn no_unsafe(file: &File) -> Vec<Finding> {
    if file.room == Some("sys") || file.name == PROBE {
        return Vec::new();
    }
    let bad = |token: &&Token| matches!(token.text.as_str(), "unsafe" | "unsafe_code");
    let found = file.tokens.iter().filter(bad);
    found
        .map(|token| {
            file.fail(
                token.line,
                "unsafe",
                format!("`{}` outside src/sys", token.text),
                "give the request a function in src/sys and call that",
            )
        })
        .collect()
}

/// Files that compute values from values, by name.
const PURE: [&str; 20] = [
    "plan",
    "recipe",
    "diff",
    "pool",
    "graph",
    "wire",
    "proto",
    "state",
    "manifest",
    "egress",
    "text",
    "verbs",
    "show",
    "crash",
    "lrp_state",
    "rollout",
    "waits",
    "room",
    "backoff",
    "bucket",
];

/// Rooms that are pure as a whole.
const PURE_ROOMS: [&str; 2] = ["unit", "model"];

/// What reaches the world: a clock, a file, a socket, a random source, the environment.
const WORLD: [&[&str]; 22] = [
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "os", "unix", "net"],
    &["std", "os", "linux", "net"],
    &["std", "io", "stdin"],
    &["std", "io", "stdout"],
    &["std", "io", "stderr"],
    &["std", "time", "SystemTime"],
    &["smol"],
    &["async_io"],
    &["rand"],
    &["getrandom"],
    &["nix"],
    &["libc"],
    &["netlink_sys"],
    &["redb"],
];

/// Calls that give a file away however the type was imported.
const WORLD_CALLS: [[&str; 2]; 5] = [
    ["SystemTime", "now"],
    ["Instant", "now"],
    ["File", "open"],
    ["File", "create"],
    ["OpenOptions", "new"],
];

/// Pure files take what they need as arguments. Their tests may read golden files.
pub fn purity(file: &File) -> Vec<Finding> {
    let Some(room) = file.room else { return Vec::new() };
    let mut parts = file.name.split('/').map(|part| part.trim_end_matches(".rs")).skip(2);
    let by_name = PURE_ROOMS.contains(&room) || parts.any(|part| PURE.contains(&part));
    if !by_name || file.is_test() {
        return Vec::new();
    }
    let reaches = |path: &&Path| {
        !path.test
            && (WORLD.iter().any(|bad| reaches_crate(path, bad))
                || WORLD_CALLS.iter().any(|bad| path.ends_with(bad)))
    };
    let found = file.paths.iter().filter(reaches);
    found
        .map(|path| {
            file.fail(
                path.line,
                "pure",
                format!("`{}` in a file that is pure by name", path.segments.join("::")),
                "take the value as an argument, or move the acting part to another file",
            )
        })
        .collect()
}

/// Who may use a crate of the outside.
const PLACES: [(&[&str], Place); 4] = [
    (&["nix", "libc"], Place::Only("src/sys/")),
    (&["netlink_sys"], Place::Only("src/netlink/")),
    (&["redb"], Place::Only("src/cell/")),
    (
        &[
            "smol",
            "async_io",
            "async_channel",
            "async_lock",
            "async_executor",
            "blocking",
            "futures_lite",
        ],
        Place::FromRow(3),
    ),
];

enum Place {
    Only(&'static str),
    FromRow(u32),
}

/// Some crates have one room.
pub fn places(file: &File, all: &Rooms) -> Vec<Finding> {
    let Some(room) = file.room else { return Vec::new() };
    let mut found = Vec::new();
    for (names, place) in &PLACES {
        let cure = match place {
            Place::Only(folder) if file.name.starts_with(folder) => continue,
            Place::Only(folder) => format!("use what {folder} offers, or add it there"),
            Place::FromRow(row) if all.get(room).is_some_and(|room| room.row >= *row) => continue,
            Place::FromRow(row) => {
                format!("rooms below row {row} block; the caller moves them aside")
            }
        };
        for path in &file.paths {
            if let Some(name) = names.iter().find(|name| reaches_crate(path, &[name])) {
                let what = format!("`{name}` in `{room}`");
                found.push(file.fail(path.line, "places", what, &cure));
            }
        }
    }
    found
}

/// A path into a crate: two names or more, or the bare name in a `use`.
fn reaches_crate(path: &Path, bad: &[&str]) -> bool {
    path.starts_with(bad) && (path.segments.len() > 1 || path.imported)
}

/// A program that a kernel test runs inside a container, to ask for what must be refused: raw
/// system calls, and no test of its own outside.
const PROBE: &str = "tests/kernel/init/probe.rs";

/// What must not be committed: unfinished code, switched-off tests, sleeping instead of waiting.
pub fn leftovers(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for pair in file.tokens.windows(2) {
        let word = pair[0].text.as_str();
        if matches!(word, "todo" | "unimplemented" | "dbg") && pair[1].text == "!" {
            let what = format!("`{word}!` is left");
            found.push(file.fail(pair[0].line, "leftovers", what, "finish it, or leave it out"));
        }
    }
    for three in file.tokens.windows(3) {
        if three[0].text == "#"
            && three[1].text == "["
            && three[2].text == "ignore"
            && file.name != PROBE
        {
            let what = "a test is switched off".to_owned();
            found.push(file.fail(three[2].line, "leftovers", what, "mend it, or remove it"));
        }
    }
    found.extend(sleeps(file));
    found
}

/// Waiting means waiting for an event. Where there is none, the code says so; tests never guess.
/// xtask is free: it waits for programs that give no other sign of life.
fn sleeps(file: &File) -> Vec<Finding> {
    let excused = |line: usize| {
        let above = file.text.lines().take(line).skip(line.saturating_sub(4));
        !file.is_test() && above.map(str::trim).any(|text| text.starts_with("// No event:"))
    };
    let bad = |path: &&Path| path.ends_with(&["thread", "sleep"]) && !excused(path.line);
    if file.name.starts_with("xtask/") {
        return Vec::new();
    }
    let found = file.paths.iter().filter(bad);
    found
        .map(|path| {
            file.fail(
                path.line,
                "leftovers",
                "a thread sleeps".to_owned(),
                "wait for the event, with a limit; where the kernel has none, say in one of the \
                 three lines above `// No event: why`",
            )
        })
        .collect()
}

/// Files that are read, not scrolled. Tests do not count.
pub fn length(file: &File) -> Option<Finding> {
    const WARN: usize = 350;
    const FAIL: usize = 600;
    if file.is_test() {
        return None;
    }
    let lines = source::production_lines(file.text, &file.tokens);
    (lines > WARN).then(|| Finding {
        fatal: lines > FAIL,
        ..file.fail(
            lines.min(file.text.lines().count()),
            "length",
            format!("{lines} lines without its tests; aim below {WARN}, never above {FAIL}"),
            "split it where a reader would pause",
        )
    })
}
