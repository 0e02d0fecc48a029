//! The real binary against a real kernel, one promise per test: `cargo xtask test e2e`.

#[path = "../kernel/accepting.rs"]
mod accepting;
mod bounds;
mod bridge;
mod checks;
mod cli;
mod deaths;
mod docker;
mod images;
mod isolation;
mod killed;
mod kinds;
mod lab;
mod limits;
mod logs;
mod mounts;
mod neighbour;
mod openmetrics;
mod ops;
mod order;
#[path = "../kernel/podman.rs"]
mod podman;
mod push;
mod records;
mod rollout;
mod running;
#[allow(dead_code, reason = "the kernel floor uses all of it")]
#[path = "../kernel/registry/server.rs"]
mod server;
mod settings;
mod ssh;
mod staging;
mod tasks;
#[path = "../kernel/tool.rs"]
mod tool;
mod watch;

/// A web app for busybox: it answers with its instance index.
const WEB: &str = r#"
mkdir -p www
echo "instance $INSTANCE_INDEX of $HOSTNAME" > www/index.html
exec busybox httpd -f -p "$PORT" -h www
"#;

/// A port that is declared and nothing else.
const PORT: &str = "[[port]]\ncontainer = 8080\n";
