//! The end of an instance in words: what happened, why, what can be done. Pure.

use crate::model::death::{Cause, Sender, Stopper};
use crate::model::manifest::Check;
use crate::unit::Bytes;

/// Three sentences without their full stops; an empty one says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// What happened.
    pub happened: String,
    /// Why.
    pub why: String,
    /// What can be done.
    pub cure: String,
}

/// Words for `cause`; `target` is what a verb is given to name the instance: `orders:worker/0`, and
/// `check` decides whether it is healthy.
pub fn words(cause: &Cause, target: &str, check: &Check) -> Words {
    let logs = format!("`terrarium logs {target}` shows what it wrote last");
    let (happened, why, cure) = match cause {
        Cause::Exited { code: 0, source } => (
            format!("its {} ended by itself with exit status 0", whose(source)),
            "the program was done; who is to run for ever must not put itself in the background"
                .into(),
            "for work that has an end say `policy = \"never\"` or \"on-failure\" in [restart]".into(),
        ),
        Cause::Exited { code, source } => (
            format!("its {} ended by itself with exit status {code}", whose(source)),
            exit_status(*code),
            logs,
        ),
        Cause::Signalled { signal, by, .. } => signalled(*signal, *by, logs),
        Cause::OutOfMemory { victim, limit_bytes, whole_box, .. } => {
            starved(victim.as_deref(), *limit_bytes, *whole_box, target)
        }
        Cause::DiskFull { code, used_bytes, limit_bytes, .. } => (
            format!("its process ended with exit status {code} while its disk was full"),
            format!("{} of the {} that it may write were written", show(*used_bytes), show(*limit_bytes)),
            "raise `disk` in the manifest, or let it write less: what is written goes with the container"
                .into(),
        ),
        Cause::Unhealthy { output } => (
            "its health check failed after it had passed".into(),
            format!("the probe said: {output}"),
            format!("{logs}; {}", late(check)),
        ),
        Cause::NeverHealthy { after_ms, output } => (
            format!("its health check did not pass within {}", span(*after_ms)),
            format!("the last probe said: {output}"),
            format!("{}, or raise `start_timeout` in [health]", first(check)),
        ),
        Cause::CreateFailed { why } => (
            "its container could not be made".into(),
            why.clone(),
            "mend what it names, if it names anything; `terrarium status` tells how the box is".into(),
        ),
        Cause::ContainerLost => (
            "its container ended at once".into(),
            "the container's first process was killed from outside, by somebody on this box".into(),
            "see who kills processes of root on this box".into(),
        ),
        Cause::Unseen { rebooted: true } => (
            "it ended when the box was started anew".into(),
            "the power failed, or somebody has rebooted the box".into(),
            String::new(),
        ),
        Cause::Unseen { rebooted: false } => (
            "it was lost while no daemon ran".into(),
            "its container had ended when this daemon began, and nobody has seen why".into(),
            String::new(),
        ),
        Cause::Stopped { by, killed } => (
            match killed {
                true => "it was told to end, did not in time (`timeout` of [stop]), and was killed".into(),
                false => "it was told to end, and did".to_owned(),
            },
            stopper(*by).into(),
            match killed {
                true => "let it end on TERM, or on what `signal` of [stop] says; a shell that starts it \
                         must do so by `exec`"
                    .into(),
                false => String::new(),
            },
        ),
        Cause::Failed { text } => (format!("it failed: {text}"), String::new(), failed(text, logs)),
    };
    Words { happened, why, cure }
}

type Said = (String, String, String);

/// `process`, or the sidecar of this source of log lines: `APP/PROC/WEB/SIDECAR/RELAY`.
fn whose(source: &str) -> String {
    match source.split_once("/SIDECAR/") {
        Some((_, name)) => format!("sidecar `{}`", name.to_lowercase()),
        None => "process".to_owned(),
    }
}

/// What helps where only a text tells what it was: the words of pid 1 and of Diego.
fn failed(text: &str, logs: String) -> String {
    let known = [
        (
            "is not in the container",
            "correct `command` in the manifest, or bring the program along: in the app, its buildpack \
             or its image",
        ),
        ("may not be executed", "make the file executable (`chmod +x`) where it comes from"),
        (
            "needs an interpreter",
            "see its first line (`#!`): what it names is not in the container",
        ),
        ("is not in the container's /etc/passwd", "write a user in [run] that the container has"),
    ];
    let known = known.iter().rfind(|(part, _)| text.contains(part));
    known.map_or(logs, |(_, cure)| (*cure).to_owned())
}

/// What helps an app whose check fails now and then.
fn late(check: &Check) -> &'static str {
    match check {
        Check::Watchdog => "a slow app may need a longer `interval` or more `failures` in [health]",
        _ => "a slow app may need a longer `timeout` or more `failures` in [health]",
    }
}

/// What an app has to do so that its check passes for the first time.
fn first(check: &Check) -> &'static str {
    match check {
        Check::Port { .. } | Check::Http { .. } => "let it listen on $PORT of every address",
        Check::Exec { .. } => "see that `command` ends with exit status 0",
        Check::Watchdog => "let it send READY=1 to $NOTIFY_SOCKET",
        Check::Process => "see what it waits for",
    }
}

/// What is usually meant by an exit status that is not 0.
fn exit_status(code: i32) -> String {
    let meant = match code {
        126 => "a program of the start command cannot be executed",
        127 => "there is no program of that name in the container",
        129..=192 => {
            let signal = name(code - 128);
            return format!("a shell says so of a program in it that {signal} has ended");
        }
        _ => "the program itself decided so",
    };
    meant.to_owned()
}

fn signalled(signal: i32, by: Sender, logs: String) -> Said {
    let name = name(signal);
    let happened = format!("{name} ended its process");
    match by {
        Sender::Itself => {
            let did = match signal {
                4 | 31 => "an instruction or a call that is not allowed",
                6 => "it gave up itself (abort)",
                7 | 11 => "it used a wrong address in memory",
                8 => "a calculation that has no result",
                13 => "it wrote to somebody who does not read any more",
                24 | 25 => "it passed a limit of its own",
                _ => "a fault of its own",
            };
            (happened, format!("the kernel sent it for what the program did: {did}"), logs)
        }
        Sender::Unknown => (
            happened,
            "a process of its container sent it, or somebody on this box: the kernel does not record \
             who. The daemon did not, and memory was not the reason"
                .into(),
            "look for a `kill` in the app's own programs, and for who works on the box".into(),
        ),
    }
}

fn starved(victim: Option<&str>, limit: Option<u64>, whole_box: bool, target: &str) -> Said {
    let whom = victim.map_or("a process of it".to_owned(), |name| format!("`{name}`"));
    let happened = format!("the kernel ended {whom} for lack of memory");
    let app = target.split([':', '/']).next().unwrap_or(target);
    if whole_box {
        let why = "the box had no memory left; the app was within its own limit".into();
        return (
            happened,
            why,
            "let less run on this box: `terrarium top` shows what takes how much".into(),
        );
    }
    let limit = limit.map_or("what it may have".to_owned(), |bytes| format!("its {}", show(bytes)));
    let why = format!("its container needed more than {limit} of memory");
    let cure = format!("raise `memory` in the manifest of {app}, or let it need less");
    (happened, why, cure)
}

fn stopper(by: Stopper) -> &'static str {
    match by {
        Stopper::Stop => "somebody has stopped the app",
        Stopper::Restart => "somebody has asked for fresh instances",
        Stopper::Delete => "somebody has deleted the app, or its manifest is gone",
        Stopper::Scale => "fewer instances are wanted",
        Stopper::Update => "a newer version of the app takes its place",
        Stopper::RestartIndex => {
            "somebody has asked for this one afresh (`terrarium restart NAME/INDEX`)"
        }
        Stopper::Drain => "somebody has drained the cell (`terrarium drain`)",
        Stopper::Cell => "the cell itself had it made anew",
    }
}

/// `signal 11 (SEGV)`.
fn name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let known = usize::try_from(signal - 1).ok().and_then(|at| NAMES.get(at));
    match known {
        Some(name) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

fn show(bytes: u64) -> String {
    Bytes::new(bytes).rough()
}

/// Milliseconds as `90s` or `1.5s`.
fn span(ms: u64) -> String {
    match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cause: Cause) -> (String, String) {
        let Words { happened, why, .. } = words(&cause, "web/0", &Check::Process);
        (happened, why)
    }

    #[test]
    fn a_sidecar_is_named_and_the_cure_is_of_the_check() {
        let cause = Cause::Exited { source: "APP/PROC/WEB/SIDECAR/RELAY".into(), code: 5 };
        assert_eq!(told(cause).0, "its sidecar `relay` ended by itself with exit status 5");
        let never = Cause::NeverHealthy { after_ms: 3000, output: "not yet".into() };
        let exec = Check::Exec { command: vec!["true".into()] };
        for (check, cure) in [
            (exec, "see that `command` ends with exit status 0, or raise"),
            (Check::Watchdog, "let it send READY=1 to $NOTIFY_SOCKET, or raise"),
            (Check::Port { port: 1 }, "let it listen on $PORT of every address, or raise"),
        ] {
            let words = words(&never, "web/0", &check);
            assert!(words.cure.starts_with(cure), "{}", words.cure);
        }
    }

    fn source() -> String {
        "APP/PROC/WEB".into()
    }

    #[test]
    fn a_signal_is_named_and_its_sender_as_far_as_it_is_known() {
        let of =
            |signal| told(Cause::Signalled { source: source(), signal, by: Sender::of(signal) });
        let (happened, why) = of(11);
        assert_eq!(happened, "signal 11 (SEGV) ended its process");
        assert!(why.ends_with("it used a wrong address in memory"), "{why}");
        let (happened, why) = of(9);
        assert_eq!(happened, "signal 9 (KILL) ended its process");
        assert!(why.contains("The daemon did not"), "{why}");
        assert_eq!(of(40).0, "signal 40 ended its process");
        assert_eq!((name(1), name(31)), ("signal 1 (HUP)".into(), "signal 31 (SYS)".into()));
    }

    #[test]
    fn memory_is_told_with_victim_and_limit() {
        let of = |victim: Option<&str>, limit_bytes, whole_box| {
            let (source, victim) = (source(), victim.map(str::to_owned));
            told(Cause::OutOfMemory { source, code: 137, victim, limit_bytes, whole_box })
        };
        let (happened, why) = of(Some("java"), Some(32 << 20), false);
        assert_eq!(happened, "the kernel ended `java` for lack of memory");
        assert!(why.contains("32"), "{why}");
        let (happened, why) = of(None, None, true);
        assert_eq!(happened, "the kernel ended a process of it for lack of memory");
        assert!(why.starts_with("the box had no memory left"), "{why}");
    }

    #[test]
    fn who_stopped_it_is_told_apart() {
        let of = |by| told(Cause::Stopped { by, killed: false }).1;
        assert!(of(Stopper::Drain).contains("`terrarium drain`"));
        assert!(of(Stopper::RestartIndex).contains("`terrarium restart NAME/INDEX`"));
        assert!(!of(Stopper::Cell).contains("somebody"), "{}", of(Stopper::Cell));
    }

    #[test]
    fn a_program_that_is_not_there_is_to_be_corrected() {
        let of = |text: &str| words(&Cause::Failed { text: text.into() }, "web/0", &Check::Process);
        assert!(of("program `x` is not in the container").cure.starts_with("correct `command`"));
        assert!(of("program `x` may not be executed: x").cure.contains("chmod +x"));
        let user = "user `x` is not in the container's /etc/passwd; write one that is";
        assert!(of(user).cure.contains("[run]"));
        assert!(of("anything").cure.starts_with("`terrarium logs web/0`"));
    }

    #[test]
    fn a_shells_exit_status_is_translated() {
        let of = |code| told(Cause::Exited { source: source(), code }).1;
        assert!(of(127).contains("no program"));
        assert!(of(143).contains("signal 15 (TERM)"), "{}", of(143));
        assert_eq!(of(7), "the program itself decided so");
    }
}
