//! Calls about the box and about containers as such: routes, lists, properties, errors.

use super::client::{container, escape};
use super::place::Garden;
use serde_json::{Value, json};

const NOT_FOUND: &str = "ContainerNotFoundError";

#[test]
fn the_box_says_what_it_has() {
    let garden = Garden::start("capacity");
    assert_eq!(garden.get("/ping"), json!({}));
    let have = garden.get("/capacity");
    assert_eq!(have["memory_in_bytes"], memory_of_the_machine());
    assert!(have["disk_in_bytes"].as_u64().expect("disk") > 1 << 20, "{have}");
    let schedulable = have["schedulable_disk_in_bytes"].as_u64().expect("schedulable");
    assert!(schedulable > 1 << 20 && schedulable <= 4 << 30, "{have}");
    assert_eq!(have["max_containers"], 250);
    garden.finish();
}

#[test]
fn paths_and_methods_that_do_not_exist_are_told_apart() {
    let garden = Garden::start("routes");
    for path in ["/", "/nope", "/containers/a/nope", "/containers/a/limits/nope"] {
        let answer = garden.call("GET", path, None);
        assert_eq!(answer.status(), 404, "{path}");
        let kind = answer.head.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{path}: {kind}");
    }
    for (method, path, allow) in [
        ("POST", "/ping", "GET"),
        ("DELETE", "/capacity", "GET"),
        ("PUT", "/containers", "GET, POST"),
        ("POST", "/containers/a/info", "GET"),
        ("GET", "/containers/a/stop", "PUT"),
        ("POST", "/containers/a/files", "GET, PUT"),
        ("GET", "/containers/a/net/in", "POST"),
        ("GET", "/containers/a/grace_time", "PUT"),
        ("POST", "/containers/a/properties/k", "DELETE, GET, PUT"),
    ] {
        let answer = garden.call(method, path, None);
        assert_eq!(answer.status(), 405, "{method} {path}");
        let said = answer.head.field("allow").expect("Allow");
        let mut said: Vec<&str> = said.split(", ").collect();
        said.sort();
        assert_eq!(said.join(", "), allow, "{method} {path}");
    }
    garden.finish();
}

#[test]
fn an_unknown_handle_is_an_error_of_its_own_on_every_route() {
    let garden = Garden::start("unknown");
    let empty = json!({});
    for (method, rest, body) in [
        ("DELETE", "", None),
        ("GET", "/info", None),
        ("PUT", "/stop", Some(&empty)),
        ("GET", "/files?source=%2Ftmp", None),
        ("GET", "/limits/bandwidth", None),
        ("GET", "/limits/cpu", None),
        ("GET", "/limits/disk", None),
        ("GET", "/limits/memory", None),
        ("PUT", "/limits/memory", Some(&empty)),
        ("POST", "/net/in", Some(&empty)),
        ("POST", "/net/out", Some(&empty)),
        ("POST", "/net/out/bulk", Some(&json!([]))),
        ("PUT", "/grace_time", Some(&json!(5_000_000_000u64))),
        ("GET", "/properties", None),
        ("GET", "/properties/k", None),
        ("PUT", "/properties/k", Some(&json!({"value": "v"}))),
        ("DELETE", "/properties/k", None),
        ("GET", "/metrics", None),
    ] {
        let body = body.map(Value::to_string);
        let answer = garden.call(method, &container("no such", rest), body.as_deref());
        assert_eq!(answer.status(), 404, "{method} {rest}: {}", answer.text());
        assert_eq!(answer.error().0, NOT_FOUND, "{method} {rest}");
        let object = answer.json();
        assert_eq!(object["Handle"], "no such", "{method} {rest}");
        assert_eq!(object["ProcessID"], "", "{method} {rest}");
    }
    let (status, kind, _) = garden.run_fails("no such", &json!({"path": "true"}));
    assert_eq!((status, kind.as_str()), (404, NOT_FOUND));
    let (status, kind, _) = garden.attach_fails("no such", "1");
    assert_eq!((status, kind.as_str()), (404, NOT_FOUND));
    garden.finish();
}

#[test]
fn containers_are_listed_by_all_of_their_properties() {
    let garden = Garden::start("list");
    assert_eq!(garden.list(""), [""; 0]);
    garden.create(&json!({"handle": "one", "properties": {"a": "1", "b": "x y&z"}}));
    garden.create(&json!({"handle": "two", "properties": {"a": "1", "b": "other"}}));
    let made = garden.create(&json!({}));
    assert!(!made.is_empty() && made != garden.create(&json!({})), "handles are generated");
    assert_eq!(garden.list("").len(), 4);
    assert_eq!(garden.list("?a=1"), ["one", "two"]);
    assert_eq!(garden.list("?a=1&b=x+y%26z"), ["one"]);
    assert_eq!(garden.list("?a=1&b=x%20y%26z"), ["one"]);
    assert_eq!(garden.list("?a=1&a=2"), ["one", "two"], "the first value of a key counts");
    assert_eq!(garden.list("?a=1&b=nobody"), [""; 0]);
    assert_eq!(garden.list("?a="), [""; 0], "exact text");
    assert_eq!(garden.list("?garden.state=all").len(), 4);
    garden.finish();
}

#[test]
fn a_taken_handle_is_refused_and_free_again_after_destroy() {
    let garden = Garden::start("taken");
    let odd = "a/b c%:\u{e9}?#";
    for handle in ["plain", odd] {
        garden.make(handle);
        let message = garden.create_fails(&json!({"handle": handle}));
        assert_eq!(message, format!("Handle '{handle}' already in use"));
        assert_eq!(garden.info(handle)["State"], "active");
        garden.destroy(handle);
        let (status, kind, _) = garden.fails("DELETE", &container(handle, ""), None);
        assert_eq!((status, kind.as_str()), (404, NOT_FOUND), "destroyed twice");
        garden.make(handle);
        assert_eq!(garden.list(""), [handle]);
        garden.destroy(handle);
    }
    garden.finish();
}

#[test]
fn containers_above_the_limit_are_refused() {
    let garden = Garden::with("most", "containers = 2");
    assert_eq!(garden.get("/capacity")["max_containers"], 2);
    garden.make("one");
    garden.make("two");
    assert_eq!(garden.create_fails(&json!({"handle": "three"})), "max containers reached");
    garden.destroy("one");
    garden.make("three");
    garden.finish();
}

#[test]
fn properties_are_set_read_replaced_and_removed() {
    let garden = Garden::start("properties");
    garden.create(&json!({"handle": "c", "properties": {"from": "spec"}}));
    let at = |key: &str| container("c", &format!("/properties/{}", escape(key)));
    assert_eq!(garden.get(&at("from")), json!({"value": "spec"}));
    let odd = "a/b:c %\u{2603}";
    garden.does("PUT", &at(odd), Some(&json!({"value": "<1>&\n"})));
    assert_eq!(garden.get(&at(odd)), json!({"value": "<1>&\n"}));
    garden.does("PUT", &at(odd), Some(&json!({"value": ""})));
    assert_eq!(garden.get(&at(odd)), json!({"value": ""}));
    let all = garden.get(&container("c", "/properties"));
    assert_eq!((&all["from"], &all[odd]), (&json!("spec"), &json!("")));
    assert_eq!(garden.info("c")["Properties"], all);
    assert_eq!(garden.list(&format!("?{}=", escape(odd))), ["c"]);
    garden.does("DELETE", &at(odd), None);
    garden.does("DELETE", &at(odd), None);
    let (status, kind, message) = garden.fails("GET", &at(odd), None);
    assert_eq!((status, kind.as_str()), (500, ""));
    assert_eq!(message, format!("property does not exist: {odd}"));
    garden.finish();
}

#[test]
fn an_info_has_every_field() {
    let garden = Garden::start("info");
    garden.create(&json!({"handle": "c", "properties": {"k": "v"}}));
    let info = garden.info("c");
    assert_eq!(info["State"], "active");
    assert!(info["Events"].is_null() || info["Events"] == json!([]), "{info}");
    let host = info["HostIP"].as_str().expect("HostIP");
    let own = info["ContainerIP"].as_str().expect("ContainerIP");
    let [host, own]: [std::net::Ipv4Addr; 2] = [host, own].map(|it| it.parse().expect("address"));
    // The first and the second of a subnet of four.
    assert!(host.octets().starts_with(&[10, 254]) && host.octets()[3] % 4 == 1, "{info}");
    assert_eq!(own.to_bits(), host.to_bits() + 1, "{info}");
    assert_eq!(info["ExternalIP"], super::place::EXTERNAL);
    let path = info["ContainerPath"].as_str().expect("ContainerPath");
    assert!(std::path::Path::new(path).is_dir(), "{info}");
    assert!(info["MappedPorts"].is_null() || info["MappedPorts"] == json!([]), "{info}");
    assert_eq!(info["Properties"]["k"], "v");
    for field in ["ContainerIPv6", "ProcessIDs"] {
        assert!(info.get(field).is_some(), "{field} of {info}");
    }
    garden.finish();
}

#[test]
fn many_are_asked_for_at_once_and_one_that_fails_fails_alone() {
    let garden = Garden::start("bulk");
    garden.make("a");
    garden.make("b");
    for (path, field) in [("bulk_info", "Info"), ("bulk_metrics", "Metrics")] {
        let all = garden.get(&format!("/containers/{path}?handles=a%2Cnope%2Cb"));
        assert_eq!(all.as_object().expect("an object").len(), 3, "{all}");
        for handle in ["a", "b"] {
            assert!(all[handle]["Err"].is_null(), "{all}");
            assert!(all[handle][field].is_object(), "{all}");
        }
        assert_eq!(all["nope"]["Err"]["Message"], "unknown handle: nope", "{all}");
        assert!(all["nope"].get(field).is_some(), "{all}");
        for none in ["?handles=", ""] {
            assert_eq!(garden.get(&format!("/containers/{path}{none}")), json!({}), "{none}");
        }
    }
    // As many as a box may have, in a query as Go's client writes it.
    let many: Vec<String> = (0..16_000).map(|n| format!("{n:036}")).collect();
    let all = garden.get(&format!("/containers/bulk_info?handles=a%2C{}", many.join("%2C")));
    assert_eq!(all.as_object().expect("an object").len(), 16_001);
    assert!(all["a"]["Info"].is_object());
    let info = garden.get("/containers/bulk_info?handles=a")["a"]["Info"].clone();
    assert_eq!(info, garden.info("a"));
    garden.finish();
}

#[test]
fn bodies_are_read_as_go_reads_them() {
    let garden = Garden::start("bodies");
    let created = garden.call("POST", "/containers", Some(r#"{"HANDLE":"c","unknown":[1,{}]}"#));
    assert_eq!(created.status(), 200, "{}", created.text());
    assert_eq!(garden.list(""), ["c"], "names in any case, unknown ones ignored");
    let empty = garden.call("POST", "/containers", Some(""));
    assert_eq!((empty.status(), empty.error()), (500, (String::new(), "EOF".to_owned())));
    let (status, kind, message) = garden.fails("POST", "/containers", Some(&json!({"handle": 1})));
    assert_eq!((status, kind.as_str()), (500, ""));
    assert!(!message.is_empty());
    let nulls = json!({"handle": "n", "properties": null, "env": null, "bind_mounts": null});
    garden.create(&nulls);
    assert_eq!(garden.list(""), ["c", "n"]);
    garden.finish();
}

fn memory_of_the_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
