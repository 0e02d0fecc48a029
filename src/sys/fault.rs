//! Ends of this process that tests ask for. In a release build there are none.

use std::fmt;

/// Every point where a test can have this process die, by machine. A test dies at each of them; one
/// below holds this list against the source.
pub const POINTS: [&str; 96] = [
    // What becomes of an app's record.
    "app:declare:asked",
    "app:declare:written",
    "app:hook:asked",
    "app:hook:written",
    "app:staged:asked",
    "app:staged:written",
    "app:judged:asked",
    "app:judged:written",
    "app:wish:asked",
    "app:wish:written",
    "app:delete:asked",
    "app:delete:written",
    "app:remove:asked",
    "app:remove:written",
    // What happens to an instance; noted is what is kept in memory only.
    "lrp:desire:noted",
    "lrp:claim:asked",
    "lrp:claim:written",
    "lrp:ready:asked",
    "lrp:ready:written",
    "lrp:start:asked",
    "lrp:start:written",
    "lrp:crash:asked",
    "lrp:crash:written",
    "lrp:unmade:asked",
    "lrp:unmade:written",
    "lrp:unclaim:noted",
    "lrp:fail:noted",
    "lrp:stop:asked",
    "lrp:stop:written",
    "lrp:lose:asked",
    "lrp:lose:written",
    "lrp:remove:asked",
    "lrp:remove:written",
    // What is done to a Task.
    "task:desire:asked",
    "task:desire:written",
    "task:start:asked",
    "task:start:written",
    "task:complete:asked",
    "task:complete:written",
    "task:cancel:asked",
    "task:cancel:written",
    "task:fail:asked",
    "task:fail:written",
    "task:reject:asked",
    "task:reject:written",
    "task:resolve:asked",
    "task:resolve:written",
    "task:demote:asked",
    "task:demote:written",
    "task:delete:asked",
    "task:delete:written",
    // The cell itself.
    "drain:asked",
    "drain:written",
    "check:made",
    // Its times move along with the clock.
    "clock:asked",
    "clock:written",
    // How a container comes to be: after each step.
    "create:depot",
    "create:spawn",
    "create:writable",
    "create:cgroup",
    "create:listener",
    "create:init",
    "create:bridge",
    "create:plan",
    "create:links",
    "create:rules",
    "create:inside",
    "create:commit",
    "create:connect",
    // What is made ahead of it.
    "reserve:noted",
    "reserve:bridge",
    "reserve:links",
    "reserve:made",
    // A process of it.
    "run:asked",
    "run:started",
    // What is written of it later.
    "owner:written",
    "change:written",
    // How it goes.
    "destroy:rules",
    "destroy:processes",
    "destroy:disk",
    "destroy:cgroup",
    "destroy:links",
    "destroy:half-entry",
    "destroy:entry",
    // Layers that come, with what the catalogue says of them.
    "layer:written",
    "layer:placed",
    "layer:listed",
    "layer:sealed",
    // Images of a file, that the catalogue lists one after the other.
    "load:image",
    "load:names",
    "load:aliases",
    // Images that go.
    "collect:names",
    "collect:image",
    "collect:layer",
    // An image that somebody removes.
    "forget:name",
    "forget:image",
];

/// Ends this process as a SIGKILL does, if a test wants it at this point: in a debug build whose
/// environment names a file (`TERRARIUM_DIE_FILE`) with the point's name in it. Behind `stop ` it is held
/// there instead, as a SIGSTOP does. The file goes first, so that it happens once. A name that is not among [`POINTS`] panics, whoever asks for it.
#[cfg(debug_assertions)]
pub fn point(name: fmt::Arguments<'_>) {
    let name = name.to_string();
    assert!(
        POINTS.contains(&name.as_str()),
        "no test dies at {name}: add it to fault::POINTS, and to a test that dies there"
    );
    let Some(file) = std::env::var_os("TERRARIUM_DIE_FILE") else { return };
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    let signal = match wanted.strip_prefix("stop ") {
        Some(_) => nix::sys::signal::Signal::SIGSTOP,
        None => nix::sys::signal::Signal::SIGKILL,
    };
    if wanted.strip_prefix("stop ").unwrap_or(&wanted) == name {
        let _ = std::fs::remove_file(file);
        let _ = nix::sys::signal::raise(signal);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn point(_name: fmt::Arguments<'_>) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The texts behind every `fault::point(format_args!(` of the source.
    fn patterns(dir: &Path, found: &mut Vec<String>) {
        for item in fs::read_dir(dir).expect("a directory of the source").flatten() {
            let path = item.path();
            if path.is_dir() {
                patterns(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a file of the source");
                let call = concat!("fault::point(", "format_args!(\"");
                let after = text.split(call).skip(1);
                found.extend(after.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    /// The machines whose points have a word of theirs in braces. Each has a test that holds the list
    /// against all its words: `lrp_state`, `task::state`, `cell::record`, `container::recipe`.
    const WORDS: [&str; 4] = ["lrp:{", "task:{", "app:{", "create:{"];

    /// Whether a name is one of a pattern's, in which braces stand for one word.
    fn is_of(name: &str, pattern: &str) -> bool {
        let (names, parts) = (name.split(':'), pattern.split(':'));
        let same = names.clone().count() == parts.clone().count();
        same && names.zip(parts).all(|(name, part)| part.starts_with('{') || name == part)
    }

    #[test]
    fn every_point_of_the_source_is_on_the_list_and_none_else() {
        let mut found = Vec::new();
        patterns(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for pattern in &found {
            assert!(POINTS.iter().any(|name| is_of(name, pattern)), "{pattern} is not on the list");
            let has_words = WORDS.iter().any(|start| pattern.starts_with(start));
            assert!(has_words || !pattern.contains('{'), "nothing says what {pattern} stands for");
        }
        for name in POINTS {
            let known = found.iter().any(|pattern| is_of(name, pattern));
            assert!(known, "{name} is nowhere in the source");
            assert_eq!(POINTS.iter().filter(|other| **other == name).count(), 1, "{name}");
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_point_that_is_not_on_the_list_is_no_point() {
        point(format_args!("app:{}:asked", "wish"));
        let of_nobody = || point(format_args!("app:{}:asked", "nothing"));
        assert!(std::panic::catch_unwind(of_nobody).is_err());
    }
}
