//! What may be changed of a DesiredLRP, and what has to stay.

use super::handle::text;
use super::refusal::{Done, Refusal};
use crate::api::bridge::desired;
use crate::api::records::record;
use crate::bridge::Bridge;
use crate::model::extras::Extras;
use serde_json::{Map, Value, json};

/// What may change; what else is said must be as it was.
pub async fn update(bridge: &Bridge, asked: &Map<String, Value>) -> Done<Value> {
    let guid = text(asked, "process_guid");
    let Some(update) = asked.get("update").and_then(Value::as_object) else {
        return Err(Refusal::invalid("Invalid field: update"));
    };
    let lrp = bridge.cell().lrp(guid).ok_or_else(Refusal::missing)?;
    still_says(&lrp.container.extras, update)?;
    let change = desired::change(update).map_err(|err| Refusal::invalid(err.0))?;
    bridge.cell().update_lrp(guid, change).await?;
    Ok(json!({}))
}

fn still_says(extras: &Extras, update: &Map<String, Value>) -> Done<()> {
    let refused = |name: &str| {
        let text = format!(
            "Invalid field: {name}: it does not change while the LRP runs here; desire it under \
             another process_guid"
        );
        Err(Refusal::invalid(text))
    };
    let login = extras.login.clone().unwrap_or_default();
    let said = |name: &str| update.get(name).and_then(Value::as_str).filter(|it| !it.is_empty());
    if said("image_username").is_some_and(|user| user != login.user) {
        return refused("image_username");
    }
    if said("image_password").is_some_and(|password| password != login.password) {
        return refused("image_password");
    }
    match update.get("metric_tags") {
        Some(tags) => match record::tags(tags) {
            Ok(tags) if tags == extras.metric_tags => Ok(()),
            Ok(_) => refused("metric_tags"),
            Err(err) => Err(Refusal::invalid(err.0)),
        },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extras::{ImageLogin, MetricTag};

    /// Row 8: of an update, what cannot change here has to be what it was.
    #[test]
    fn row_8_an_update_that_would_change_what_stays_is_refused_by_name() {
        let extras = Extras {
            login: Some(ImageLogin { user: "ann".into(), password: "horse".into() }),
            metric_tags: [("who".to_owned(), MetricTag::Static("me".into()))].into(),
            ..Extras::default()
        };
        let said = |update: Value| still_says(&extras, update.as_object().expect("an object"));
        let same = json!({ "instances": 2, "image_username": "ann", "image_password": "horse",
            "metric_tags": { "who": { "static": "me" } } });
        assert_eq!(said(same), Ok(()));
        assert_eq!(said(json!({ "image_username": "" })), Ok(()));
        for (update, field) in [
            (json!({ "image_username": "bob" }), "image_username"),
            (json!({ "image_password": "x" }), "image_password"),
            (json!({ "metric_tags": { "who": { "dynamic": "INDEX" } } }), "metric_tags"),
        ] {
            let err = said(update).expect_err(field);
            assert!(err.message.starts_with(&format!("Invalid field: {field}: ")), "{err:?}");
            assert!(!err.message.contains("horse") && err.kind == "InvalidRequest");
        }
    }
}
