use super::*;

fn message(text: &str) -> Order {
    serde_json::from_str::<Message>(text).expect("a message").order()
}

#[test]
fn an_empty_spec_as_the_go_client_sends_it_is_all_defaults() {
    let text = r#"{"image":{},"limits":{"bandwidth_limits":{},"cpu_limits":{},"disk_limits":{},
        "memory_limits":{},"pid_limits":{}}}"#;
    let spec: ContainerSpec = serde_json::from_str(text).expect("the empty spec");
    assert_eq!(spec, ContainerSpec::default());
    let nulls = r#"{"handle":null,"bind_mounts":null,"properties":null,"env":null,"limits":null,
        "netout_rules":null,"netin":null,"image":null,"privileged":null,"grace_time":null}"#;
    let spec: ContainerSpec = serde_json::from_str(nulls).expect("nulls are nothing");
    assert_eq!(spec, ContainerSpec::default());
}

#[test]
fn a_full_spec_is_read_field_by_field() {
    let text = r#"{"handle":"h","grace_time":5000000000,"rootfs":"/old","image":{"uri":"docker:///a",
        "username":"u","password":"p"},"bind_mounts":[{"src_path":"/a","dst_path":"/b","mode":1,
        "origin":1}],"network":"10.9.1.7/24","properties":{"a/b":"c"},"env":["A=1"],
        "privileged":true,"limits":{"bandwidth_limits":{"rate":1,"burst":2},"cpu_limits":
        {"weight":3,"limit_in_shares":4},"disk_limits":{"inode_hard":5,"byte_hard":6,"scope":1},
        "memory_limits":{"limit_in_bytes":7},"pid_limits":{"max":8}},"netout_rules":[{"protocol":3,
        "networks":[{"start":"10.0.0.1","end":"10.0.0.9"},{"start":"1.1.1.1"}],
        "icmps":{"type":8,"code":0},"log":true},{"protocol":1,"ports":[{"start":80,"end":81}]}],
        "netin":[{"host_port":0,"container_port":8080}],"unknown":[1,2]}"#;
    let spec: ContainerSpec = serde_json::from_str(text).expect("a spec");
    assert_eq!((spec.image.uri.as_str(), spec.rootfs.as_str()), ("docker:///a", "/old"));
    assert_eq!((spec.grace_time, spec.privileged), (5_000_000_000, true));
    assert_eq!(spec.limits.cpu, CpuLimits { weight: 3, limit_in_shares: 4 });
    assert_eq!((spec.limits.disk.byte_hard, spec.limits.disk.scope), (6, 1));
    assert_eq!(spec.netin, [NetIn { host_port: 0, container_port: 8080 }]);
    let icmp = &spec.netout_rules[0];
    assert_eq!(icmp.icmps, Some(Icmp { kind: 8, code: Some(0) }));
    let one = AddressRange { start: Some([1, 1, 1, 1].into()), end: None };
    assert_eq!(icmp.networks[1], one);
    assert_eq!(spec.netout_rules[1].ports, [PortRange { start: 80, end: 81 }]);
    assert!(!format!("{spec:?}").contains("\"p\""), "a password is shown");
}

#[test]
fn messages_are_looked_at_in_the_order_of_the_go_server() {
    let size = WindowSize { columns: 100, rows: 30 };
    let tty = r#"{"tty":{"window_size":{"columns":100,"rows":30}},"source":0,"data":"x"}"#;
    assert_eq!(message(tty), Order::Resize(size));
    assert_eq!(message(r#"{"tty":{}}"#), Order::Nothing);
    assert_eq!(message(r#"{"source":0,"data":"a\u003cb"}"#), Order::Input(b"a<b".to_vec()));
    assert_eq!(message(r#"{"process_id":"p","source":0}"#), Order::EndOfInput);
    assert_eq!(message(r#"{"signal":0}"#), Order::Terminate);
    assert_eq!(message(r#"{"signal":1}"#), Order::Kill);
    assert!(matches!(message("{}"), Order::Nonsense(why) if why.contains("neither `tty`")));
    let wrong = message(r#"{"signal":9}"#);
    assert!(matches!(wrong, Order::Nonsense(why) if why.contains("0 (TERM)")));
}

#[test]
fn answers_are_spelled_as_the_go_client_reads_them() {
    let json = |value: &dyn erased::Json| value.json();
    let first =
        Message { process_id: Some("p".into()), stream_id: Some("7".into()), ..Message::default() };
    assert_eq!(json(&first), r#"{"process_id":"p","stream_id":"7"}"#);
    let exit = Message { process_id: Some("p".into()), exit_status: Some(0), ..Message::default() };
    assert_eq!(json(&exit), r#"{"process_id":"p","exit_status":0}"#);
    assert_eq!(json(&Handles { handles: Vec::new() }), r#"{"Handles":[]}"#);
    assert_eq!(
        json(&ErrorBody {
            kind: "ContainerNotFoundError",
            handle: "h".into(),
            ..Default::default()
        }),
        r#"{"Type":"ContainerNotFoundError","Message":"","Handle":"h","ProcessID":"","Binary":""}"#
    );
    assert_eq!(
        json(&InfoEntry::default()),
        concat!(
            r#"{"Info":{"State":"","Events":[],"HostIP":"","ContainerIP":"","ContainerIPv6":"","#,
            r#""ExternalIP":"","ContainerPath":"","ProcessIDs":[],"Properties":{},"#,
            r#""MappedPorts":[]},"Err":null}"#
        )
    );
    assert_eq!(json(&DiskLimits::default()), "{}");
    let disk = DiskLimits { byte_hard: 5, scope: 1, ..Default::default() };
    assert_eq!(json(&disk), r#"{"byte_hard":5,"scope":1}"#);
    assert_eq!(json(&NetIn::default()), r#"{"host_port":0,"container_port":0}"#);
    let metrics = json(&MetricsEntry::default());
    assert!(
        metrics.starts_with(r#"{"Metrics":{"MemoryStat":{},"CPUStat":{"Usage":0,"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#""NetworkStat":null,"PidStat":{"Current":0,"Max":0},"Age":0,"CPUEnt"#)
    );
}

/// Any value as its JSON text.
mod erased {
    pub trait Json {
        fn json(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).expect("plain data")
        }
    }
}
