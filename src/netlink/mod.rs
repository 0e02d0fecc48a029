//! netlink: to be filled.
