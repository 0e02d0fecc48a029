//! Errors as the Go client reads them: it looks at `Type` first and at the status never.

use super::{Settings, raw};
use crate::api::http::BodyError;
use crate::api::http::server::{Content, Response};
use crate::garden::GardenError;
use crate::model::garden::ErrorBody;
use std::fmt;

/// A request that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    body: ErrorBody,
}

impl Refusal {
    /// An ordinary error.
    pub(super) fn ordinary(why: impl fmt::Display) -> Refusal {
        Refusal { status: 500, body: ErrorBody { message: why.to_string(), ..Default::default() } }
    }

    /// The answer to a plain call.
    pub(super) fn answer(&self) -> Response {
        Response::json(self.status, &self.body).because(&self.body.message)
    }

    /// The answer on a route that gives its connection away. Its client takes `Connection: close`
    /// for a broken connection and never looks at the error: so nothing of the kind is said, and
    /// the connection ends when the client closes it, or a short time later.
    pub(super) fn raw_answer(&self, settings: Settings) -> Response {
        let mut body = serde_json::to_vec(&self.body).expect("text always becomes JSON");
        body.push(b'\n');
        let length = body.len().to_string();
        let say = Content::Hijack(Box::new(move |stream| {
            Box::pin(async move { raw::last_word(stream, &body, settings).await })
        }));
        let response = Response::new(self.status, say).with("Content-Type", "application/json");
        response.with("Content-Length", length).because(&self.body.message)
    }
}

impl From<GardenError> for Refusal {
    fn from(err: GardenError) -> Refusal {
        let message = err.to_string();
        let body = ErrorBody { message, ..Default::default() };
        let (status, body) = match err {
            GardenError::UnknownHandle(handle) => {
                (404, ErrorBody { kind: "ContainerNotFoundError", handle, ..body })
            }
            GardenError::UnknownProcess(process_id) => {
                (404, ErrorBody { kind: "ProcessNotFoundError", process_id, ..body })
            }
            GardenError::NoExecutable(_) => {
                (500, ErrorBody { kind: "ExecutableNotFoundError", ..body })
            }
            GardenError::Unavailable(_) => {
                (500, ErrorBody { kind: "ServiceUnavailableError", ..body })
            }
            GardenError::Failed(_) => (500, body),
        };
        Refusal { status, body }
    }
}

impl From<BodyError> for Refusal {
    fn from(err: BodyError) -> Refusal {
        Refusal { status: err.status(), ..Refusal::ordinary(err) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_status_its_type_and_its_own_field() {
        for (err, status, json) in [
            (
                GardenError::UnknownHandle("h".into()),
                404,
                r#"{"Type":"ContainerNotFoundError","Message":"unknown handle: h","Handle":"h","ProcessID":"","Binary":""}"#,
            ),
            (
                GardenError::UnknownProcess("p".into()),
                404,
                r#"{"Type":"ProcessNotFoundError","Message":"unknown process: p","Handle":"","ProcessID":"p","Binary":""}"#,
            ),
            (
                GardenError::NoExecutable("no ls".into()),
                500,
                r#"{"Type":"ExecutableNotFoundError","Message":"no ls","Handle":"","ProcessID":"","Binary":""}"#,
            ),
            (
                GardenError::Unavailable("later".into()),
                500,
                r#"{"Type":"ServiceUnavailableError","Message":"later","Handle":"","ProcessID":"","Binary":""}"#,
            ),
            (
                GardenError::Failed("max containers reached".into()),
                500,
                r#"{"Type":"","Message":"max containers reached","Handle":"","ProcessID":"","Binary":""}"#,
            ),
        ] {
            let refusal = Refusal::from(err);
            assert_eq!(refusal.answer().status(), status);
            assert_eq!(serde_json::to_string(&refusal.body).expect("json"), json);
        }
        let refusal = Refusal::from(BodyError::TooLarge { max: 5 });
        assert_eq!((refusal.status, refusal.body.kind), (413, ""));
        assert_eq!(refusal.body.message, "the body is longer than 5 bytes");
    }
}
