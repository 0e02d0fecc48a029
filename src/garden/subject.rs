//! Whom a refusal is about, so that it is told in its client's words. Pure.

use super::GardenError;
use crate::container::{ContainerError, ProcessError};
use crate::model::garden::{DiskLimits, Limits};
use crate::unit::Handle;
use std::error::Error;

/// `limits.disk.scope` of who does not count the image; any other does.
const EXCLUSIVE: u8 = 1;

/// Ends of the system's texts for a quota that is used up and for a disk that is full: EDQUOT and
/// ENOSPC. They come from programs inside as well, as text.
const NO_ROOM: [&str; 2] = ["(os error 122)", "(os error 28)"];

/// End of the system's text for a process that may not be made: EAGAIN.
const NO_PROCESS: &str = "(os error 11)";

/// Of the text about a program that was killed inside.
const KILLED: &str = "was ended by signal 9";

/// A container, as its client knows it and as the lower rooms do.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The client's.
    pub(super) handle: String,
    /// The depot's.
    pub(super) name: Handle,
    /// As asked for.
    pub(super) limits: Limits,
    /// What its image holds.
    pub(super) image_bytes: u64,
    /// How often the kernel has ended one of its processes for want of memory.
    pub(super) oom_kills: u64,
}

impl Subject {
    /// What a lower room refused, in full; the handle is in it, and not the depot's name.
    pub(super) fn refused(&self, err: &(dyn Error + 'static)) -> GardenError {
        if let Some(ProcessError::Gone(_)) = err.downcast_ref() {
            return GardenError::Failed(self.gone_words());
        }
        let text = crate::log::chain(err);
        let text = match is_about_its_disk(err) {
            true => self.translated(&text),
            false => self.renamed(&text),
        };
        GardenError::Failed(match text.contains(&format!("container {}", self.handle)) {
            true => text,
            false => format!("container {}: {text}", self.handle),
        })
    }

    /// A text about something inside the container with the client's handle for it, and with the disk
    /// limit when that was in the way.
    pub(super) fn translated(&self, text: &str) -> String {
        let text = self.renamed(text);
        let (memory, pids) = (self.limits.memory.limit_in_bytes, self.limits.pid.max);
        if NO_ROOM.iter().any(|end| text.contains(end)) {
            return format!("{text}; {}", self.disk_words());
        }
        if pids > 0 && text.contains(NO_PROCESS) {
            return format!(
                "{text}; its limit is {pids} processes and threads, of which its first process is \
                 one: end some, or ask for more in `pid_limits`"
            );
        }
        if memory > 0 && self.oom_kills > 0 && text.contains(KILLED) {
            return format!(
                "{text}; it has reached its memory limit of {memory} bytes: ask for more in \
                 `memory_limits`"
            );
        }
        text
    }

    /// Its pid 1 is not there any more.
    fn gone_words(&self) -> String {
        let Subject { handle, limits, oom_kills, .. } = self;
        let why = match (limits.memory.limit_in_bytes, oom_kills) {
            (limit @ 1.., 1..) => format!(
                " (it has reached its memory limit of {limit} bytes; ask for more in \
                 `memory_limits`)"
            ),
            _ => String::new(),
        };
        format!(
            "container {handle}: its first process has ended, and with it everything inside{why}; \
             destroy it and make it anew"
        )
    }

    /// A text with the client's handle for the container. Paths stay as they are: the depot's name is
    /// really in them.
    fn renamed(&self, text: &str) -> String {
        let Subject { handle, name, .. } = self;
        text.replace(&format!("container {name}"), &format!("container {handle}"))
    }

    /// What it may write, and how to get more.
    pub(super) fn disk_words(&self) -> String {
        let DiskLimits { byte_hard, byte_soft, scope, .. } = self.limits.disk;
        let limit = if byte_hard > 0 { byte_hard } else { byte_soft };
        let cure = "remove files, or ask for more in `disk_limits`";
        match (limit, scope) {
            (0, _) => "it has no disk limit, so the box itself is full: `terrarium status` tells \
                       what is free, [store] size_max gives more"
                .into(),
            (limit, EXCLUSIVE) => {
                format!(
                    "its disk limit is {limit} bytes in exclusive scope, its image aside: {cure}"
                )
            }
            (limit, _) => format!(
                "its disk limit is {limit} bytes in total scope, of which its image takes {}: {cure}",
                self.image_bytes
            ),
        }
    }
}

/// Whether what failed wrote to the container's own disk. The depot, for one, is on the box's: its
/// lack of room has nothing to do with a container's limit.
fn is_about_its_disk(err: &(dyn Error + 'static)) -> bool {
    match (err.downcast_ref::<ContainerError>(), err.downcast_ref::<ProcessError>()) {
        (Some(err), _) => err.is_about_its_disk(),
        (_, Some(err)) => matches!(err, ProcessError::Refused { .. } | ProcessError::Broken { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(byte_hard: u64, scope: u8) -> Subject {
        Subject {
            handle: "any/thing".into(),
            name: "e3k5s0l1abc".parse().expect("handle"),
            limits: Limits {
                disk: DiskLimits { byte_hard, scope, ..DiskLimits::default() },
                ..Limits::default()
            },
            image_bytes: 70,
            oom_kills: 0,
        }
    }

    #[test]
    fn a_container_is_told_by_the_name_that_its_client_has_for_it() {
        let subject = subject(0, 0);
        let about = |err: ContainerError| subject.refused(&err).to_string();
        let step = |source: &str| ContainerError::Step {
            doing: "make",
            handle: subject.name.clone(),
            source: source.into(),
        };
        assert_eq!(about(step("no room")), "cannot make container any/thing: no room");
        let text = about(step("cannot open /depot/e3k5s0l1abc/etc"));
        assert_eq!(text, "cannot make container any/thing: cannot open /depot/e3k5s0l1abc/etc");
        let text = about(ContainerError::PortTaken { port: 70 });
        assert!(text.starts_with("container any/thing: host port 70 is taken; "), "{text}");
    }

    #[test]
    fn a_full_disk_is_told_with_its_limit_and_what_counts_toward_it() {
        let why = "cannot write it: Quota exceeded (os error 122)";
        let said = |byte_hard, scope| {
            let err = ProcessError::Broken { text: why.into() };
            let text = subject(byte_hard, scope).refused(&err).to_string();
            let rest = text.strip_prefix(&format!("container any/thing: {why}; "));
            rest.expect("the refusal itself").to_owned()
        };
        let total = said(100, 0);
        assert!(
            total.starts_with("its disk limit is 100 bytes in total scope, of which "),
            "{total}"
        );
        assert!(total.contains(" takes 70: remove files, or ask"), "{total}");
        let exclusive = said(100, 1);
        assert!(
            exclusive.starts_with("its disk limit is 100 bytes in exclusive scope"),
            "{exclusive}"
        );
        assert!(said(0, 0).contains("the box itself is full"));
    }
    #[test]
    fn a_limit_that_is_reached_is_told_with_its_name() {
        let mut subject = subject(0, 0);
        let about = |subject: &Subject, text: &str| {
            subject.refused(&ProcessError::Broken { text: text.into() }).to_string()
        };
        let fork = "cannot make a process: Resource temporarily unavailable (os error 11)";
        assert_eq!(about(&subject, fork), format!("container any/thing: {fork}"));
        subject.limits.pid.max = 1;
        let told = about(&subject, fork);
        assert!(
            told.contains("; its limit is 1 processes") && told.ends_with("`pid_limits`"),
            "{told}"
        );
        let killed = "the program was ended by signal 9";
        subject.limits.memory.limit_in_bytes = 4096;
        assert_eq!(about(&subject, killed), format!("container any/thing: {killed}"));
        let gone = ProcessError::Gone(subject.name.clone());
        let told = subject.refused(&gone).to_string();
        assert!(told.contains("first process has ended") && !told.contains("memory"), "{told}");
        subject.oom_kills = 1;
        let limit = "memory limit of 4096 bytes";
        assert!(about(&subject, killed).contains(limit));
        assert!(subject.refused(&gone).to_string().contains(limit));
    }

    #[test]
    fn a_full_disk_of_the_box_is_not_told_as_the_containers_own() {
        let subject = subject(100, 0);
        let said = |doing| {
            let handle = subject.name.clone();
            let source = "No space left on device (os error 28)".into();
            subject.refused(&ContainerError::Step { doing, handle, source }).to_string()
        };
        let text = said("write the depot entry of");
        let whole = "cannot write the depot entry of container any/thing: No space left on device \
                     (os error 28)";
        assert_eq!(text, whole);
        let text = said("make the writable layer of");
        assert!(text.contains("; its disk limit is 100 bytes"), "{text}");
    }
}
