//! The other end is played by the test; a process that lives or has ended stands for pid 1.

use super::*;
use smol::future;
use std::os::fd::AsFd;

/// The box's side, which listens, and pid 1's.
struct Scene {
    link: Arc<Link>,
    theirs: Async<OwnedFd>,
}

impl Scene {
    fn new(pid: u32, gone_max: Duration) -> (Scene, smol::Task<()>) {
        let (ours, theirs) = sys::socket::pair().expect("a pair");
        let pidfd = sys::process::pidfd_open(pid as i32).expect("pidfd");
        let link = Link::new("web-0".parse().expect("handle"), ours, pidfd).expect("link");
        let listens = smol::spawn(listen(link.clone(), gone_max));
        (Scene { link, theirs: Async::new(theirs).expect("async") }, listens)
    }

    /// The next request.
    async fn asked(&self) -> Request {
        let mut buffer = vec![0; MAX_MESSAGE];
        let receive = |socket: &OwnedFd| sys::socket::recv_with_fds(socket, &mut buffer);
        let (length, _) = self.theirs.read_with(receive).await.expect("a request");
        serde_json::from_slice(&buffer[..length]).expect("a request")
    }

    fn say(&self, seq: u64, answer: Answer) {
        let reply = serde_json::to_vec(&Reply { seq, answer }).expect("JSON");
        sys::socket::send_with_fds(self.theirs.get_ref(), &reply, &[]).expect("send");
    }

    /// What is not wanted any more is killed, and forgotten when it has ended.
    async fn ends(&self, id: &str) {
        let kill = self.asked().await;
        assert_eq!(kill.ask, Ask::Signal { id: id.into(), signal: KILL, group: false });
        self.say(kill.seq, Answer::Done);
        self.say(0, Answer::Ended { id: id.into(), status: ExitStatus::Signaled(KILL) });
        let forget = self.asked().await;
        assert_eq!(forget.ask, Ask::Forget { id: id.into() });
        self.say(forget.seq, Answer::Done);
    }
}

fn adopt(id: &str) -> Ask {
    let (id, program) = (id.to_owned(), "sh".to_owned());
    Ask::Adopt { id, program, pid: 7, tty: false, keep_stdin: false, lowered: BTreeMap::new() }
}

fn started() -> Answer {
    Answer::Started { pid: 7, lowered: BTreeMap::new() }
}

#[test]
fn what_starts_after_nobody_waits_is_ended_and_forgotten() {
    smol::block_on(async {
        let (scene, _listens) = Scene::new(std::process::id(), Duration::ZERO);
        let ask = Box::pin(scene.link.ask_with(adopt("late"), &[]));
        // Dropped in the middle, as one that has waited too long.
        let request =
            future::or(async { Err(ask.await.map(drop)) }, async { Ok(scene.asked().await) });
        let request = request.await.expect("asked before it is answered");
        let again = || scene.link.ask_with(adopt("late"), &[]);
        let taken = again().await.expect_err("it may still be started").to_string();
        assert!(taken.contains("`late` runs already"), "{taken}");
        scene.say(request.seq, started());
        scene.ends("late").await;
        // What was said before this one has been heard.
        let next = future::zip(scene.link.ask(Ask::List), async {
            let request = scene.asked().await;
            scene.say(request.seq, Answer::Done);
        });
        next.await.0.expect("an answer");
        while !scene.link.state().unwanted.is_empty() {
            future::yield_now().await;
        }
        assert!(scene.link.state().watched.is_empty(), "nobody waits any more");
        let next = future::zip(again(), async {
            let request = scene.asked().await;
            scene.say(request.seq, started());
        });
        next.await.0.expect("the name is free");
    });
}

#[test]
fn a_start_that_fails_late_and_other_questions_leave_nothing() {
    smol::block_on(async {
        let (scene, _listens) = Scene::new(std::process::id(), Duration::ZERO);
        for ask in [adopt("late"), Ask::List] {
            let ask = Box::pin(scene.link.ask_with(ask, &[]));
            let request =
                future::or(async { Err(ask.await.map(drop)) }, async { Ok(scene.asked().await) });
            let seq = request.await.expect("asked before it is answered").seq;
            scene.say(seq, Answer::Failed { kind: FailKind::Refused, text: "no".into() });
        }
        // What was said before this one has been heard.
        let next = future::zip(scene.link.ask(Ask::List), async {
            let request = scene.asked().await;
            assert_eq!(request.ask, Ask::List);
            scene.say(request.seq, Answer::Done);
        });
        next.await.0.expect("an answer");
        assert!(scene.link.state().asked.is_empty());
    });
}

#[test]
fn a_connection_that_ends_before_pid_1_is_no_end_of_its_processes() {
    smol::block_on(async {
        let (scene, listens) = Scene::new(std::process::id(), Duration::ZERO);
        let end = scene.link.watch("one");
        drop(scene.theirs);
        listens.await;
        assert!(end.recv().await.is_err());
        let err = scene.link.lost();
        assert!(!err.is_gone() && crate::log::chain(&err).contains("closed the connection"));
        let err = scene.link.ask(Ask::List).await.expect_err("nobody is there");
        assert!(!err.is_gone(), "{err}");
    });
}

#[test]
fn what_is_asked_when_a_connection_ends_is_answered_when_it_is_known_whether_pid_1_lives() {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
    smol::block_on(async {
        let (scene, listens) = Scene::new(child.id(), Duration::from_secs(1000));
        let Scene { link, theirs } = scene;
        let mut before = Box::pin(link.ask(Ask::List));
        assert!(future::poll_once(&mut before).await.is_none(), "it waits for an answer");
        drop(theirs);
        while link.is_open() {
            future::yield_now().await;
        }
        let err = link.ask(Ask::List).await.expect_err("nobody hears it");
        assert!(!err.is_gone(), "it lives: {err}");
        assert!(future::poll_once(&mut before).await.is_none(), "it is not known yet");
        child.kill().expect("kill");
        listens.await;
        assert!(before.await.expect_err("it ended").is_gone());
    });
    let mut child = child;
    child.wait().expect("its end");
}

#[test]
fn a_connection_that_ends_before_pid_1_is_no_end_of_what_is_asked() {
    smol::block_on(async {
        let (scene, listens) = Scene::new(std::process::id(), Duration::ZERO);
        let Scene { link, theirs } = scene;
        let mut asked = Box::pin(link.ask(Ask::List));
        assert!(future::poll_once(&mut asked).await.is_none(), "it waits for an answer");
        drop(theirs);
        listens.await;
        let err = asked.await.expect_err("nobody answers");
        assert!(!err.is_gone(), "{err}");
    });
}

#[test]
fn a_connection_that_ends_with_pid_1_is_the_end_of_its_processes() {
    let mut child = std::process::Command::new("true").spawn().expect("a process");
    let pidfd = sys::process::pidfd_open(child.id() as i32).expect("pidfd");
    assert!(sys::fd::wait_readable(pidfd.as_fd(), 10_000).expect("poll"), "it ends");
    smol::block_on(async {
        let (scene, listens) = Scene::new(child.id(), GONE_MAX);
        let end = scene.link.watch("one");
        drop(scene.theirs);
        listens.await;
        assert!(end.recv().await.is_err());
        assert!(scene.link.lost().is_gone());
    });
    child.wait().expect("its end");
}

#[test]
fn a_message_that_is_too_long_costs_itself_only() {
    smol::block_on(async {
        let (scene, _listens) = Scene::new(std::process::id(), Duration::ZERO);
        let long = vec![b' '; MAX_MESSAGE + 1];
        sys::socket::send_with_fds(scene.theirs.get_ref(), &long, &[]).expect("send");
        let next = future::zip(scene.link.ask(Ask::List), async {
            let request = scene.asked().await;
            scene.say(request.seq, Answer::Done);
        });
        assert_eq!(next.await.0.expect("an answer").0, Answer::Done);
    });
}
