//! Pid 1 gives up what it does not need to serve.

use super::proto::Plan;
use super::{Doing, InitError};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::caps::{self, Caps, number};
use crate::sys::fd::{Standard, become_standard};
use crate::sys::ns::{self, Spaces};
use crate::sys::{process, seccomp};
use std::os::fd::OwnedFd;

/// What pid 1 itself uses, within the container's user namespace only: to become any user, to
/// signal any, to make working directories and give them away, to drop the rest.
const OWN: [u8; 7] = [
    number::SETUID,
    number::SETGID,
    number::SETPCAP,
    number::KILL,
    number::CHOWN,
    number::DAC_OVERRIDE,
    number::FOWNER,
];

/// Enters the container's user namespace as its root and lowers everything that can be lowered.
/// The system call filter and no-new-privs are on pid 1 too: what it starts inherits them, which
/// is cheaper than installing them each time, and it is filtered itself. `last`: namespaces that the
/// container's root is to own and that there are not yet.
pub fn confine(
    plan: &Plan,
    user: OwnedFd,
    filters: &[seccomp::Program],
    last: Spaces,
) -> Result<(), InitError> {
    let null = at::open(at::HERE, "/dev/null", Open::O_RDWR, 0, Resolve::RESOLVE_NO_SYMLINKS)
        .doing(|| "open /dev/null".into())?;
    for stream in [Standard::Input, Standard::Output, Standard::Error] {
        become_standard(&null, stream).doing(|| "let go of the daemon's output".into())?;
    }
    if !plan.privileged {
        ns::enter(&user, Spaces::CLONE_NEWUSER).doing(|| "enter the user namespace".into())?;
    }
    process::become_user(0, 0, &[]).doing(|| "become root of the container".into())?;
    if !last.is_empty() {
        ns::unshare(last).doing(|| format!("make the container's namespaces ({last:?})"))?;
    }
    // A change of ids may have made us visible again.
    process::set_dumpable(false).doing(|| "stay untraceable".into())?;
    // Who keeps exec from giving privileges may filter itself; who does not needs a capability of
    // the user namespace's root for it, which is about to be dropped. What the rest of this
    // function calls passes the filter.
    if plan.no_new_privs {
        process::set_no_new_privs().doing(|| "set no-new-privs".into())?;
    }
    for filter in filters.iter().filter(|_| !plan.privileged) {
        seccomp::install(filter).doing(|| "install the system call filter".into())?;
    }
    let granted = granted(plan)?;
    let own = Caps::of(&OWN);
    caps::limit_bounding(granted)
        // Permitted holds what root's processes get too: they inherit it from us.
        .and_then(|()| caps::set(own.and(granted), own))
        .doing(|| "drop capabilities".into())
}

/// What root's processes get: of what the plan says what there is to give.
pub fn granted(plan: &Plan) -> Result<Caps, InitError> {
    let has = caps::permitted().doing(|| "read the capabilities".into())?;
    Ok(Caps(Caps::of(&plan.capabilities).0 & has.0))
}
