//! What is the matter with an app, in words: the JSON of `explain --json`.

use super::death::Death;
use crate::unit::AppName;
use serde::{Deserialize, Serialize};

/// What is the matter with an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The app.
    pub app: AppName,
    /// Its state, as `app` shows it.
    pub state: String,
    /// The app as a whole where there is something to say of it, then each instance that was asked
    /// for; those of one process that are well are one.
    pub parts: Vec<Explanation>,
}

/// What is the matter with one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `orders`, `orders:worker`, `orders:worker/0`.
    pub subject: String,
    /// As in the views of apps and instances.
    pub state: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// What happened last.
    pub happened: String,
    /// When that was, in milliseconds since 1970.
    pub happened_ms: Option<u64>,
    /// Why it happened.
    pub why: String,
    /// What happens next.
    pub next: String,
    /// When, in milliseconds since 1970, where that is known.
    pub next_ms: Option<u64>,
    /// What can be done.
    pub cure: String,
    /// Crashes in a row.
    #[serde(default)]
    pub crash_count: u32,
    /// The last end of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub death: Option<Death>,
}
