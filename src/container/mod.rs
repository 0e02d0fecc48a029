//! container: to be filled.
