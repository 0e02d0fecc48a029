//! Plain data that several rooms speak about.
//!
//! Owns: the shapes of manifests, actions, tasks, LRPs, limits, egress rules and their views.
//! Must not: do anything. No clock, file, socket or random source; no behaviour beyond checks.
//! Called by: every room above row 0. Calls: `unit`.
//! Entry points: [`manifest::Manifest`], [`action::Action`], [`task::Task`], [`lrp::DesiredLrp`],
//! [`lrp::ActualLrp`], [`limits::Limits`], [`egress::Rule`], [`view`].

pub mod action;
pub mod egress;
pub mod garden;
pub mod image;
pub mod limits;
pub mod lrp;
pub mod manifest;
pub mod process;
pub mod task;
pub mod view;
