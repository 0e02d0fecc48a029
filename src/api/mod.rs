//! What other programs speak to: HTTP on the daemon's socket, a file for each dialect.
//!
//! Owns: sockets, heads, bodies, routes, the JSON of requests and answers, exec sessions on the
//! wire.
//! Must not: decide anything about an app; keep state between requests; block its thread.
//! Called by: `daemon` (serve), `cli` (client and wire types). Calls: `bridge`, `cell`, `garden`, `config`,
//! `model`, `unit`, `sys`, `log`.
//! Entry points: [`http`], [`apps::Apps`] (the local dialect), [`apps::AppService`],
//! [`records`] (Diego's own, beside it), [`bridge::OnPort`], [`bbs::Bbs`], [`debug::Debug`], [`garden::Garden`].
//! Ancestor: receptor, garden server, cc_bridge.

pub mod http;

pub mod apps;
pub mod bbs;
pub mod bridge;
pub mod debug;
pub mod garden;
pub mod openmetrics;
pub mod records;
pub mod sse;

#[cfg(test)]
pub mod testing;
