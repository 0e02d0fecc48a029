//! tmp
pub mod help;
pub mod parse;
pub mod show;
pub mod text;
pub mod verbs;
