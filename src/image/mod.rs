//! image: to be filled.
