//! `sftp-server`: the server's side of SFTP version 3 on stdin and stdout, for `sftp` and for today's
//! `scp`. With the power of the user that runs it, and no more: paths are the container's.
//!
//! | bytes | field of every message | source |
//! |---|---|---|
//! | 0..4 | length of what follows, at most [`wire::MESSAGE_MAX`] | draft-ietf-secsh-filexfer-02, 3 |
//! | 4 | type | |
//! | 5..9 | number of the request, or the version | |
//! | 9.. | fields of that type | |
//!
//! One request at a time, answered before the next is read.

mod attributes;
mod handles;
mod requests;
mod wire;

use requests::Server;
use std::io::{self, Read, Write};

/// Serves until the client is gone.
pub(super) fn serve() -> Result<(), u8> {
    let (input, output) = (io::stdin().lock(), io::stdout().lock());
    serve_on(input, output).map_err(|err| {
        complain!("sftp-server: {err}");
        1
    })
}

fn serve_on(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut server = Server::default();
    while let Some(message) = wire::read(&mut input)? {
        output.write_all(&server.answer(&message)?)?;
        output.flush()?;
    }
    Ok(())
}
