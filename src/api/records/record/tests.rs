use super::*;
use crate::model::action::Action;
use crate::model::egress::Protocol;

/// The two records that a cell logged in 2015, as they stand.
const TASK: &str = include_str!("../../../../tests/fixtures/container-task.json");
const LRP: &str = include_str!("../../../../tests/fixtures/container-lrp.json");

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("a JSON object")
}

fn stacks(path: &str) -> Option<String> {
    (path == "/var/vcap/packages/rootfs_cflinuxfs2/rootfs").then(|| "cflinuxfs2".to_owned())
}

fn changed(text: &str, field: &str, value: Value) -> Result<Container, Wrong> {
    let mut object = object(text);
    object.insert(field.into(), value);
    container(&object, &stacks)
}

#[test]
fn row_1_the_task_record_of_2015_is_read_as_it_stands() {
    let Ok(Container::Task(task)) = container(&object(TASK), &stacks) else { panic!("a task") };
    let guid = "c181be6b-d89c-469c-b79c-4cab1e99b8de-b4dcdbe9337046cc91410d126d4cf861";
    assert_eq!((task.guid.as_str(), task.domain.as_str()), (guid, "cf-app-staging"));
    assert_eq!(task.rootfs, Rootfs::Stack("cflinuxfs2".into()));
    let limits = (task.limits.memory, task.limits.disk, task.limits.cpu_weight);
    assert_eq!(limits, (Some(Bytes::mib(1024)), Some(Bytes::mib(6144)), Some(100)));
    assert_eq!(task.result_file, "/tmp/docker-result/result.json");
    assert_eq!((task.log_source.as_str(), task.silent), ("STG", false));
    assert_eq!((task.egress.len(), task.egress[5].protocol), (7, Protocol::Tcp));
    let Action::Timeout { timeout, action } = &task.action else { panic!("{:?}", task.action) };
    assert_eq!(*timeout, Duration::from_secs(900));
    let Action::Serial(steps) = &**action else { panic!("{action:?}") };
    let Action::EmitProgress { action, start_message, .. } = &steps[1] else { panic!("{steps:?}") };
    assert_eq!(start_message, "Staging...");
    let Action::Run(run) = &**action else { panic!("{action:?}") };
    assert_eq!((run.process.nofile, run.process.env.len()), (Some(16384), 4));
    assert_eq!(object(&task.source), object(TASK), "nothing of it is lost");
}

#[test]
fn the_lrp_record_of_2015_is_read_as_it_stands() {
    let Ok(Container::Lrp(lrp)) = container(&object(LRP), &stacks) else { panic!("an LRP") };
    assert_eq!(lrp.rootfs.to_string(), "docker:///tutum/tomcat#8.0");
    assert_eq!((&lrp.ports[..], lrp.start_timeout), (&[8080, 2222][..], Duration::from_secs(60)));
    assert_eq!((lrp.limits.cpu_weight, lrp.env.len()), (Some(1), 4));
    assert!(matches!(&lrp.setup, Some(Action::Serial(steps)) if steps.len() == 1));
    assert!(matches!(&lrp.action, Action::Codependent(both) if both.len() == 2));
    let Some(Action::Timeout { timeout, .. }) = &lrp.monitor else { panic!("{:?}", lrp.monitor) };
    assert_eq!(*timeout, Duration::from_secs(30));
}

#[test]
fn row_27_a_weight_above_100_is_refused_and_none_is_100() {
    let weight = |value: u64| match changed(TASK, "cpu_weight", value.into()) {
        Ok(Container::Task(task)) => Ok(task.limits.cpu_weight),
        Ok(other) => panic!("{other:?}"),
        Err(err) => Err(err.0),
    };
    assert_eq!((weight(0), weight(100)), (Ok(Some(100)), Ok(Some(100))));
    assert_eq!(weight(101), Err("container limits invalid".into()));
}

#[test]
fn what_is_wrong_with_a_container_is_named() {
    for (field, value, why) in [
        ("guid", "".into(), "Invalid field: guid"),
        ("guid", "a b".into(), "Invalid field: guid"),
        ("guid", "../x".into(), "Invalid field: guid"),
        ("run", Value::Null, "Invalid field: run"),
        ("memory_mb", (-1).into(), "Invalid field: memory_mb"),
        ("tags", Value::Null, "Invalid field: tags: lifecycle must be task or lrp"),
        ("egress_rules", 1.into(), "Invalid field: egress_rules"),
    ] {
        let err = changed(TASK, field, value).expect_err(field);
        assert_eq!(err, BadAction(why.into()));
    }
    let err = changed(TASK, "rootfs", "/srv/other".into()).expect_err("no stack");
    assert!(err.0.starts_with("found no compatible cell for required rootfs"), "{err:?}");
    let err =
        changed(LRP, "ports", serde_json::json!([{ "container_port": 0 }])).expect_err("port");
    assert_eq!(err, BadAction("Invalid field: ports".into()));
}

#[test]
fn row_1_a_task_of_the_receptor_is_read_and_what_is_wrong_with_it_is_named() {
    let text = r#"{"task_guid":"T_1","domain":"d","rootfs":"preloaded:tiny","log_guid":"g",
        "log_source":"TASK","action":{"run":{"path":"true","user":"vcap"}},"max_pids":7,
        "result_file":"/tmp/r","completion_callback_url":"http://a/b","annotation":"mine",
        "env":[{"name":"A","value":"b"}],"cached_dependencies":[],"placement_tags":null}"#;
    let read = task(&object(text), &stacks).expect("a task");
    assert_eq!((read.limits.pids, read.limits.memory), (Some(7), None));
    assert_eq!((read.env.len(), read.annotation.as_str(), read.silent), (1, "mine", false));
    for (field, value, why) in [
        ("task_guid", Value::Null, "Invalid field: task_guid"),
        ("domain", "".into(), "Invalid field: domain"),
        ("rootfs", "".into(), "Invalid field: rootfs"),
        ("action", Value::Null, "Invalid field: action"),
        ("completion_callback_url", "x".into(), "Invalid field: completion_callback_url"),
        ("volume_mounts", serde_json::json!([{}]), "Invalid field: volume_mounts: driver"),
    ] {
        let mut wrong = object(text);
        wrong.insert(field.into(), value);
        assert_eq!(task(&wrong, &stacks), Err(BadAction(why.into())));
    }
}
