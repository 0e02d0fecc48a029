//! The BBS's errors: a type and a text in the answer, whose status is 200 all the same. Pure.

use super::proto::Unread;
use crate::cell::task::TaskError;
use crate::cell::{CellError, Kind};
use serde_json::{Value, json};

/// Every type by its number; numbers that there are no more have none.
pub static TYPES: [&str; 32] = [
    "UnknownError",
    "",
    "",
    "InvalidRecord",
    "InvalidRequest",
    "InvalidResponse",
    "InvalidProtobufMessage",
    "InvalidJSON",
    "FailedToOpenEnvelope",
    "InvalidStateTransition",
    "",
    "ResourceConflict",
    "ResourceExists",
    "ResourceNotFound",
    "RouterError",
    "ActualLRPCannotBeClaimed",
    "ActualLRPCannotBeStarted",
    "ActualLRPCannotBeCrashed",
    "ActualLRPCannotBeFailed",
    "ActualLRPCannotBeRemoved",
    "",
    "ActualLRPCannotBeUnclaimed",
    "",
    "",
    "RunningOnDifferentCell",
    "",
    "GUIDGeneration",
    "Deserialize",
    "Deadlock",
    "Unrecoverable",
    "LockCollision",
    "Timeout",
];

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`TYPES`].
    pub kind: &'static str,
    /// For a person; where the BBS has a text of its own, that.
    pub message: String,
}

/// What comes of a request.
pub type Done<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal of this type.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }

    /// What was asked will not do.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new("InvalidRequest", message)
    }

    /// There is no such thing.
    pub fn missing() -> Refusal {
        Refusal::new("ResourceNotFound", "the requested resource could not be found")
    }

    /// There is one already.
    pub fn exists() -> Refusal {
        Refusal::new("ResourceExists", "the requested resource already exists")
    }

    /// As it stands in an answer.
    pub fn view(&self) -> Value {
        json!({ "error": { "type": self.kind, "message": self.message } })
    }
}

impl From<Unread> for Refusal {
    fn from(err: Unread) -> Refusal {
        match err {
            Unread::Malformed(why) => {
                Refusal::invalid(format!("the request received is invalid: {why}"))
            }
            Unread::Field(name) => Refusal::invalid(format!("Invalid field: {name}")),
        }
    }
}

impl From<CellError> for Refusal {
    fn from(err: CellError) -> Refusal {
        match err.kind {
            Kind::NotFound => Refusal::missing(),
            Kind::Conflict => Refusal::new("ResourceConflict", err.text),
            Kind::Invalid => Refusal::invalid(err.text),
            _ => Refusal::new("UnknownError", err.text),
        }
    }
}

impl From<TaskError> for Refusal {
    fn from(err: TaskError) -> Refusal {
        Refusal::new(err.name(), err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 34: the numbers of models/error.proto.
    #[test]
    fn row_34_every_type_has_the_number_that_clients_know() {
        for (number, name) in [
            (0, "UnknownError"),
            (3, "InvalidRecord"),
            (4, "InvalidRequest"),
            (9, "InvalidStateTransition"),
            (11, "ResourceConflict"),
            (12, "ResourceExists"),
            (13, "ResourceNotFound"),
            (14, "RouterError"),
            (19, "ActualLRPCannotBeRemoved"),
            (21, "ActualLRPCannotBeUnclaimed"),
            (24, "RunningOnDifferentCell"),
            (26, "GUIDGeneration"),
            (31, "Timeout"),
        ] {
            assert_eq!(TYPES[number], name);
        }
        assert_eq!(TYPES.iter().filter(|name| !name.is_empty()).count(), 25);
    }

    #[test]
    fn refusals_have_the_texts_of_the_bbs() {
        let err = CellError::new(Kind::NotFound, "there is no DesiredLRP x");
        assert_eq!(Refusal::from(err), Refusal::missing());
        let err = Refusal::from(Unread::Field("routes"));
        assert_eq!(err, Refusal::new("InvalidRequest", "Invalid field: routes"));
        assert!(TYPES.contains(&Refusal::exists().kind));
    }
}
