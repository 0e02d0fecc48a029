//! HTTP/1.1 for every dialect: over unix sockets and TCP, with streamed answers and
//! connections that turn into something else after the head.
//!
//! Owns: heads, bodies, limits, connections, the frames of an exec session, the socket's file.
//! Must not: know a route, an app or a dialect; trust a length or a rate that a peer chose.
//! Called by: the dialects of `api`, `cli` (client), `daemon` (listen, serve). Calls: `sys`, `log`,
//! `config` (where sockets are).
//! Entry points: [`listen::listen`], [`listen::listen_tcp`], [`server::serve`], [`tls::TlsListener`],
//! [`client::Client`]; pure: [`proto`], [`wire`].

pub mod proto;
pub mod wire;

mod accept;
mod body;
mod frame;

pub mod client;
pub mod listen;
pub mod pages;
pub mod server;
pub mod tls;

pub use accept::{Caller, Listener, Stream};
pub use body::{Body, BodyError, within, write_while_taken};
pub use frame::{FrameWriter, Frames};
pub use proto::Request;
