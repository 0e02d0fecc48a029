//! Plain data that several rooms speak about.
//!
//! Owns: the shapes of manifests, actions, tasks, LRPs, limits, egress rules and their views.
//! Must not: do anything. No clock, file, socket or random source; no behaviour beyond checks.
//! Called by: every room above row 0. Calls: `unit`.
//! Entry points: [`manifest::Manifest`], [`action::Action`], [`task::Task`], [`lrp::DesiredLrp`],
//! [`lrp::ActualLrp`], [`death::Death`], [`limits::Limits`], [`egress::Rule`], [`view`].

pub mod action;
pub mod container;
pub mod death;
pub mod desired;
pub mod egress;
pub mod event;
pub mod explain;
pub mod extras;
pub mod garden;
pub mod image;
pub mod limits;
pub mod lrp;
pub mod manifest;
pub mod metrics;
pub mod process;
pub mod service;
pub mod signals;
pub mod task;
pub mod view;
pub mod work;
