//! The `VCAP_*` variables: what the platform adds for scripts and apps. Pure.

use serde_json::{Value, json};
use std::fmt;

/// `VCAP_APPLICATION` with what only the instance knows; `None`: it is no JSON map, leave it.
///
/// A port or index that is no number is left out.
pub(super) fn application(
    text: &str,
    instance_id: &str,
    port: &str,
    index: &str,
) -> Option<String> {
    let Ok(Value::Object(mut map)) = serde_json::from_str(text) else { return None };
    map.insert("host".into(), json!("0.0.0.0"));
    map.insert("instance_id".into(), json!(instance_id));
    for (key, number) in [("port", port), ("instance_index", index)] {
        if let Ok(number) = number.parse::<u32>() {
            map.insert(key.into(), json!(number));
        }
    }
    Some(Value::Object(map).to_string())
}

/// Why the platform's options cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadOptions {
    /// They are no JSON map.
    Text(String),
    /// Services refer to a CredHub at this place.
    Credhub(String),
}

impl BadOptions {
    /// The exit code that Diego's lifecycle has for it.
    pub(super) fn code(&self) -> u8 {
        match self {
            BadOptions::Text(_) => 3,
            BadOptions::Credhub(_) => 4,
        }
    }
}

impl fmt::Display for BadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadOptions::Text(why) => {
                write!(f, "Invalid platform options: VCAP_PLATFORM_OPTIONS is no JSON map: {why}")
            }
            BadOptions::Credhub(uri) => write!(
                f,
                "Unable to interpolate credhub references: {uri} is not asked by this version; give \
                 the services their credentials themselves"
            ),
        }
    }
}

/// Checks `VCAP_PLATFORM_OPTIONS` against `VCAP_SERVICES`: only services that refer to a CredHub need
/// one.
pub(super) fn platform_options(options: &str, services: &str) -> Result<(), BadOptions> {
    if options.trim().is_empty() {
        return Ok(());
    }
    let read: Option<serde_json::Map<String, Value>> =
        serde_json::from_str(options).map_err(|err| BadOptions::Text(err.to_string()))?;
    let uri = read.as_ref().and_then(|map| map.get("credhub-uri")?.as_str());
    match uri.filter(|uri| !uri.is_empty() && services.contains("\"credhub-ref\"")) {
        Some(uri) => Err(BadOptions::Credhub(uri.to_owned())),
        None => Ok(()),
    }
}

/// `DATABASE_URL` as `VCAP_SERVICES` gives it: the first `credentials.uri` of a relational
/// database, with the scheme that Rails knows. Services come in the order of their labels.
///
/// Errors: the text is no JSON map.
pub(super) fn database_url(services: &str) -> Result<Option<String>, String> {
    if services.trim().is_empty() {
        return Ok(None);
    }
    let services: serde_json::Map<String, Value> =
        serde_json::from_str(services).map_err(|err| err.to_string())?;
    let uris = services
        .values()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|service| service.pointer("/credentials/uri")?.as_str());
    Ok(uris.filter_map(rails_url).next())
}

fn rails_url(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let scheme = match scheme {
        "mysql" | "mysql2" => "mysql2",
        "postgres" | "postgresql" => "postgres",
        _ => return None,
    };
    Some(format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_learns_its_instance() {
        let text = application(r#"{"name":"a","port":1}"#, "guid", "8080", "2").expect("JSON");
        let map: Value = serde_json::from_str(&text).expect("JSON again");
        assert_eq!(
            map,
            json!({"name":"a","host":"0.0.0.0","instance_id":"guid","port":8080,"instance_index":2})
        );
        let bare = application("{}", "", "", "x").expect("JSON");
        assert_eq!(bare, r#"{"host":"0.0.0.0","instance_id":""}"#);
        for no_map in ["", "null", "[1]", "{"] {
            assert_eq!(application(no_map, "g", "1", "0"), None, "{no_map}");
        }
    }

    #[test]
    fn options_are_a_map_and_no_credhub_is_asked() {
        let refers = r#"{"db":[{"credentials":{"credhub-ref":"/x"}}]}"#;
        let hub = r#"{"credhub-uri":"https://hub"}"#;
        for (options, services) in [
            ("", refers),
            ("null", refers),
            ("{}", refers),
            (r#"{"credhub-uri":""}"#, refers),
            (hub, "{}"),
        ] {
            assert_eq!(platform_options(options, services), Ok(()), "{options}");
        }
        for (options, code) in [("{", 3), ("[]", 3), (hub, 4)] {
            let err = platform_options(options, refers).expect_err(options);
            assert_eq!(err.code(), code, "{err}");
        }
    }

    #[test]
    fn the_first_relational_database_is_taken() {
        for (services, want) in [
            ("", None),
            ("{}", None),
            (r#"{"redis":[{"credentials":{"uri":"redis://h"}}]}"#, None),
            (
                r#"{"a":[{}, {"credentials":{"uri":7}}, {"credentials":{"uri":"mysql://u:p@h/d"}}]}"#,
                Some("mysql2://u:p@h/d"),
            ),
            (
                r#"{"b":[{"credentials":{"uri":"mysql2://h"}}],"a":[{"credentials":{"uri":"postgresql://h"}}]}"#,
                Some("postgres://h"),
            ),
            (
                r#"{"x":"odd","y":[{"credentials":{"uri":"postgres://h?a=b://c"}}]}"#,
                Some("postgres://h?a=b://c"),
            ),
        ] {
            assert_eq!(database_url(services), Ok(want.map(str::to_owned)), "{services}");
        }
        assert!(database_url("[").is_err());
        assert!(database_url("[]").is_err());
    }
}
