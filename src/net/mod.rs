//! net: to be filled.
