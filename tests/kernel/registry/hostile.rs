//! A server that misbehaves.
