//! The table of rooms in `ARCHITECTURE.md`, and the arrows it allows.

use super::source::Path;
use std::collections::BTreeMap;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A room imports only from lower rows.
    pub row: u32,
    /// Rooms of the same row that it may import all the same.
    pub beside: Vec<String>,
}

/// Rooms by name.
pub type Rooms = BTreeMap<String, Room>;

/// Reads the table whose head is `| row | room | beside | ...`: a number, names in backticks,
/// names in backticks or nothing.
pub fn parse(markdown: &str) -> Result<Rooms, String> {
    let mut rooms = Rooms::new();
    let mut inside = false;
    for line in markdown.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') || cells.len() < 3 {
            inside = false;
        } else if cells[..3] == ["row", "room", "beside"] {
            inside = true;
        } else if inside && !cells[0].starts_with("--") {
            let row = cells[0].parse().map_err(|_| format!("`{}` is no row number", cells[0]))?;
            for name in names(cells[1]) {
                let room = Room { row, beside: names(cells[2]) };
                if rooms.insert(name.clone(), room).is_some() {
                    return Err(format!("`{name}` stands in the table twice"));
                }
            }
        }
    }
    match rooms.is_empty() {
        true => Err("no table with the head `| row | room | beside |`".to_owned()),
        false => Ok(rooms),
    }
}

fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The room of a file: `src/net/plan.rs` is in `net`, `src/main.rs` in `main`.
pub fn room_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    Some(rest.split_once('/').map_or_else(|| rest.trim_end_matches(".rs"), |(room, _)| room))
}

/// The room that a path of `file` leads to, when it leads to one: by `crate::`, by a chain of
/// `super`s that leaves the room, or (in `main`) by the library's name.
pub fn target<'a>(file: &str, path: &'a Path) -> Option<&'a str> {
    let first = path.segments.first()?.as_str();
    let skip = match first {
        "crate" => 1,
        "terrarium" if room_of(file) == Some("main") => 1,
        "super" => {
            let supers = path.segments.iter().take_while(|word| *word == "super").count();
            if supers < module_depth(file) + path.depth {
                return None;
            }
            supers
        }
        _ => return None,
    };
    // The three macros of the log live at the crate's root; so does nothing else.
    match path.segments.get(skip)?.as_str() {
        "info" | "warn" | "error" => Some("log"),
        "self" | "*" => None,
        name => Some(name),
    }
}

/// How many modules lie between a file and the crate's root.
fn module_depth(file: &str) -> usize {
    let parts = file.split('/').count() - 1;
    if file.ends_with("/mod.rs") || matches!(file, "src/lib.rs" | "src/main.rs") {
        parts - 1
    } else {
        parts
    }
}

/// Why `from` must not import `to`, when it must not.
pub fn refusal(rooms: &Rooms, from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    let Some(here) = rooms.get(from) else {
        return Some(format!("`{from}` has no row in ARCHITECTURE.md"));
    };
    let Some(there) = rooms.get(to) else {
        return Some(format!("`{from}` imports `{to}`, which has no row in ARCHITECTURE.md"));
    };
    let allowed =
        there.row < here.row || there.row == here.row && here.beside.iter().any(|b| b == to);
    match allowed {
        true => None,
        false => Some(format!("`{from}` (row {}) imports `{to}` (row {})", here.row, there.row)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    const TABLE: &str = "\
| a | b | c |
|---|---|---|
| 7 | `x` | |

| row | room | beside | owns |
|---|---|---|---|
| 2 | `net` | | links |
| 1 | `netlink` | `sys` | bytes |
| 1 | `sys`, `model` | | unsafe |
| 0 | `log` | | |
text";

    fn leads(file: &str, code: &str) -> Vec<String> {
        let paths = source::paths(&source::tokens(code));
        paths.iter().filter_map(|path| target(file, path)).map(str::to_owned).collect()
    }

    #[test]
    fn the_table_is_read() {
        let rooms = parse(TABLE).expect("a good table");
        assert_eq!(rooms.keys().collect::<Vec<_>>(), ["log", "model", "net", "netlink", "sys"]);
        assert_eq!(rooms["netlink"], Room { row: 1, beside: vec!["sys".to_owned()] });
        assert!(parse("# nothing").is_err());
        assert!(parse("| row | room | beside |\n| one | `a` | |").is_err());
        assert!(parse("| row | room | beside |\n| 1 | `a` | |\n| 2 | `a` | |").is_err());
    }

    #[test]
    fn arrows_go_down_or_to_an_allowed_neighbour() {
        let rooms = parse(TABLE).expect("a good table");
        assert_eq!(refusal(&rooms, "net", "sys"), None);
        assert_eq!(refusal(&rooms, "net", "net"), None);
        assert_eq!(refusal(&rooms, "netlink", "sys"), None);
        let up = refusal(&rooms, "sys", "netlink").expect("not the other way");
        assert_eq!(up, "`sys` (row 1) imports `netlink` (row 1)");
        assert!(refusal(&rooms, "sys", "net").is_some());
        assert!(refusal(&rooms, "net", "nowhere").is_some());
        assert!(refusal(&rooms, "nowhere", "net").is_some());
    }

    #[test]
    fn every_way_out_of_a_room_is_seen() {
        assert_eq!(
            leads("src/a/b.rs", "use crate::{net, sys::fd}; crate::warn!()"),
            ["net", "sys", "log"]
        );
        assert_eq!(leads("src/a/mod.rs", "use super::net; super::super::x"), ["net", "x"]);
        assert_eq!(leads("src/a/b.rs", "use super::net; use super::super::net;"), ["net"]);
        assert_eq!(
            leads("src/a/b.rs", "mod t { use super::super::x; use super::super::super::net; }"),
            ["net"]
        );
        assert_eq!(leads("src/main.rs", "terrarium::cli::run()"), ["cli"]);
        assert_eq!(leads("src/a/b.rs", "// crate::net\nlet x = \"crate::net\";"), [""; 0]);
    }
}
