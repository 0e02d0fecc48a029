//! tmp
pub mod http;
