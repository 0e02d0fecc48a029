//! The environment that the executor adds to what the recipe made.

use crate::unit::Handle;
use std::net::Ipv4Addr;

/// What the executor knows about an instance.
pub struct Facts<'a> {
    /// Its container.
    pub handle: &'a Handle,
    /// Its index; `None` for tasks.
    pub index: Option<u32>,
    /// The box's own address.
    pub host_ip: Ipv4Addr,
    /// The container's address.
    pub container_ip: Ipv4Addr,
    /// Where it finds the certificates that the box trusts; `None`: it has none.
    pub certificates: Option<&'a str>,
    /// Host port and container port, first one first.
    pub ports: &'a [(u16, u16)],
}

/// Names and values in the order in which they are appended: they win over everything earlier.
pub fn network(facts: &Facts<'_>) -> Vec<(String, String)> {
    let mut env = names(facts.handle, facts.index, facts.certificates);
    let first = facts.ports.first().map(|(outside, _)| *outside);
    let pairs: Vec<String> = facts
        .ports
        .iter()
        .map(|(outside, inside)| format!("{{\"external\":{outside},\"internal\":{inside}}}"))
        .collect();
    let network = [
        ("CF_INSTANCE_IP", facts.host_ip.to_string()),
        ("CF_INSTANCE_INTERNAL_IP", facts.container_ip.to_string()),
        ("CF_INSTANCE_PORT", first.map(|port| port.to_string()).unwrap_or_default()),
        (
            "CF_INSTANCE_ADDR",
            first.map(|port| format!("{}:{port}", facts.host_ip)).unwrap_or_default(),
        ),
        ("CF_INSTANCE_PORTS", format!("[{}]", pairs.join(","))),
    ];
    env.extend(network.map(|(name, value)| (name.to_owned(), value)));
    env
}

/// What every container is told, also where its addresses are not: who it is, and whom the box
/// trusts.
pub fn names(
    handle: &Handle,
    index: Option<u32>,
    certificates: Option<&str>,
) -> Vec<(String, String)> {
    let mut env =
        vec![("INSTANCE_GUID", handle.to_string()), ("CF_INSTANCE_GUID", handle.to_string())];
    if let Some(index) = index {
        env.push(("INSTANCE_INDEX", index.to_string()));
        env.push(("CF_INSTANCE_INDEX", index.to_string()));
    }
    if let Some(path) = certificates {
        env.push(("CF_SYSTEM_CERT_PATH", path.to_owned()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What names the instance itself.
const IDENTITY: [&str; 4] =
    ["INSTANCE_GUID", "CF_INSTANCE_GUID", "INSTANCE_INDEX", "CF_INSTANCE_INDEX"];

/// The same without what names the instance where a record says that already.
pub fn beside(env: Vec<(String, String)>, own: &[(String, String)]) -> Vec<(String, String)> {
    let said = |name: &str| IDENTITY.contains(&name) && own.iter().any(|(own, _)| own == name);
    env.into_iter().filter(|(name, _)| !said(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(env: &[(String, String)], name: &str) -> Option<String> {
        env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn instances_learn_their_ports_and_tasks_have_none() {
        let handle: Handle = "web-0-1".parse().expect("handle");
        let facts = Facts {
            handle: &handle,
            index: Some(0),
            host_ip: Ipv4Addr::new(192, 0, 2, 1),
            container_ip: Ipv4Addr::new(10, 254, 0, 2),
            certificates: None,
            ports: &[(61001, 8080), (61002, 9090)],
        };
        let env = network(&facts);
        let ports = r#"[{"external":61001,"internal":8080},{"external":61002,"internal":9090}]"#;
        assert_eq!(value(&env, "CF_INSTANCE_PORTS").as_deref(), Some(ports));
        assert_eq!(value(&env, "CF_INSTANCE_ADDR").as_deref(), Some("192.0.2.1:61001"));
        let env = network(&Facts { index: None, ports: &[], ..facts });
        assert_eq!(value(&env, "CF_INSTANCE_PORTS").as_deref(), Some("[]"));
        assert_eq!(value(&env, "CF_INSTANCE_PORT").as_deref(), Some(""));
        assert_eq!(value(&env, "INSTANCE_INDEX"), None);
        let names = names(&handle, Some(3), None);
        assert_eq!(value(&names, "CF_INSTANCE_INDEX").as_deref(), Some("3"));
        assert!(names.iter().all(|(name, _)| !name.contains("IP") && !name.contains("PORT")));
        let own =
            [("INSTANCE_GUID".to_owned(), "x".to_owned()), ("CF_INSTANCE_IP".into(), "y".into())];
        let env = beside(env, &own);
        assert_eq!(value(&env, "INSTANCE_GUID"), None);
        assert_eq!(value(&env, "CF_INSTANCE_GUID").as_deref(), Some("web-0-1"));
        assert_eq!(value(&env, "CF_INSTANCE_IP").as_deref(), Some("192.0.2.1"));
    }
}
