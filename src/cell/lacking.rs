//! What is said to who names a process or an instance that is not there: what there is in its place. Pure.

/// Why there is nothing of that; `None`: there is, or how many there are is left to the caller, as with a
/// process of which none is wanted. `subject`: `app` or `task`, and its name. `counts`: its processes, and how
/// many instances each has.
pub(super) fn lacking(
    subject: (&str, &str),
    counts: &[(String, u32)],
    process: Option<&str>,
    index: Option<u32>,
) -> Option<String> {
    let (kind, name) = subject;
    let is_meant = |it: &&(String, u32)| process.is_none_or(|process| it.0 == process);
    let most = counts.iter().filter(is_meant).map(|(_, count)| *count).max();
    if let (None, Some(process)) = (most, process) {
        let have: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
        let have = if have.is_empty() { "none" } else { &have.join(", ") };
        let process = process.escape_default();
        return Some(format!("{kind} {name} has no process `{process}`: it has {have}"));
    }
    // What has no processes has lines of one that has no number of its own.
    let most = most.unwrap_or(1);
    let index = index.filter(|index| most > 0 && *index >= most)?;
    let has = if most == 1 { "0".to_owned() } else { format!("0..{}", most - 1) };
    let of = process.filter(|_| counts.len() > 1);
    let of = of.map_or(name.to_owned(), |process| format!("{name}:{process}"));
    Some(format!("no instance {index} of `{of}`: it has {has}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let app = [("web", 2), ("worker", 1), ("idle", 0)];
        let app: Vec<_> = app.map(|(name, count)| (name.to_owned(), count)).into();
        let said = |counts: &[_], process, index| {
            lacking(("app", "two"), counts, process, index).unwrap_or_default()
        };
        for (process, index, why) in [
            (None, None, ""),
            (Some("worker"), Some(0), ""),
            (None, Some(2), "no instance 2 of `two`: it has 0..1"),
            (Some("worker"), Some(1), "no instance 1 of `two:worker`: it has 0"),
            (Some("idle"), Some(7), ""),
            (Some("a\n"), Some(0), "app two has no process `a\\n`: it has web, worker, idle"),
        ] {
            assert_eq!(said(&app, process, index), why);
        }
        assert_eq!(said(&app[..1], Some("web"), Some(2)), "no instance 2 of `two`: it has 0..1");
        assert_eq!(said(&[], Some("web"), None), "app two has no process `web`: it has none");
        assert_eq!(said(&[], None, Some(1)), "no instance 1 of `two`: it has 0");
    }
}
