//! exec: to be filled.
