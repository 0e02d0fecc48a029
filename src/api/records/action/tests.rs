use super::*;

/// What is written is read again as the same.
fn round(text: &str) -> Action {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let action = decode(&value).unwrap_or_else(|err| panic!("{}: {text}", err.0));
    let written = encode(&action).expect("one of Diego's");
    assert_eq!(decode(&written), Ok(action.clone()), "{written}");
    action
}

const RUN: &str = r#"{"run":{"path":"a","user":"u"}}"#;

#[test]
fn every_action_of_diego_is_read_and_written() {
    let run = round(
        r#"{"run":{"path":"/bin/a","args":["x","y z"],"dir":"/srv","user":"vcap","log_source":"A",
            "env":[{"name":"K","value":"v=w"},{"name":"E","value":""}],
            "resource_limits":{"nofile":0,"nproc":3},"suppress_log_output":true}}"#,
    );
    let Action::Run(run) = run else { panic!("{run:?}") };
    assert_eq!((run.process.nofile, run.process.dir.as_deref()), (Some(0), Some("/srv")));
    assert_eq!(run.process.env, [("K".into(), "v=w".into()), ("E".into(), String::new())]);
    let loaded = round(
        r#"{"download":{"from":"http://a/b","to":"/c","cache_key":"k","user":"u","artifact":"art",
            "checksum_algorithm":"SHA1","checksum_value":"ab"}}"#,
    );
    let Action::Download(loaded) = loaded else { panic!("{loaded:?}") };
    assert_eq!(loaded.checksum.expect("one").algorithm, ChecksumAlgorithm::Sha1);
    round(r#"{"upload":{"from":"/a","to":"http://b","user":"u","log_source":"UP"}}"#);
    for list in ["serial", "parallel", "codependent"] {
        round(&format!(r#"{{"{list}":{{"actions":[{RUN},{{"try":{{"action":{RUN}}}}}]}}}}"#));
    }
    let slow = round(&format!(r#"{{"timeout":{{"action":{RUN},"timeout":900000000000}}}}"#));
    assert!(matches!(slow, Action::Timeout { timeout, .. } if timeout.as_secs() == 900));
    let slow = round(&format!(r#"{{"timeout":{{"action":{RUN},"timeout_ms":1500}}}}"#));
    assert!(matches!(slow, Action::Timeout { timeout, .. } if timeout.as_millis() == 1500));
    round(&format!(
        r#"{{"emit_progress":{{"action":{RUN},"start_message":"a","success_message":"b",
            "failure_message_prefix":"c","log_source":"STG"}}}}"#
    ));
}

#[test]
fn a_source_of_a_wrapper_is_kept_and_is_for_those_below() {
    let text = format!(r#"{{"serial":{{"actions":[{RUN}],"log_source":"X"}}}}"#);
    let Action::LogSource { source, action } = round(&text) else { panic!("{text}") };
    assert_eq!(source, "X");
    assert!(matches!(*action, Action::Serial(_)));
}

#[test]
fn what_is_no_action_is_refused_with_the_name_of_the_field() {
    for (text, why) in [
        ("null", "Invalid field: action"),
        ("[]", "Invalid field: action"),
        ("{}", "Invalid field: action: exactly one of its names is wanted"),
        (
            r#"{"run":{"path":"a","user":"u"},"try":{}}"#,
            "Invalid field: action: exactly one of its names is wanted",
        ),
        (r#"{"walk":{}}"#, "Unknown action: walk"),
        (r#"{"run":7}"#, "Invalid field: run"),
        (r#"{"run":{"user":"u"}}"#, "Invalid field: path"),
        (r#"{"run":{"path":"a"}}"#, "Invalid field: user"),
        (r#"{"run":{"path":"a","user":"u","args":"x"}}"#, "Invalid field: args"),
        (r#"{"run":{"path":"a","user":"u","args":["\u0000"]}}"#, "Invalid field: args"),
        (r#"{"run":{"path":"a","user":"u","env":[{"name":"a=b"}]}}"#, "Invalid field: env"),
        (r#"{"run":{"path":"a","user":"u","env":[{"value":"b"}]}}"#, "Invalid field: name"),
        (
            r#"{"run":{"path":"a","user":"u","resource_limits":{"nofile":-1}}}"#,
            "Invalid field: nofile",
        ),
        (r#"{"download":{"to":"b","user":"u"}}"#, "Invalid field: from"),
        (r#"{"download":{"from":"a","user":"u"}}"#, "Invalid field: to"),
        (r#"{"download":{"from":"a","to":"b"}}"#, "Invalid field: user"),
        (
            r#"{"download":{"from":"a","to":"b","user":"u","checksum_value":"x"}}"#,
            "Invalid field: checksum algorithm",
        ),
        (
            r#"{"download":{"from":"a","to":"b","user":"u","checksum_algorithm":"md5"}}"#,
            "Invalid field: checksum value",
        ),
        (
            r#"{"download":{"from":"a","to":"b","user":"u","checksum_algorithm":"crc",
                "checksum_value":"x"}}"#,
            "Invalid field: checksum algorithm",
        ),
        (r#"{"upload":{"from":"a","user":"u"}}"#, "Invalid field: to"),
        (r#"{"upload":{"from":"a","to":"b"}}"#, "Invalid field: user"),
        (r#"{"timeout":{"timeout":5}}"#, "Invalid field: action"),
        (r#"{"timeout":{"action":{"run":{"path":"a","user":"u"}}}}"#, "Invalid field: timeout"),
        (r#"{"try":{}}"#, "Invalid field: action"),
        (r#"{"serial":{}}"#, "Invalid field: actions"),
        (r#"{"serial":{"actions":[]}}"#, "Invalid field: actions"),
        (r#"{"parallel":{"actions":[null]}}"#, "Invalid field: action"),
        (r#"{"codependent":{"actions":{}}}"#, "Invalid field: actions"),
        (r#"{"emit_progress":{"start_message":"a"}}"#, "Invalid field: action"),
    ] {
        let value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(decode(&value), Err(BadAction(why.into())), "{text}");
    }
}

#[test]
fn what_only_this_box_knows_has_no_json() {
    let copy = crate::model::action::CopyOutAction {
        from: "/a".into(),
        to: "/b".into(),
        user: "u".into(),
        artifact: "x".into(),
        optional: false,
    };
    assert_eq!(encode(&Action::Serial(vec![Action::CopyOut(copy)])), None);
}
