use super::super::tables::{events, lrp, requests, task};
use super::*;

/// What the BBS's own Go models marshal.
const GOLDEN: &str = include_str!("../../../../tests/golden/bbs/messages.txt");

/// Name in the golden file and message.
const ALL: [(&str, &Message); 13] = [
    ("desire", &requests::DESIRE),
    ("update", &requests::CHANGE),
    ("actuals-of", &requests::ACTUALS_OF),
    ("retire", &requests::RETIRE),
    ("desire-task", &task::DESIRE),
    ("actuals", &requests::ACTUALS),
    ("error", &requests::DONE),
    ("task", &requests::ONE_TASK),
    ("cells", &requests::CELLS),
    ("domains", &requests::DOMAINS),
    ("crashed", &events::CRASHED),
    ("scheduling", &requests::SCHEDULINGS),
    ("changed", &events::INSTANCE_CHANGED),
];

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.unwrap_or_else(|| panic!("{name} is in the file"));
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn read(name: &str) -> Value {
    let (_, message) = ALL.iter().find(|(known, _)| *known == name).expect("a message");
    Value::Object(decode(message, &golden(name)).unwrap_or_else(|err| panic!("{name}: {err:?}")))
}

/// Row 34: byte for byte what the Go client writes and reads.
#[test]
fn row_34_messages_are_those_of_the_go_models() {
    for (name, message) in ALL {
        let bytes = golden(name);
        assert_eq!(encode(message, &read(name)), bytes, "{name}: {}", read(name));
    }
}

/// Row 8: under the names that the receptor's dialect has for them.
#[test]
fn row_8_a_desired_lrp_is_read_into_the_receptors_json() {
    let lrp = read("desire");
    for (pointer, value) in [
        ("/process_guid", json!("App_1")),
        ("/rootfs", json!("preloaded:tiny")),
        ("/env", json!([{ "name": "A", "value": "b" }])),
        ("/setup/serial/actions/0/download/checksum_value", json!("ab")),
        ("/action/timeout/timeout_ms", json!(3000)),
        ("/action/timeout/action/run/args/1", json!("exec sleep 1000")),
        ("/action/timeout/action/run/resource_limits/nofile", json!(16384)),
        ("/ports", json!([8080, 2222])),
        ("/routes", json!({ "cf-router": [{ "hostnames": ["a.b"], "port": 8080 }] })),
        ("/egress_rules/0/icmp_info", json!({ "type": -1, "code": -1 })),
        ("/check_definition/checks/0/tcp_check/connect_timeout_ms", json!(250)),
        ("/metric_tags/n/dynamic", json!("INDEX")),
        ("/log_rate_limit/bytes_per_second", json!(-1)),
        ("/volume_mounts/0/shared/volume_id", json!("v")),
        ("/placement_tags", json!(["edge"])),
        ("/start_timeout_ms", json!(60_000)),
    ] {
        assert_eq!(lrp.pointer(pointer), Some(&value), "{pointer} of {lrp}");
    }
    // Zero and nothing are not the same where that matters.
    let update = &read("update")["update"];
    assert_eq!(*update, json!({ "instances": 0, "annotation": "" }));
    assert_eq!(read("actuals-of"), json!({ "domain": "d", "index": 0 }));
    assert_eq!(read("error")["error"]["type"], "ResourceNotFound");
    assert_eq!(read("task")["task"]["state"], "COMPLETED");
    assert_eq!(read("actuals")["actual_lrps"][0]["routable"], false);
}

#[test]
fn a_message_that_is_cut_or_bent_never_breaks_the_reader() {
    for (name, message) in ALL {
        let bytes = golden(name);
        for cut in 0..bytes.len() {
            // Some beginnings are messages; none may panic.
            let _ = decode(message, &bytes[..cut]);
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[cut] ^= 1 << bit;
                if let Ok(read) = decode(message, &bent) {
                    let again = encode(message, &Value::Object(read));
                    assert!(decode(message, &again).is_ok(), "{name} bent at {cut}, bit {bit}");
                }
            }
        }
    }
    let whole = golden("desire");
    assert!(decode(&requests::DESIRE, &whole[..whole.len() - 1]).is_err());
}

#[test]
fn what_nobody_knows_is_skipped_and_parts_belong_together() {
    let mut bytes = golden("retire");
    // Field 99 as a number, as bytes, as eight and as four bytes.
    for unknown in [
        &[0x98, 0x06, 0x01][..],
        &[0x9a, 0x06, 0x02, 1, 2],
        &[0x99, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x9d, 0x06, 1, 2, 3, 4],
    ] {
        bytes.extend_from_slice(unknown);
    }
    // And the key once more: its domain is another one now.
    bytes.extend_from_slice(&[0x0a, 0x03, 0x1a, 0x01, b'e']);
    let read = decode(&requests::RETIRE, &bytes).expect("a message");
    assert_eq!(Value::Object(read), json!({ "process_guid": "App_1", "index": 3, "domain": "e" }));
    // Numbers in one piece are the same list.
    let packed = decode(&lrp::DESIRED, &[0x72, 0x03, 0x90, 0x3f, 0x05, 0x70, 0x07]);
    assert_eq!(Value::Object(packed.expect("a message")), json!({ "ports": [8080, 5, 7] }));
}

#[test]
fn what_is_too_much_or_cannot_be_had_is_refused() {
    let mut deep = vec![];
    for _ in 0..=DEPTH_MAX {
        let mut outer = Vec::new();
        // A serial action: field 8, in it field 1.
        let mut inner = Vec::new();
        put_bytes(&mut inner, 1, &deep);
        put_bytes(&mut outer, 8, &inner);
        deep = outer;
    }
    let err = decode(&super::super::tables::ACTION, &deep).expect_err("it is too deep");
    assert_eq!(err, Unread::Malformed("messages lie too deep in messages"));
    let many = [0x70, 0x07].repeat(FIELDS_MAX + 1);
    let err = decode(&lrp::DESIRED, &many).expect_err("there is too much of it");
    assert_eq!(err, Unread::Malformed("there are too many fields"));
    let mut packed = Vec::new();
    put_bytes(&mut packed, 14, &vec![1; FIELDS_MAX + 1]);
    assert!(decode(&lrp::DESIRED, &packed).is_err());
    let refused = |message: &Message, bytes: &[u8]| match decode(message, bytes) {
        Err(Unread::Field(name)) => name,
        other => panic!("{other:?}"),
    };
    // action { run { volume_mounted_files { path: "x" } } }
    let run = [0x1a, 0x05, 0x4a, 0x03, 0x0a, 0x01, b'x'];
    let name = refused(&super::super::tables::ACTION, &run);
    assert!(name.starts_with("action: run: volume_mounted_files"), "{name}");
    // routes { "r": what is no JSON }
    let routes = [0x7a, 0x08, 0x0a, 0x06, 0x0a, 0x01, b'r', 0x12, 0x01, b'{'];
    assert_eq!(refused(&lrp::DESIRED, &routes), "routes");
    for (bytes, why) in [
        (&[0x0a, 0x01, 0xff][..], "a text that is not UTF-8"),
        (&[0x08, 0x01], "a number where a text is"),
        (&[0x22, 0x01, b'x'], "a text where a number is"),
        (&[0x9d, 0x02, 1, 2, 3, 4], "four bytes where a map is"),
    ] {
        let err = decode(&lrp::DESIRED, bytes).expect_err(why);
        assert!(matches!(err, Unread::Malformed(_)), "{why}: {err:?}");
    }
}
