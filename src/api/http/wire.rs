//! Frames of an exec session, in both directions, after the answer `101`. Pure.
//!
//! | bytes | field  | value                                    |
//! |-------|--------|------------------------------------------|
//! | 0     | kind   | the table at [`Frame`]                   |
//! | 1..5  | length | of the payload, big endian, at most 64 KiB |
//! | 5..   | payload | bytes or one JSON value                 |

use crate::model::process::WindowSize;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest payload, in bytes.
pub const PAYLOAD_MAX: usize = 64 * 1024;
/// Length of what comes before the payload, in bytes.
pub const HEADER: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// 0, to the process: bytes for its stdin.
    Stdin(Vec<u8>),
    /// 1, from the process; with a terminal everything comes here.
    Stdout(Vec<u8>),
    /// 2, from the process.
    Stderr(Vec<u8>),
    /// 3, to the process: `{"rows":24,"columns":80}`.
    Resize(WindowSize),
    /// 4, the last frame from the server: `{"code":0}`.
    Exit(Exit),
    /// 5, to the process, empty: no more stdin.
    StdinEof,
    /// 6, to the process: a signal's number, 4 bytes, big endian.
    Signal(i32),
}

/// How the session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The process's own status, 128 + n for signal n; 125 to 127 when it never ran.
    pub code: i32,
    /// Why it never ran, or why its end is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Bytes that are no frame. The session cannot go on: the next frame's place is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame(&'static str);

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad exec frame: {}", self.0)
    }
}

impl std::error::Error for BadFrame {}

impl Frame {
    /// The frame as bytes. Data longer than [`PAYLOAD_MAX`] must be cut by the caller.
    pub fn encode(&self) -> Vec<u8> {
        let json = "numbers and text always become JSON";
        match self {
            Frame::Stdin(data) => frame(0, data),
            Frame::Stdout(data) => frame(1, data),
            Frame::Stderr(data) => frame(2, data),
            Frame::Resize(size) => frame(3, &serde_json::to_vec(size).expect(json)),
            Frame::Exit(exit) => frame(4, &serde_json::to_vec(exit).expect(json)),
            Frame::StdinEof => frame(5, &[]),
            Frame::Signal(number) => frame(6, &number.to_be_bytes()),
        }
    }

    /// Reads a frame from the beginning of `bytes`, with its length. `None`: it is not all there.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, BadFrame> {
        let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_MAX {
            return Err(BadFrame("the payload is over 64 KiB"));
        }
        let Some(data) = rest.get(..length) else { return Ok(None) };
        let frame = match kind {
            0 => Frame::Stdin(data.to_vec()),
            1 => Frame::Stdout(data.to_vec()),
            2 => Frame::Stderr(data.to_vec()),
            3 => Frame::Resize(json(data)?),
            4 => Frame::Exit(json(data)?),
            5 if data.is_empty() => Frame::StdinEof,
            6 => match data.try_into() {
                Ok(number) => Frame::Signal(i32::from_be_bytes(number)),
                Err(_) => return Err(BadFrame("a signal is 4 bytes")),
            },
            _ => return Err(BadFrame("unknown kind")),
        };
        Ok(Some((frame, HEADER + length)))
    }
}

fn json<T: for<'a> Deserialize<'a>>(data: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(data).map_err(|_| BadFrame("the payload is not the JSON it should be"))
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_MAX, "callers cut their data to PAYLOAD_MAX");
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.push(kind);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_and_a_cut_is_not_an_error() {
        let error = Some("no such file".to_owned());
        for frame in [
            Frame::Stdin(b"a\0b".to_vec()),
            Frame::Stdout(vec![]),
            Frame::Stderr(vec![7; PAYLOAD_MAX]),
            Frame::Resize(WindowSize { rows: 24, columns: 80 }),
            Frame::Exit(Exit { code: 127, error }),
            Frame::StdinEof,
            Frame::Signal(-2),
        ] {
            let mut bytes = frame.encode();
            for end in 0..bytes.len().min(40) {
                assert_eq!(Frame::decode(&bytes[..end]), Ok(None));
            }
            let length = bytes.len();
            bytes.extend_from_slice(b"next");
            assert_eq!(Frame::decode(&bytes), Ok(Some((frame, length))));
        }
        assert_eq!(
            Frame::Exit(Exit { code: 0, error: None }).encode(),
            b"\x04\0\0\0\x0a{\"code\":0}"
        );
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            b"\x00\x00\x01\x00\x01".as_slice(),
            b"\x01\xff\xff\xff\xff",
            b"\x07\0\0\0\0",
            b"\x05\0\0\0\x01x",
            b"\x06\0\0\0\x01x",
            b"\x03\0\0\0\x02{}",
            b"\x04\0\0\0\x01x",
        ] {
            assert!(Frame::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
