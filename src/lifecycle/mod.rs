//! lifecycle: being filled.
mod yaml;
