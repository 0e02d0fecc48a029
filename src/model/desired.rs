//! What Diego's DesiredLRP has beside its container: how many, for whom, and what may change while it
//! runs.

use super::lrp::Tag;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The domain of apps in Cloud Foundry.
pub const APPS: &str = "cf-apps";
/// The domain of one-off tasks.
pub const TASKS: &str = "cf-tasks";
/// Bytes of all routes together.
pub const ROUTES_MAX: usize = 128 << 10;
/// Instances of one LRP.
pub const INSTANCES_MAX: u32 = 1000;
/// The router whose routes become ports of the box.
pub const TCP_ROUTER: &str = "tcp-router";

/// The part of a DesiredLRP that its container does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LrpFacts {
    /// Groups LRPs.
    pub domain: String,
    /// How many; may change.
    pub instances: u32,
    /// Its client's own words, such as a fingerprint; may change.
    pub annotation: String,
    /// Router to its own JSON, as text; may change.
    pub routes: BTreeMap<String, String>,
    /// Of this record and no other; empty: an earlier program has written it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// Counts changes, from 0.
    pub changes: u32,
}

/// What somebody wants to be different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LrpChange {
    /// So many from now on.
    pub instances: Option<u32>,
    /// These words from now on.
    pub annotation: Option<String>,
    /// These routes from now on.
    pub routes: Option<BTreeMap<String, String>>,
    /// Those of other routers stay.
    pub keeps_routers: bool,
}

impl LrpFacts {
    /// The same after `change`; with nothing new, exactly the same.
    pub fn changed(&self, change: &LrpChange) -> LrpFacts {
        let mut facts = self.clone();
        facts.instances = change.instances.unwrap_or(self.instances);
        facts.annotation = change.annotation.clone().unwrap_or_else(|| self.annotation.clone());
        if let Some(routes) = &change.routes {
            if !change.keeps_routers {
                facts.routes.clear();
            }
            facts.routes.extend(routes.clone());
        }
        if facts != *self {
            facts.changes = self.changes.wrapping_add(1);
        }
        facts
    }

    /// Orders what is told of it; `name`: what it is called here.
    pub fn tag(&self, name: &str) -> Tag {
        let epoch = if self.epoch.is_empty() { name } else { &self.epoch };
        Tag { epoch: epoch.to_owned(), index: self.changes }
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        let routes = self.routes.iter().map(|(router, text)| router.len() + text.len());
        routes.sum::<usize>() + self.domain.len() + self.annotation.len()
    }

    /// Port inside to port of the box, from its tcp routes.
    pub fn published(&self) -> BTreeMap<u16, u16> {
        let routes = self.routes.get(TCP_ROUTER).map(String::as_str).unwrap_or("[]");
        let routes: Vec<Value> = serde_json::from_str(routes).unwrap_or_default();
        let port = |route: &Value, name: &str| {
            let number = route.get(name)?.as_u64()?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        };
        let pair = |it: &Value| Some((port(it, "container_port")?, port(it, "external_port")?));
        routes.iter().filter_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_routes_of_other_routers_and_is_counted_once() {
        let route = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
        let facts =
            LrpFacts { instances: 2, routes: route("diego-ssh", "{}"), ..LrpFacts::default() };
        let same = LrpChange { instances: Some(2), ..LrpChange::default() };
        assert_eq!(facts.changed(&same), facts);
        let tcp = r#"[{"router_group_guid":"g","external_port":6000,"container_port":8080},
            {"external_port":0,"container_port":1},{"external_port":70000,"container_port":2}]"#;
        let change = LrpChange {
            routes: Some(route(TCP_ROUTER, tcp)),
            keeps_routers: true,
            ..LrpChange::default()
        };
        let changed = facts.changed(&change);
        assert_eq!((changed.changes, changed.routes.len(), changed.instances), (1, 2, 2));
        assert_eq!(changed.published(), BTreeMap::from([(8080, 6000)]));
        assert_eq!(facts.published(), BTreeMap::new());
        // One that an earlier program has written keeps the order that its clients know.
        assert_eq!(changed.tag("app-1"), Tag { epoch: "app-1".into(), index: 1 });
        let of_now = LrpFacts { epoch: "e".into(), ..changed };
        assert_eq!(of_now.tag("app-1").epoch, "e");
        let all = facts.changed(&LrpChange { keeps_routers: false, ..change });
        assert_eq!(all.routes.len(), 1);
    }
}
