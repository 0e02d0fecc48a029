//! Garden's protocol over the real program's socket, one promise per test: `cargo xtask test garden`.
//!
//! The client here writes and reads bytes and shares no code with the server: what both would
//! misread alike, no test of theirs could see.

#[path = "../kernel/accepting.rs"]
mod accepting;
mod api;
mod attach;
mod client;
mod crowd;
mod ended;
mod files;
mod killed;
#[allow(dead_code, reason = "the floor below uses all of it")]
#[path = "../e2e/lab.rs"]
mod lab;
mod life;
mod limits;
mod lost;
mod malformed;
mod net;
mod peas;
mod place;
mod process;
mod registry;
mod routes;
#[allow(dead_code, reason = "the kernel floor uses all of it")]
#[path = "../kernel/registry/server.rs"]
mod server;
mod settings;
mod spec;
mod streams;
mod texts;
#[path = "../kernel/tool.rs"]
mod tool;
mod wire;
