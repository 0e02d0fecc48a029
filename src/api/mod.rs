//! tmp
pub mod http;
#[cfg(test)]
pub mod testing;
