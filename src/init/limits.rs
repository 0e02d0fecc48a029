//! What a process may use by itself, setrlimit(2): raised before the container's user namespace is
//! entered, decided by pid 1, set by its child.
//!
//! Only the box's root may raise a hard value, and pid 1 is not that any more. So its maker raises
//! them all as far as the kernel goes, where it may, and pid 1 has what any process could ask for.
//! Who does not ask has what its maker had.

use crate::model::process::{ProcessSpec, Rlimit};
use crate::sys::process::{self, Resource};
use std::collections::BTreeMap;
use std::io;

/// Soft and hard value of each limit, in the kernel's order.
pub type Values = [(u64, u64); Rlimit::ALL.len()];

/// No limit, `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// Descriptors that a process may give itself without having asked, if the kernel lets us raise the
/// limit.
const NOFILE_USUAL: u64 = 1 << 20;

/// What a child sets.
#[derive(Debug, PartialEq, Eq)]
pub struct Limits {
    /// Each with its soft and hard value.
    values: Vec<(Resource, u64, u64)>,
    /// What is less than was asked for, and what it is.
    pub lowered: BTreeMap<Rlimit, u64>,
}

/// Raises the hard values of the caller as far as the kernel and its capabilities go; the soft ones
/// stay. Returns what a process has that asks for nothing: what the caller had, and for open files a
/// hard value of [`NOFILE_USUAL`] at least.
pub fn raise() -> io::Result<Values> {
    let had = present()?;
    let highest = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let highest = highest.and_then(|text| text.trim().parse().ok()).unwrap_or(NOFILE_USUAL);
    for (resource, soft, hard) in heights(&had, highest) {
        // Only with CAP_SYS_RESOURCE; without it a process gets less than it asks for, and is told.
        let _ = process::set_limit(resource, soft, hard);
    }
    Ok(usual(had, &present()?))
}

/// What counts for a whole user namespace too, whose ceilings are its maker's soft values of the
/// moment when it is made (create_user_ns in the kernel): more could be had, but not used.
const OF_NAMESPACE: [Rlimit; 2] = [Rlimit::Msgqueue, Rlimit::Sigpending];

/// For who makes a user namespace or a process for one: takes back what nobody in it could use, so that
/// who asks for more is told what it has.
pub fn keep_usable() -> io::Result<()> {
    unusable(&present()?).try_for_each(|(resource, soft)| process::set_limit(resource, soft, soft))
}

/// Limits of the caller that can be had beyond what can be used, and what can be.
fn unusable(has: &Values) -> impl Iterator<Item = (Resource, u64)> {
    OF_NAMESPACE.into_iter().filter_map(|kind| {
        let (soft, hard) = has[kind as usize];
        (soft < hard).then_some((Resource(kind as u8), soft))
    })
}

/// The limits of the caller.
pub fn present() -> io::Result<Values> {
    let mut values = Values::default();
    for kind in Rlimit::ALL {
        values[kind as usize] = process::limit(Resource(kind as u8))?;
    }
    Ok(values)
}

/// What is to be raised of `had`. `nofile`: as far as open files go, fs.nr_open.
fn heights(had: &Values, nofile: u64) -> impl Iterator<Item = (Resource, u64, u64)> {
    Rlimit::ALL.into_iter().filter_map(move |kind| {
        let (soft, hard) = had[kind as usize];
        let height = if kind == Rlimit::Nofile { nofile } else { UNLIMITED };
        (hard < height).then_some((Resource(kind as u8), soft, height))
    })
}

/// `had`, but for open files as many as the caller `has` got of [`NOFILE_USUAL`].
fn usual(mut had: Values, has: &Values) -> Values {
    let hard = &mut had[Rlimit::Nofile as usize].1;
    *hard = (*hard).max(NOFILE_USUAL.min(has[Rlimit::Nofile as usize].1));
    had
}

/// What `spec` asks for, and for the rest what is `usual`, within what pid 1 `has` itself: its child
/// can have no more. Without a wish there are no core dumps.
pub fn decide(spec: &ProcessSpec, usual: &Values, has: &Values) -> Limits {
    let mut wanted = spec.rlimits.clone();
    if let Some(nofile) = spec.nofile {
        wanted.entry(Rlimit::Nofile).or_insert(nofile);
    }
    wanted.entry(Rlimit::Core).or_insert(0);
    let mut limits = Limits { values: Vec::new(), lowered: BTreeMap::new() };
    for kind in Rlimit::ALL {
        let (now, hard) = has[kind as usize];
        let value = match wanted.get(&kind) {
            Some(wish) => {
                let value = *wish.min(&hard);
                if value < *wish && spec.rlimits.contains_key(&kind) {
                    limits.lowered.insert(kind, value);
                }
                (value, value)
            }
            None => {
                let (soft, most) = usual[kind as usize];
                (soft.min(hard), most.min(hard))
            }
        };
        if value != (now, hard) {
            limits.values.push((Resource(kind as u8), value.0, value.1));
        }
    }
    limits
}

impl Limits {
    /// Sets them on the caller.
    pub fn apply(&self) -> io::Result<()> {
        self.values
            .iter()
            .try_for_each(|(resource, soft, hard)| process::set_limit(*resource, *soft, *hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten of everything, of at most a hundred.
    const TEN: Values = [(10, 100); Rlimit::ALL.len()];

    /// `TEN` with other open files.
    fn with_nofile(soft: u64, hard: u64) -> Values {
        let mut values = TEN;
        values[Rlimit::Nofile as usize] = (soft, hard);
        values
    }

    fn spec() -> ProcessSpec {
        serde_json::from_str(
            r#"{"id":"a","path":"a","args":[],"argv0":null,"env":[],"dir":null,"user":"root",
                "nofile":null,"tty":null,"stdin":false}"#,
        )
        .expect("a process")
    }

    #[test]
    fn hard_values_are_raised_to_the_kernels_and_soft_ones_stay() {
        let mut had = with_nofile(10, 1000);
        had[Rlimit::Cpu as usize] = (10, UNLIMITED);
        let raised: Vec<_> = heights(&had, 4096).collect();
        assert_eq!(raised.len(), Rlimit::ALL.len() - 1, "one is as high as it goes");
        for (resource, soft, hard) in raised {
            let files = resource == Resource::OPEN_FILES;
            assert_eq!((soft, hard), (10, if files { 4096 } else { UNLIMITED }), "{resource:?}");
        }
        assert!(heights(&with_nofile(1, 4096), 4096).all(|(it, ..)| it != Resource::OPEN_FILES));
    }

    #[test]
    fn who_asks_for_nothing_has_what_there_was_before_and_a_million_files() {
        let of = |had: Values, has| usual(had, has)[Rlimit::Nofile as usize];
        let raised = with_nofile(10, 1 << 30);
        assert_eq!(of(with_nofile(10, 1000), &raised), (10, 1 << 20));
        assert_eq!(of(with_nofile(10, 1 << 22), &raised), (10, 1 << 22));
        assert_eq!(of(with_nofile(10, 1000), &with_nofile(10, 1000)), (10, 1000), "not raised");
        assert_eq!(usual(TEN, &raised)[Rlimit::Memlock as usize], (10, 100));
    }

    #[test]
    fn a_process_has_what_it_asks_for_if_pid_one_has_it() {
        let mut asks = spec();
        asks.nofile = Some(500);
        asks.rlimits = [(Rlimit::Memlock, 5000), (Rlimit::Cpu, 50), (Rlimit::Nproc, 100)].into();
        let mut has = [(10, 1000); Rlimit::ALL.len()];
        has[Rlimit::Nproc as usize] = (10, 100);
        let limits = decide(&asks, &TEN, &has);
        assert_eq!(limits.lowered, [(Rlimit::Memlock, 1000)].into());
        for kind in Rlimit::ALL {
            let expected = match kind {
                Rlimit::Memlock => (1000, 1000),
                Rlimit::Cpu => (50, 50),
                Rlimit::Nproc => (100, 100),
                Rlimit::Nofile => (500, 500),
                Rlimit::Core => (0, 0),
                _ => (10, 100),
            };
            let set = limits.values.iter().find(|(of, ..)| *of == Resource(kind as u8));
            assert_eq!(set.map(|(_, soft, hard)| (*soft, *hard)), Some(expected), "{kind}");
        }
    }

    #[test]
    fn more_messages_and_signals_than_the_user_namespace_has_are_not_to_be_had() {
        let mut has = TEN;
        has[Rlimit::Sigpending as usize] = (50, 50);
        let taken: Vec<_> = unusable(&has).collect();
        assert_eq!(taken, [(Resource(Rlimit::Msgqueue as u8), 10)]);
        has[Rlimit::Msgqueue as usize] = (10, 10);
        assert_eq!(unusable(&has).count(), 0);
        let mut asks = spec();
        asks.rlimits = [(Rlimit::Msgqueue, 11), (Rlimit::Sigpending, 20)].into();
        assert_eq!(decide(&asks, &TEN, &has).lowered, [(Rlimit::Msgqueue, 10)].into());
    }

    #[test]
    fn what_pid_one_has_already_is_not_set_again() {
        let limits = decide(&spec(), &TEN, &TEN);
        assert_eq!(limits.values, [(Resource::CORE, 0, 0)]);
        // Somebody inside has lowered pid 1's: no start fails for that.
        let limits = decide(&spec(), &TEN, &with_nofile(3, 7));
        assert!(limits.values.contains(&(Resource::OPEN_FILES, 7, 7)), "{limits:?}");
        assert!(limits.lowered.is_empty());
    }
}
