//! Garden's own HTTP protocol, as its Go client speaks it. In work: only the routes are here.
//!
//! The shapes of its JSON are in `model::garden`.

pub mod route;
