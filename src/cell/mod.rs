//! cell: to be filled.
