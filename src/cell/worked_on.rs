//! Who works on an instance or a Task, and how far its container is.

use crate::container::Container;
use crate::exec::cancel::Canceller;
use crate::exec::limit::Limit;
use crate::exec::room::Resources;
use crate::exec::state::{ContainerEvent, ContainerState};
use crate::model::death::Stopper;
use std::sync::Arc;

/// An instance that somebody works on.
pub(super) struct Supervised {
    pub(super) canceller: Canceller,
    /// It is on its way out: no new connection is led to it.
    pub(super) stopping: bool,
    /// What it is made from.
    pub(super) version: String,
    /// What it has, or was promised.
    pub(super) needs: Resources,
    /// How far its container is.
    state: ContainerState,
    pub(super) container: Option<Arc<Container>>,
    /// What it may log, and has.
    pub(super) limit: Option<Limit>,
    /// What its readiness check has said last, while it leads no connections to it.
    pub(super) unready: Option<String>,
    /// Who told it to end, where the records do not tell.
    pub(super) stopper: Option<Stopper>,
}

impl Supervised {
    /// One that was just begun; `survived`: it was there before, and healthy or not.
    pub(super) fn new(
        canceller: Canceller,
        version: &str,
        needs: Resources,
        survived: Option<bool>,
    ) -> Supervised {
        Supervised {
            canceller,
            stopping: false,
            version: version.to_owned(),
            needs,
            state: survived.map_or(ContainerState::Reserved, ContainerState::survived),
            container: None,
            limit: None,
            unready: None,
            stopper: None,
        }
    }

    /// How far its container is.
    pub(super) fn state(&self) -> ContainerState {
        self.state
    }

    /// Something happens to its container.
    pub(super) fn turn(&mut self, event: ContainerEvent) {
        turn(&mut self.state, event);
    }

    /// It is to end: the round leads no new connection to it, and then tells it. Whoever was first has
    /// told it.
    pub(super) fn leave(&mut self, by: Stopper) {
        self.stopping = true;
        self.stopper.get_or_insert(by);
    }
}

/// A Task that somebody works on, or of which somebody is told.
pub(super) struct TaskWork {
    /// `None`: only told of.
    pub(super) canceller: Option<Canceller>,
    /// How far its container is.
    state: ContainerState,
}

impl TaskWork {
    /// One that was just begun.
    pub(super) fn new(canceller: Canceller) -> TaskWork {
        TaskWork { canceller: Some(canceller), state: ContainerState::Reserved }
    }

    /// One that has ended: somebody is told.
    pub(super) fn telling() -> TaskWork {
        TaskWork { canceller: None, state: ContainerState::Completed }
    }

    /// How far its container is.
    pub(super) fn state(&self) -> ContainerState {
        self.state
    }

    /// Something happens to its container.
    pub(super) fn turn(&mut self, event: ContainerEvent) {
        turn(&mut self.state, event);
    }

    /// It is to end.
    pub(super) fn cancel(&self) {
        self.canceller.iter().for_each(Canceller::cancel);
    }
}

/// Something happens to a container. What is refused is our own mistake, and changes nothing.
fn turn(state: &mut ContainerState, event: ContainerEvent) {
    match state.next(event) {
        Ok(next) => *state = next,
        Err(err) => {
            let what = format!("{event:?}").to_lowercase();
            crate::warn!("container.kept", what = what, from = *state, err = err);
        }
    }
}
