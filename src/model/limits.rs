//! What one container may use.

use crate::unit::Bytes;
use serde::{Deserialize, Serialize};

/// Limits of one container. `None` means that this resource is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory and page cache, swap excluded.
    pub memory: Option<Bytes>,
    /// Bytes that the container may write to its own root (exclusive scope).
    pub disk: Option<Bytes>,
    /// Share of the processor against other containers, 1 to 100; Diego's weight.
    pub cpu_weight: Option<u32>,
    /// The same on the kernel's older scale, 2 to 262144, 1024 being the usual; Garden's shares.
    /// Wins over the weight. A number beyond the scale counts as its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Least disk of a container: with less not even its root can be put together.
pub const DISK_MIN: Bytes = Bytes::mib(1);

/// The least disk of a container beside an image of so many bytes, in whole MiB.
pub fn with_image(image: u64) -> Bytes {
    Bytes::mib(image.div_ceil(1 << 20).saturating_add(DISK_MIN.as_mib()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_daemon_wrote_is_read_and_written_the_same() {
        let text = r#"{"memory":1,"disk":null,"cpu_weight":5,"pids":null}"#;
        let limits: Limits = serde_json::from_str(text).expect("old form");
        assert_eq!((limits.cpu_weight, limits.cpu_shares), (Some(5), None));
        assert_eq!(serde_json::to_string(&limits).expect("JSON"), text);
        let shares = Limits { cpu_shares: Some(7), ..limits };
        let text = serde_json::to_string(&shares).expect("JSON");
        assert_eq!(serde_json::from_str::<Limits>(&text).expect("JSON"), shares);
    }
}
