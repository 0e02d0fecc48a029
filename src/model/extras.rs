//! What the record of a container may ask for besides its root, its limits and its actions: the
//! optional fields of Diego's Tasks and LRPs.

use super::lrp::{CachedDependency, DesiredLrp, FileMount, Volume};
use crate::unit::Rate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The driver of volumes that this box has: directories of its own.
pub const LOCAL_DRIVER: &str = "local";

/// Nothing of it has to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Archives that it has unpacked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<CachedDependency>,
    /// Directories of the box; a relative one is below the first of those that may be given away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Drivers of volumes that it names and this box does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_drivers: Vec<String>,
    /// Files that are made for it, in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMount>,
    /// Absolute directories inside that are made when they are missing: those of an app's image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// Absolute directory inside in which it finds the certificates that the box trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// What it may log in a second; `None`: what the box says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_rate: Option<Rate>,
    /// Tags of cells that it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_tags: Vec<String>,
    /// Labels of its figures.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_tags: BTreeMap<String, MetricTag>,
    /// Who fetches its image; `None`: whom the box knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<ImageLogin>,
    /// It asks for the box's own root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Names of its fields that are not heeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

impl Extras {
    /// It asks for nothing; such ones are not written down.
    pub fn is_none(&self) -> bool {
        *self == Extras::default()
    }

    /// All that the instances of an LRP have, for a Task that is to have it as well.
    pub fn of(lrp: &DesiredLrp) -> Extras {
        Extras {
            dependencies: lrp.dependencies.clone(),
            volumes: lrp.volumes.clone(),
            files: lrp.files.clone(),
            directories: lrp.image.iter().flat_map(|image| image.volumes.clone()).collect(),
            log_rate: lrp.log_rate,
            ..Extras::default()
        }
    }

    /// The labels of one container's figures.
    pub fn labels(&self, index: Option<u32>, guid: &str) -> Vec<(String, String)> {
        let value = |tag: &MetricTag| match tag {
            MetricTag::Static(text) => text.clone(),
            MetricTag::Index => index.map(|index| index.to_string()).unwrap_or_default(),
            MetricTag::InstanceGuid => guid.to_owned(),
        };
        self.metric_tags.iter().map(|(name, tag)| (name.clone(), value(tag))).collect()
    }
}

/// What a label says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricTag {
    /// This text.
    Static(String),
    /// The instance's index; empty for a Task.
    Index,
    /// The instance's guid.
    InstanceGuid,
}

/// User and password of an image's registry: in memory only, so that neither the disk nor anybody who
/// reads records has them. A daemon that ends takes them along.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLogin {
    /// Empty: they were lost.
    #[serde(skip)]
    pub user: String,
    /// Told to the registry alone.
    #[serde(skip)]
    pub password: String,
}

impl ImageLogin {
    /// An earlier daemon had them.
    pub fn is_lost(&self) -> bool {
        self.user.is_empty()
    }
}

impl fmt::Debug for ImageLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_lost() { "ImageLogin(lost)" } else { "ImageLogin(..)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 1: what a record asks for is kept, all but who fetches its image.
    #[test]
    fn row_1_a_login_is_neither_written_down_nor_shown() {
        let login = ImageLogin { user: "ann".into(), password: "horse".into() };
        let extras = Extras { login: Some(login), ..Extras::default() };
        let text = serde_json::to_string(&extras).expect("JSON");
        assert_eq!(text, r#"{"login":{}}"#);
        assert!(!format!("{extras:?}").contains("horse"));
        let read: Extras = serde_json::from_str(&text).expect("JSON");
        assert!(read.login.is_some_and(|login| login.is_lost()), "that there was one is known");
        assert!(!extras.is_none() && Extras::default().is_none());
    }

    #[test]
    fn labels_are_of_the_instance() {
        let tags = [
            ("who".to_owned(), MetricTag::Static("me".into())),
            ("n".to_owned(), MetricTag::Index),
            ("guid".to_owned(), MetricTag::InstanceGuid),
        ];
        let extras = Extras { metric_tags: tags.into(), ..Extras::default() };
        let labels = extras.labels(Some(3), "g");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(labels, [pair("guid", "g"), pair("n", "3"), pair("who", "me")]);
    }
}
