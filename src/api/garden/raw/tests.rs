//! Real sockets in pairs; the process is a pair of closures.

use super::*;
use smol::channel::{Sender, bounded, unbounded};
use smol::net::unix::UnixStream;
use std::net::Shutdown;
use std::time::Duration;

/// Nothing that a test waits for takes so long.
const LONG: Duration = Duration::from_secs(600);

fn settings() -> Settings {
    Settings { patience: LONG, deaf: LONG, linger: LONG }
}

fn room() -> Arc<Room> {
    Arc::default()
}

fn pair() -> (UnixStream, Hijacked) {
    let (client, server) = UnixStream::pair().expect("a pair of sockets");
    let (reader, writer) = (Box::pin(server.clone()), Box::pin(server.clone()));
    let has_gone = Box::new(move || crate::sys::fd::has_hung_up(&server));
    let stream = Hijacked { reader, writer, has_gone };
    (client, stream)
}

fn first() -> Message {
    let text = |text: &str| Some(text.to_owned());
    Message { process_id: text("p"), stream_id: text("7"), ..Message::default() }
}

const FIRST: &str = "{\"process_id\":\"p\",\"stream_id\":\"7\"}\n";

/// An order that is only noted.
fn note(orders: &Sender<Order>) -> impl FnMut(Order) -> future::Ready<()> {
    let orders = orders.clone();
    move |order| {
        orders.try_send(order).expect("room for every order");
        future::ready(())
    }
}

/// A control connection whose process ends with `end`, and all that its client reads meanwhile.
fn told_at(end: End) -> String {
    let (mut client, stream) = pair();
    let (orders, _heard) = unbounded();
    let server = control(stream, first(), note(&orders), future::ready(end), (room(), settings()));
    let talk = async {
        let mut out = String::new();
        client.read_to_string(&mut out).await.expect("the end, not a reset");
        drop(client);
        out
    };
    smol::block_on(future::zip(server, talk)).1
}

#[test]
fn the_end_of_the_process_is_the_last_line() {
    assert_eq!(
        told_at(Some(Ok(42))),
        format!("{FIRST}{{\"process_id\":\"p\",\"exit_status\":42}}\n")
    );
    let lost = Some(Err("lost".to_owned()));
    assert_eq!(told_at(lost), format!("{FIRST}{{\"process_id\":\"p\",\"error\":\"lost\"}}\n"));
    assert_eq!(told_at(None), FIRST, "the daemon goes without a word");
}

#[test]
fn orders_are_heard_after_the_end_of_input_and_the_clients_end_is_one() {
    let (mut client, stream) = pair();
    let (orders, heard) = unbounded();
    let server = control(stream, first(), note(&orders), future::pending(), (room(), settings()));
    let talk = async {
        let text = r#"{"source":0,"data":"in"}{"source":0}{"signal":0} {"tty":{}}{"signal":1}"#;
        client.write_all(text.as_bytes()).await.expect("send");
        client.shutdown(Shutdown::Write).expect("end");
        let mut out = String::new();
        client.read_to_string(&mut out).await.expect("the end");
        assert_eq!(out, FIRST, "nothing more is reported to who has gone");
    };
    smol::block_on(future::zip(server, talk));
    drop(orders);
    let heard: Vec<Order> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
    let expected = [
        Order::Input(b"in".to_vec()),
        Order::EndOfInput,
        Order::Terminate,
        Order::Nothing,
        Order::Kill,
        Order::EndOfInput,
    ];
    assert_eq!(heard, expected);
}

#[test]
fn nonsense_ends_the_input_and_the_end_is_told_all_the_same() {
    let (mut client, stream) = pair();
    let (orders, heard) = unbounded();
    let (end, ended) = bounded(1);
    let exit = async { ended.recv().await.ok() };
    let server = control(stream, first(), note(&orders), exit, (room(), settings()));
    let talk = async {
        client.write_all(b"nonsense{\"signal\":1}").await.expect("send");
        assert_eq!(heard.recv().await, Ok(Order::Nonsense("it is no JSON object")));
        end.send(Ok(3)).await.expect("heard");
        let mut out = String::new();
        client.read_to_string(&mut out).await.expect("the end");
        drop(client);
        assert!(out.ends_with("\"exit_status\":3}\n"), "{out}");
    };
    smol::block_on(future::zip(server, talk));
    assert!(heard.try_recv().is_err(), "the rest is not looked at");
}

#[test]
fn the_end_arrives_while_the_client_still_writes_and_nobody_reads_it() {
    let (client, stream) = pair();
    let (end, ended) = bounded(1);
    let exit = async { ended.recv().await.ok() };
    // A process that never reads, behind a buffer that is full.
    let stuck = |_: Order| future::pending::<()>();
    let server = control(stream, first(), stuck, exit, (room(), settings()));
    let (mut reader, mut writer) = (client.clone(), client);
    let write = async {
        let message = format!("{{\"source\":0,\"data\":\"{}\"}}\n", "x".repeat(10_000));
        // The first that does not fit at once: the kernel's buffers are full of what nobody reads.
        while future::poll_once(writer.write_all(message.as_bytes())).await.is_some() {}
        end.send(Ok(0)).await.expect("heard");
        while writer.write_all(message.as_bytes()).await.is_ok() {}
    };
    let read = async {
        let mut out = String::new();
        reader.read_to_string(&mut out).await.expect("the end, not a reset");
        assert_eq!(out, format!("{FIRST}{{\"process_id\":\"p\",\"exit_status\":0}}\n"));
        reader.shutdown(Shutdown::Both).expect("the client closes");
    };
    smol::block_on(future::zip(server, future::zip(write, read)));
}

#[test]
fn a_client_that_never_closes_is_left_after_a_time() {
    let (mut client, stream) = pair();
    let short = Settings { linger: Duration::from_millis(20), ..settings() };
    let (orders, _heard) = unbounded();
    smol::block_on(control(
        stream,
        first(),
        note(&orders),
        future::ready(Some(Ok(0))),
        (room(), short),
    ));
    let mut out = String::new();
    smol::block_on(client.read_to_string(&mut out)).expect("the end");
    assert!(out.ends_with("\"exit_status\":0}\n"), "{out}");
}

#[test]
fn who_has_gone_before_the_first_word_takes_the_input_along() {
    let (client, stream) = pair();
    drop(client);
    let (orders, heard) = unbounded();
    smol::block_on(control(
        stream,
        first(),
        note(&orders),
        future::pending(),
        (room(), settings()),
    ));
    assert_eq!(heard.try_recv(), Ok(Order::EndOfInput));
}

#[test]
fn a_client_that_goes_while_its_input_is_blocked_is_let_go() {
    for half in [true, false] {
        let (mut client, stream) = pair();
        let (ended, heard) = bounded(1);
        // A process that never reads.
        let stuck = move |order| {
            let ended = ended.clone();
            async move {
                match order {
                    Order::EndOfInput => ended.send(()).await.expect("room"),
                    _ => future::pending().await,
                }
            }
        };
        let short = Settings { patience: Duration::from_millis(20), ..settings() };
        let server = control(stream, first(), stuck, future::pending(), (room(), short));
        let talk = async {
            let order = format!("{{\"source\":0,\"data\":\"{}\"}}\n", "x".repeat(1000));
            client.write_all(order.repeat(20).as_bytes()).await.expect("send");
            if half {
                client.shutdown(Shutdown::Write).expect("end");
            }
            half.then_some(client)
        };
        let (_, _client) = smol::block_on(future::zip(server, talk));
        assert_eq!(heard.try_recv(), Ok(()), "the input ends");
    }
}

#[test]
fn who_stands_still_in_a_long_message_does_not_make_others_fail() {
    let room = Arc::new(Room::of(2));
    let short = Settings { patience: Duration::from_millis(100), ..settings() };
    let (stuck, heard_of) = unbounded();
    let (orders, heard) = unbounded();
    let ((mut one, its), (mut other, others)) = (pair(), pair());
    let with = || (room.clone(), short);
    let stands = control(its, first(), note(&stuck), future::pending(), with());
    let goes_on = control(others, first(), note(&orders), future::pending(), with());
    let long = vec![b'x'; 3 * KEEP - 1000];
    let talk = async {
        // All the room is taken, and nothing more comes.
        one.write_all(b"{\"source\":0,\"data\":\"").await.expect("send");
        one.write_all(&long).await.expect("send");
        while room.has_some() {
            future::yield_now().await;
        }
        other.write_all(b"{\"source\":0,\"data\":\"").await.expect("send");
        other.write_all(&long).await.expect("send");
        other.write_all(b"\"}").await.expect("send");
        assert_eq!(heard.recv().await, Ok(Order::Input(long.clone())));
        let nonsense = heard_of.recv().await;
        assert!(matches!(nonsense, Ok(Order::Nonsense(_))), "{nonsense:?}");
    };
    let both = async {
        future::zip(stands, goes_on).await;
        false
    };
    let talk = async {
        talk.await;
        true
    };
    assert!(smol::block_on(future::or(talk, both)), "neither client has gone");
}

#[test]
fn a_client_that_stays_waits_for_as_long_as_it_takes() {
    let (go, going) = bounded(1);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let has_gone = move || {
        if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
            go.try_send(()).expect("room");
        }
        false
    };
    let short = Settings { patience: Duration::from_millis(1), ..settings() };
    let read = async { going.recv().await.expect("the process reads") };
    assert!(smol::block_on(done_for_client(read, &has_gone, short)));
}

#[test]
fn an_output_is_its_pieces_and_then_the_end() {
    let (mut client, stream) = pair();
    let mut pieces = [b"one ".to_vec(), vec![b'x'; 500_000], b" two".to_vec()].into_iter();
    let server = output(stream, || future::ready(pieces.next()), settings());
    let talk = async {
        // What a client says here is nothing, and does no harm.
        client.write_all(b"noise").await.expect("send");
        let mut out = Vec::new();
        client.read_to_end(&mut out).await.expect("the end, not a reset");
        drop(client);
        assert_eq!(out.len(), 500_008);
        assert!(out.starts_with(b"one x") && out.ends_with(b"x two"));
    };
    smol::block_on(future::zip(server, talk));
}

#[test]
fn an_output_ends_when_its_client_goes_or_takes_nothing() {
    let (client, stream) = pair();
    drop(client);
    smol::block_on(output(stream, future::pending, settings()));

    let (_client, stream) = pair();
    let deaf = Settings { deaf: Duration::from_millis(20), ..settings() };
    smol::block_on(output(stream, || future::ready(Some(vec![7; 64 * 1024])), deaf));
}

#[test]
fn a_last_word_is_all_there_although_much_was_not_read() {
    let (client, stream) = pair();
    let (mut reader, mut writer) = (client.clone(), client);
    let write = async {
        let _ = writer.write_all(&[b'x'; 1 << 20]).await;
        writer.shutdown(Shutdown::Write).expect("the client ends");
    };
    let read = async {
        let mut out = String::new();
        reader.read_to_string(&mut out).await.expect("the end, not a reset");
        assert_eq!(out, "word");
    };
    smol::block_on(future::zip(last_word(stream, b"word", settings()), future::zip(write, read)));
}
