//! volume: to be filled.
