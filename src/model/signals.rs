//! Signals by name, as manifests and images write them.

/// Names and numbers, as on every architecture that this program runs on. signal(7).
const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and the last real-time signal, as C libraries count them.
const RT: (i32, i32) = (34, 64);

/// Whether a process that gets it is halted: STOP, TSTP, TTIN, TTOU.
pub fn halts(number: i32) -> bool {
    (19..=22).contains(&number)
}

/// The number of `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
pub fn number(text: &str) -> Option<i32> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RT.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let from = |rest: &str, sign: &str| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok().filter(|it| (0..=30).contains(it)),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return from(rest, "+").map(|more| RT.0 + more);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return from(rest, "-").map(|less| RT.1 - less);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_in_every_way_of_writing() {
        for (text, wanted) in [
            ("TERM", Some(15)),
            ("SIGQUIT", Some(3)),
            ("sigwinch", Some(28)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("RTMIN", Some(34)),
            ("RTMIN+31", None),
            ("0", None),
            ("65", None),
            ("STOPPED", None),
            ("", None),
        ] {
            assert_eq!(number(text), wanted, "{text}");
        }
        for (number, (_, wanted)) in (1..).zip(NAMES) {
            assert_eq!(number, wanted);
        }
    }
}
