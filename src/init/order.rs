//! The daemon's first message, looked at before anything is done.

use super::proto::{Owner, Plan};
use super::{Doing, InitError};
use crate::sys::seccomp;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Layers of one container; an overlay takes 500, its options one page.
const LOWERS_MAX: usize = 128;

/// What the plan comes with.
pub(super) struct Given {
    pub(super) listener: OwnedFd,
    pub(super) depot: OwnedFd,
    pub(super) filters: Vec<seccomp::Program>,
}

/// A plan that cannot be followed.
pub(super) fn refused(why: String) -> InitError {
    InitError::refuse("follow the plan", why)
}

/// Refuses what no daemon should ask for.
pub(super) fn check_plan(plan: &Plan) -> Result<(), InitError> {
    let refuse = |why: String| Err(refused(why));
    if plan.lowers.len() > LOWERS_MAX {
        return refuse(format!("it has {} layers, over {LOWERS_MAX}", plan.lowers.len()));
    }
    check_owner(&Owner { ids: plan.ids, privileged: plan.privileged })
}

/// The same for what comes before the plan.
pub(super) fn check_owner(owner: &Owner) -> Result<(), InitError> {
    match owner.ids.is_the_boxs() == owner.privileged && owner.ids.is_whole() {
        true => Ok(()),
        false => Err(refused(format!("ids from {} cannot be mapped", owner.ids.root()))),
    }
}

/// The three descriptors that the plan of a container comes with.
pub(super) fn take_given(fds: Vec<OwnedFd>) -> Result<Given, InitError> {
    let [listener, depot, filter] = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|other| refused(format!("it came with {} descriptors, not 3", other.len())))?;
    Ok(Given { listener, depot, filters: read_filter(filter)? })
}

/// The seccomp programs of a filter.
pub(super) fn read_filter(filter: OwnedFd) -> Result<Vec<seccomp::Program>, InitError> {
    // By position: all containers share the descriptor, and with it its offset.
    let filter = File::from(filter);
    let size = filter.metadata().doing(|| "measure the filter".into())?.len() as usize;
    let mut bytes = vec![0; size];
    filter.read_exact_at(&mut bytes, 0).doing(|| "read the filter".into())?;
    seccomp::unpack(&bytes).ok_or_else(|| refused("its filter is malformed".into()))
}
