//! exec: streams, signals and the exit code.

use super::*;
use crate::cli::exec::{Streams, session, start};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::{self, StreamExt};

/// Runs an `exec` line with this input; exit code and output.
fn exec_line(world: &World, line: &str, input: &str, signal: Option<i32>) -> (i32, String, String) {
    let typed = parse::parse(line.split_whitespace().map(Into::into)).expect("line");
    let Command::Exec(exec) = typed.command else { panic!("{line} is no exec") };
    let pair = || smol::net::unix::UnixStream::pair().expect("pair");
    let ((stdin, mut feed), (stdout, mut out), (stderr, mut err)) = (pair(), pair(), pair());
    let streams =
        Streams { stdin: Box::pin(stdin), stdout: Box::pin(stdout), stderr: Box::pin(stderr) };
    let signals = stream::iter(signal).chain(stream::pending()).boxed();
    smol::block_on(async {
        feed.write_all(input.as_bytes()).await.expect("feed");
        drop(feed);
        let frames = start(&world.remote(), exec, None).await.expect("started");
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let exit = session(frames, streams, signals, false).await.expect("an exit");
        out.read_to_string(&mut stdout).await.expect("out");
        err.read_to_string(&mut stderr).await.expect("err");
        (exit.code, stdout, stderr)
    })
}

#[test]
fn exec_carries_input_output_signals_and_the_exit_code() {
    let world = World::new(&[("web", "running")]);
    let text = |text: &str| text.to_owned();
    assert_eq!(exec_line(&world, "exec web -- echo hi", "", None), (0, text("hi"), text("oops")));
    assert_eq!(exec_line(&world, "exec web/3 -- cat", "ab\0c", None), (0, text("ab\0c"), text("")));
    assert_eq!(exec_line(&world, "exec web -- exit 42", "", None).0, 42);
    assert_eq!(exec_line(&world, "exec web:web -- forever", "", Some(2)).0, 130);
    assert!(world.fake.calls().contains(&"exec web:web/3 [\"cat\"]".to_owned()));
}
