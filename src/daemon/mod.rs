//! daemon: to be filled.
