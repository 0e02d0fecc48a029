//! lifecycle: to be filled.
