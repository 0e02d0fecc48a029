//! Packet rules: linux/netfilter/nf_tables.h. To be filled.

use super::wire::Request;

/// Opens a batch.
pub fn batch_begin() -> Request {
    Request::new(0x10, 0).body(&[0, 0, 0, 10])
}

/// Closes and commits a batch.
pub fn batch_end() -> Request {
    Request::new(0x11, 0).body(&[0, 0, 0, 10])
}
