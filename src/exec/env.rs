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
    /// Host port and container port, first one first.
    pub ports: &'a [(u16, u16)],
}

/// Names and values in the order in which they are appended: they win over everything earlier.
pub fn network(facts: &Facts<'_>) -> Vec<(String, String)> {
    let mut env: Vec<(&str, String)> = vec![
        ("INSTANCE_GUID", facts.handle.to_string()),
        ("CF_INSTANCE_GUID", facts.handle.to_string()),
    ];
    if let Some(index) = facts.index {
        env.push(("INSTANCE_INDEX", index.to_string()));
        env.push(("CF_INSTANCE_INDEX", index.to_string()));
    }
    let first = facts.ports.first().map(|(outside, _)| *outside);
    let pairs: Vec<String> = facts
        .ports
        .iter()
        .map(|(outside, inside)| format!("{{\"external\":{outside},\"internal\":{inside}}}"))
        .collect();
    env.extend([
        ("CF_INSTANCE_IP", facts.host_ip.to_string()),
        ("CF_INSTANCE_INTERNAL_IP", facts.container_ip.to_string()),
        ("CF_INSTANCE_PORT", first.map(|port| port.to_string()).unwrap_or_default()),
        (
            "CF_INSTANCE_ADDR",
            first.map(|port| format!("{}:{port}", facts.host_ip)).unwrap_or_default(),
        ),
        ("CF_INSTANCE_PORTS", format!("[{}]", pairs.join(","))),
    ]);
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
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
    }
}
