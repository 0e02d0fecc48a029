//! What goes wrong for a Garden client, by the kinds that it tells apart.

use crate::unit::Handle;
use std::error::Error;
use std::fmt;

/// Why a request was not done. The texts are those that clients match on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GardenError {
    /// No container of this handle: "unknown handle: {0}".
    UnknownHandle(String),
    /// No process of this name: "unknown process: {0}".
    UnknownProcess(String),
    /// The program is not in the container.
    NoExecutable(String),
    /// Not at this moment; it may work later.
    Unavailable(String),
    /// Everything else, said in full.
    Failed(String),
}

impl GardenError {
    /// What a lower room refused, in full, about the container of this handle: it has the handle in
    /// it, and not the name that the depot has for it.
    pub(super) fn about(handle: &str, name: &Handle, err: &(dyn Error + 'static)) -> GardenError {
        let text = translated(handle, name, &crate::log::chain(err));
        GardenError::Failed(match text.contains(&format!("container {handle}")) {
            true => text,
            false => format!("container {handle}: {text}"),
        })
    }
}

/// A text of a lower room with the client's handle for the container. Paths stay as they are: the
/// depot's name is really in them.
pub(super) fn translated(handle: &str, name: &Handle, text: &str) -> String {
    text.replace(&format!("container {name}"), &format!("container {handle}"))
}

impl fmt::Display for GardenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GardenError::UnknownHandle(handle) => write!(f, "unknown handle: {handle}"),
            GardenError::UnknownProcess(id) => write!(f, "unknown process: {id}"),
            GardenError::NoExecutable(text)
            | GardenError::Unavailable(text)
            | GardenError::Failed(text) => f.write_str(text),
        }
    }
}

impl Error for GardenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ContainerError;

    #[test]
    fn a_container_is_told_by_the_name_that_its_client_has_for_it() {
        let name: Handle = "e3k5s0l1abc".parse().expect("handle");
        let about = |err: ContainerError| GardenError::about("any/thing", &name, &err).to_string();
        let step = |source: &str| ContainerError::Step {
            doing: "make",
            handle: name.clone(),
            source: source.into(),
        };
        assert_eq!(about(step("no room")), "cannot make container any/thing: no room");
        let text = about(step("cannot open /depot/e3k5s0l1abc/etc"));
        assert_eq!(text, "cannot make container any/thing: cannot open /depot/e3k5s0l1abc/etc");
        let text = about(ContainerError::PortTaken { port: 70 });
        assert!(text.starts_with("container any/thing: host port 70 is taken; "), "{text}");
    }
}
