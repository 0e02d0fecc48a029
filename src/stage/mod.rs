//! stage: to be filled.
