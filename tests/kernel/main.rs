//! Tests that need root and a real kernel: `cargo xtask test kernel`.

mod net;
mod volume;
