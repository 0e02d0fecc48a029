//! The dialects over a real socket, with the fake service behind them.

use crate::api::apps::fake::Fake;
use crate::api::http::client::{Call, Client};
use crate::api::testing::with_service;
use serde_json::{Value, json};

const LRP: &str = include_str!("../../../../tests/fixtures/container-lrp.json");

/// Status and body of an answer.
async fn ask(client: &Client, method: &'static str, path: &str, body: &Value) -> (u16, Value) {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let mut call = Call::new(method, &path);
    if !body.is_null() {
        call = call.json(body);
    }
    let reply = client.send(&call).await.expect("an answer");
    let status = reply.status();
    (status, reply.json().await.expect("JSON"))
}

fn task(guid: &str) -> Value {
    json!({ "task_guid": guid, "domain": "d", "rootfs": "/stacks/tiny", "annotation": "mine",
        "action": { "run": { "path": "true", "user": "vcap" } } })
}

#[test]
fn row_1_a_task_is_asked_for_shown_cancelled_and_deleted() {
    with_service(Fake::default(), async |client| {
        assert_eq!(ask(&client, "POST", "/v1/tasks", &task("A")).await, (201, json!({})));
        let (status, err) = ask(&client, "POST", "/v1/tasks", &task("A")).await;
        assert_eq!((status, &err["name"]), (409, &"TaskGuidAlreadyExists".into()));
        assert_eq!(err["message"], "the requested resource already exists");
        let (status, shown) = ask(&client, "GET", "/v1/tasks/A", &Value::Null).await;
        assert_eq!((status, &shown["state"]), (200, &"PENDING".into()));
        // As it was written, and what became of it.
        assert_eq!(shown["rootfs"], "/stacks/tiny");
        assert_eq!(shown["action"]["run"]["path"], "true");
        assert_eq!((&shown["annotation"], &shown["failed"]), (&"mine".into(), &false.into()));
        let (status, err) = ask(&client, "DELETE", "/v1/tasks/A", &Value::Null).await;
        assert_eq!((status, &err["name"]), (409, &"TaskNotDeletable".into()));
        assert_eq!(ask(&client, "POST", "/v1/tasks/A/cancel", &Value::Null).await.0, 200);
        assert_eq!(ask(&client, "DELETE", "/v1/tasks/A", &Value::Null).await.0, 200);
        for (method, path) in
            [("GET", "/v1/tasks/A"), ("DELETE", "/v1/tasks/A"), ("POST", "/v1/tasks/A/cancel")]
        {
            let (status, err) = ask(&client, method, path, &Value::Null).await;
            assert_eq!((status, &err["name"]), (404, &"TaskNotFound".into()), "{path}");
        }
        let (_, all) = ask(&client, "GET", "/v1/tasks", &Value::Null).await;
        assert_eq!(all, json!([]));
    });
}

#[test]
fn what_is_no_task_or_path_is_refused_with_diegos_names() {
    with_service(Fake::default(), async |client| {
        for (body, name) in [
            (json!([]), "InvalidTask"),
            (task("a b"), "InvalidTask"),
            (json!({ "task_guid": "a" }), "InvalidTask"),
        ] {
            let (status, err) = ask(&client, "POST", "/v1/tasks", &body).await;
            assert_eq!((status, &err["name"]), (400, &name.into()), "{err}");
        }
        let (status, err) = ask(&client, "PUT", "/v1/tasks", &json!({})).await;
        assert_eq!(
            (status, &err["message"]),
            (405, &"PUT does not go here, only GET, POST".into())
        );
        let (status, err) = ask(&client, "GET", "/v1/containers/x/y", &Value::Null).await;
        assert_eq!((status, &err["name"]), (404, &"ResourceNotFound".into()));
    });
}

#[test]
fn of_a_list_of_containers_the_good_ones_are_made_and_the_others_told() {
    let fake = Fake::default();
    with_service(fake.clone(), async |client| {
        let lrp: Value = serde_json::from_str(LRP).expect("JSON");
        let mut heavy = lrp.clone();
        heavy["guid"] = "heavy".into();
        heavy["cpu_weight"] = 101.into();
        let mut unnamed = lrp.clone();
        unnamed["guid"] = "".into();
        let (status, failures) =
            ask(&client, "POST", "/v1/containers", &json!([lrp, heavy, 7, unnamed])).await;
        assert_eq!(status, 201);
        assert_eq!(failures["heavy"]["name"], "LimitsInvalid");
        assert_eq!(failures["heavy"]["message"], "container limits invalid");
        assert_eq!(failures["number 2"]["name"], "InvalidRecord");
        assert_eq!(failures["number 3"]["name"], "GuidNotSpecified");
        assert_eq!(failures["number 3"]["message"], "container guid not specified");
        assert_eq!(failures.as_object().map(serde_json::Map::len), Some(3));
        let guid = lrp["guid"].as_str().expect("a guid");
        let path = format!("/v1/containers/{guid}");
        let (_, shown) = ask(&client, "GET", &path, &Value::Null).await;
        assert_eq!(
            (&shown["state"], &shown["external_ip"]),
            (&"running".into(), &"192.0.2.1".into())
        );
        assert_eq!(shown["ports"], json!([{ "container_port": 8080, "host_port": 61000 }]));
        assert_eq!(shown["tags"], lrp["tags"]);
        let (status, err) = ask(&client, "POST", "/v1/containers", &lrp).await;
        assert_eq!((status, &err["name"]), (409, &"ContainerGuidNotAvailable".into()));
        assert_eq!(ask(&client, "POST", &format!("{path}/stop"), &Value::Null).await.0, 202);
        assert_eq!(ask(&client, "DELETE", &path, &Value::Null).await.0, 200);
        let (status, err) = ask(&client, "GET", &path, &Value::Null).await;
        assert_eq!((status, &err["name"]), (404, &"ContainerNotFound".into()));
    });
    let app = "c181be6b-d89c-469c-b79c-";
    let calls = fake.calls();
    for (call, what) in calls.iter().zip(["desire", "stop", "delete"]) {
        assert!(call.starts_with(&format!("{what} {app}")), "{calls:?}");
    }
}
