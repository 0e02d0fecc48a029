//! What a controller is told of a staging that has ended: Diego's ids and messages. Pure.

use super::request::Completed;
use serde_json::{Value, json};

/// What a person is told of a failure whose reason is not for him.
const FAILED: &str = "staging failed";

/// Reasons that the builder gives by its exit status, which is the end of the text.
const BY_STATUS: [(&str, &str); 3] = [
    ("222", "NoAppDetectedError"),
    ("223", "BuildpackCompileFailed"),
    ("224", "BuildpackReleaseFailed"),
];

/// Reasons that are told as they are.
const PLAIN: [&str; 4] = [
    "missing docker image download url",
    "missing docker registry",
    "missing docker credentials",
    "invalid docker registry address",
];

/// The error that a controller is told of for `reason`: `{"id":..., "message":...}`.
pub fn error(reason: &str) -> Value {
    let by_status = BY_STATUS.iter().find(|(status, _)| reason.ends_with(status));
    let (id, message) = match by_status {
        Some((_, id)) => (*id, FAILED),
        None if reason.starts_with("insufficient resources") => ("InsufficientResources", reason),
        None if reason.starts_with("found no compatible cell") => ("NoCompatibleCell", reason),
        None if reason == crate::model::view::NO_CELL => ("CellCommunicationError", reason),
        None if PLAIN.contains(&reason) => ("StagingError", reason),
        None => ("StagingError", FAILED),
    };
    json!({ "id": id, "message": message })
}

/// What a controller is told of a staging's end.
pub fn outcome(done: &Completed) -> Value {
    match (done.failed, serde_json::from_str::<Value>(&done.result)) {
        (true, _) => json!({ "error": error(&done.failure_reason) }),
        (false, Ok(result)) => json!({ "result": result }),
        (false, Err(_)) => json!({ "error": error("the result is no JSON") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 79: the table of reasons, ids and messages.
    #[test]
    fn row_79_each_reason_has_its_id_and_message() {
        for (reason, id, message) in [
            ("STG: Exited with status 222", "NoAppDetectedError", FAILED),
            ("STG: Exited with status 223", "BuildpackCompileFailed", FAILED),
            ("STG: Exited with status 224", "BuildpackReleaseFailed", FAILED),
            ("STG: Exited with status 225", "StagingError", FAILED),
            ("STG: Exited with status 226", "StagingError", FAILED),
            ("STG: Exited with status 222 (out of memory)", "StagingError", FAILED),
            (
                "insufficient resources: memory",
                "InsufficientResources",
                "insufficient resources: memory",
            ),
            (
                "found no compatible cell for required rootfs",
                "NoCompatibleCell",
                "found no compatible cell for required rootfs",
            ),
            (
                "unable to communicate to compatible cells",
                "CellCommunicationError",
                "unable to communicate to compatible cells",
            ),
            (
                "missing docker image download url",
                "StagingError",
                "missing docker image download url",
            ),
            ("missing docker credentials", "StagingError", "missing docker credentials"),
            ("missing app id", "StagingError", FAILED),
            ("exceeded 15m0s timeout", "StagingError", FAILED),
        ] {
            assert_eq!(error(reason), json!({ "id": id, "message": message }), "{reason}");
        }
    }

    #[test]
    fn a_result_is_passed_on_as_it_is_and_one_that_is_none_is_a_failure() {
        let done = |failed, result: &str| Completed {
            failed,
            failure_reason: "x 223".into(),
            result: result.into(),
            ..Completed::default()
        };
        assert_eq!(outcome(&done(false, r#"{"a":[1]}"#)), json!({ "result": { "a": [1] } }));
        assert_eq!(outcome(&done(false, ""))["error"]["id"], "StagingError");
        assert_eq!(outcome(&done(true, "{}"))["error"]["id"], "BuildpackCompileFailed");
    }
}
