//! What other programs speak to: HTTP on the daemon's socket, a file for each dialect.
//!
//! Owns: sockets, heads, bodies, routes, the JSON of requests and answers, exec sessions on the
//! wire.
//! Must not: decide anything about an app; keep state between requests; block its thread.
//! Called by: `daemon` (serve), `cli` (client and wire types). Calls: `cell`, `garden`, `config`,
//! `model`, `unit`, `sys`, `log`.
//! Entry points: [`http`], [`apps::Apps`] (the local dialect), [`apps::AppService`],
//! [`debug::Debug`], [`garden::Garden`].
//! Ancestor: receptor, garden server, cc_bridge.

pub mod http;

pub mod apps;
pub mod debug;
pub mod garden;

#[cfg(test)]
pub mod testing;
