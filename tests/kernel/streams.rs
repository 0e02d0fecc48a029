//! Files streamed into containers and out of them, with the system's tar at the box's end.

use crate::container::{run, spec};
use crate::lab::{Lab, tool};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use terrarium::container::{Container, ContainerSpec, Fault, Host, Posture, ProcessError};
use terrarium::init::proto::FailKind;
use terrarium::model::process::ExitStatus;

/// One container, and a directory on the box.
struct Streams {
    lab: Lab,
    host: Host,
    container: Container,
    dir: PathBuf,
}

impl Streams {
    fn new(name: &str, posture: Posture) -> Streams {
        let lab = Lab::new(name);
        let host = lab.host();
        let wanted = ContainerSpec { posture, ..spec(&lab, "c") };
        let container = host.create(wanted, Fault::None).expect("create");
        let users = "mkdir -p /etc && printf 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' > /etc/passwd";
        assert_eq!(run(&container, "users", users), ExitStatus::Exited(0));
        let dir = lab.state.join("box");
        fs::create_dir(&dir).expect("a directory");
        Streams { lab, host, container, dir }
    }

    /// Packs what is in `self.dir` by the system's tar.
    fn tar(&self, args: &[&str]) -> Vec<u8> {
        let out =
            Command::new("tar").args(["-C"]).arg(&self.dir).args(["-cf", "-"]).args(args).output();
        let out = out.expect("tar");
        assert!(out.status.success(), "{out:?}");
        out.stdout
    }

    fn send(&self, user: &str, dest: &str, tar: &[u8]) -> Result<(), ProcessError> {
        smol::block_on(async {
            let mut inflow = self.container.stream_in(user, dest).await?;
            for piece in tar.chunks(100_000) {
                inflow.write(piece).await?;
            }
            inflow.finish().await
        })
    }

    fn receive(&self, user: &str, src: &str) -> Result<Vec<u8>, ProcessError> {
        smol::block_on(async {
            let mut outflow = self.container.stream_out(user, src).await?;
            let mut all = Vec::new();
            while let Some(piece) = outflow.next().await {
                all.extend(piece?);
            }
            Ok(all)
        })
    }

    fn sh(&self, script: &str) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = format!("sh-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        assert_eq!(run(&self.container, &id, script), ExitStatus::Exited(0), "{script}");
    }

    fn close(self) {
        let Streams { lab, host, container, .. } = self;
        drop(container);
        host.destroy(&"c".parse().expect("handle")).expect("destroy");
        lab.close(host);
    }
}

/// What the system's tar lists.
fn listing(tar: &[u8], args: &str) -> String {
    let mut child = Command::new("tar")
        .args([args, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar");
    child.stdin.take().expect("piped").write_all(tar).expect("it reads");
    let out = child.wait_with_output().expect("tar");
    assert!(out.status.success());
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// The kind and text of a failure.
fn refused(result: Result<impl Sized, ProcessError>) -> (Option<FailKind>, String) {
    match result.err().expect("an error") {
        ProcessError::Refused { kind, text } => (Some(kind), text),
        ProcessError::Broken { text } => (None, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_go_in_and_out_as_their_user_in_every_posture() {
    for (name, posture) in
        [("sapp", Posture::App), ("sgarden", Posture::Garden), ("spriv", Posture::Privileged)]
    {
        let streams = Streams::new(name, posture);
        fs::create_dir(streams.dir.join("d")).expect("a directory");
        fs::write(streams.dir.join("d/file"), "content").expect("a file");
        symlink("file", streams.dir.join("d/link")).expect("a link");
        let tar = streams.tar(&["--owner=77", "d"]);
        streams.send("", "/opt/new", &tar).expect("as root");
        streams.send("ann", "in/home", &tar).expect("as somebody");
        streams.send("1000:1000", "/tmp/number", &tar).expect("as a number");
        streams.sh(
            "set -e; test \"$(stat -c %u:%a /opt/new /opt/new/d/file | tr '\\n' ' ')\" = '0:755 0:644 '
             cd /home/ann/in; test \"$(stat -c %u . home home/d/file | tr '\\n' ' ')\" = '1000 1000 1000 '
             test \"$(stat -c %u:%g /tmp/number/d/file)\" = 1000:1000
             test $(cat home/d/link) = content; test ! -e /root/d",
        );
        let out = streams.receive("ann", "in/home").expect("out");
        assert_eq!(listing(&out, "-tf"), "home/\nhome/d/\nhome/d/file\nhome/d/link\n");
        let out = streams.receive("", "/opt/new/").expect("out");
        assert_eq!(listing(&out, "-tf"), "./\n./d/\n./d/file\n./d/link\n");
        let out = streams.receive("", "/home/ann/in/home/d/file").expect("out");
        let listed = listing(&out, "-tvf");
        assert!(listed.contains("1000/1000") && listed.ends_with(" file\n"), "{listed}");
        assert!(
            smol::block_on(streams.container.processes())
                .expect("list")
                .iter()
                .all(|p| !p.is_internal())
        );
        streams.close();
    }
}

#[test]
fn what_cannot_be_streamed_is_told_in_the_programs_own_words() {
    let streams = Streams::new("srefused", Posture::Garden);
    fs::write(streams.dir.join("file"), vec![7; 1 << 20]).expect("a file");
    let tar = streams.tar(&["file"]);
    let (kind, text) = refused(streams.send("nobody-here", "/tmp", &tar));
    assert_eq!(kind, Some(FailKind::UserNotFound), "{text}");
    let (kind, text) = refused(streams.receive("nobody-here", "/tmp"));
    assert_eq!(kind, Some(FailKind::UserNotFound), "{text}");
    streams.sh("mkdir -m 700 /closed && echo x > /closed/x && mkdir -m 755 /open");
    for (dest, why) in [("/closed/sub", "make /closed/sub"), ("/open", "`file`")] {
        let (_, text) = refused(streams.send("ann", dest, &tar));
        assert!(text.contains("Permission denied") && text.contains(why), "{text}");
    }
    let (_, text) = refused(streams.send("", "/tmp", &tar[..tar.len() / 2]));
    assert!(text.contains("`file`") || text.contains("too early"), "{text}");
    let (_, text) = refused(streams.send("", "/tmp", &[b'x'; 4096]));
    assert!(text.contains("cannot read the archive"), "{text}");
    // Before anything is given out.
    for (user, src, why) in [
        ("", "/gone", "No such file"),
        ("ann", "gone", "/home/ann is not in the container"),
        ("ann", "/closed/x", "Permission denied"),
    ] {
        let (_, text) = refused(smol::block_on(streams.container.stream_out(user, src)));
        assert!(text.contains(why), "{src}: {text}");
    }
    // In the middle: the tar has no end.
    streams.sh("mkdir /tree && mkdir -m 700 /tree/closed && echo x > /tree/a && chmod 755 /tree");
    let (_, text) = refused(streams.receive("ann", "/tree"));
    assert!(text.contains("/tree/closed") && text.contains("Permission denied"), "{text}");
    // The disk is full.
    fs::write(streams.dir.join("large"), vec![7; 32 << 20]).expect("a file");
    let (_, text) = refused(streams.send("", "/tmp", &streams.tar(&["large"])));
    assert!(text.contains("`large`") && text.contains("Quota exceeded"), "{text}");
    streams.close();
}

#[test]
fn links_of_a_hostile_root_lead_nowhere_else() {
    let streams = Streams::new("shostile", Posture::Garden);
    fs::create_dir(streams.dir.join("l")).expect("a directory");
    fs::write(streams.dir.join("l/x"), "evil").expect("a file");
    let tar = streams.tar(&["l/x"]);
    let canary = streams.lab.state.join("canary");
    fs::create_dir(&canary).expect("a directory");
    let canary_path = canary.to_str().expect("UTF-8");
    for target in ["/etc", "../etc", "../../../../../..", canary_path] {
        streams.sh(&format!("mkdir -p /dest && ln -sfn {target} /dest/l"));
        let (_, text) = refused(streams.send("", "/dest", &tar));
        assert!(text.contains("`l/x`"), "{text}");
    }
    // Where the destination is `/` itself there is no outside, and links lead where they say.
    streams.sh("mkdir /real && ln -s /real /l");
    streams.send("", "/", &tar).expect("in");
    streams.sh("test -f /real/x && test -L /l && rm /l");
    // The destination itself is the container's to say, and stays inside.
    streams.sh(&format!("ln -s {canary_path} /away; mkdir -p {canary_path}"));
    streams.send("", "/away", &tar).expect("inside");
    streams.sh(&format!("test -f {canary_path}/l/x"));
    streams.sh("ln -s /proc/self/fd/0 /odd; ln -s /proc/1/root /one");
    refused(streams.send("", "/odd", &tar));
    refused(streams.send("", "/one", &tar));
    assert_eq!(fs::read_dir(&canary).expect("canary").count(), 0);
    // A link goes out as a link, and the tree behind it does not.
    let out = streams.receive("", "/away").expect("out");
    assert!(listing(&out, "-tvf").contains(&format!("away -> {canary_path}")));
    // No file of the container is needed, and none is believed.
    streams.sh("rm /etc/passwd && ln -s /bin/false /bin/tar-in");
    streams.send("", "/still", &tar).expect("in");
    streams.close();
}

#[test]
fn many_files_and_a_large_one_come_back_as_they_went() {
    let lab = Lab::new("smany");
    let host = lab.host();
    let mut wanted = spec(&lab, "c");
    wanted.limits.disk = Some(terrarium::unit::Bytes::mib(256));
    let container = host.create(wanted, Fault::None).expect("create");
    let dir = lab.state.join("box");
    let streams = Streams { lab, host, container, dir };
    for number in 0..10_000 {
        let place = streams.dir.join(format!("many/{:02}", number % 100));
        fs::create_dir_all(&place).expect("a directory");
        fs::write(place.join(format!("f{number}")), number.to_string()).expect("a file");
    }
    let mut large = vec![0u8; 48 << 20];
    large.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
    fs::write(streams.dir.join("many/large"), &large).expect("a file");
    streams.send("", "/data", &streams.tar(&["many"])).expect("in");
    let out = streams.lab.state.join("out.tar");
    fs::write(&out, streams.receive("", "/data/many").expect("out")).expect("the tar");
    // The system's tar compares it with what is there.
    let (out, dir) = (out.to_str().expect("UTF-8"), streams.dir.to_str().expect("UTF-8"));
    tool("tar", &["-C", dir, "-df", out]);
    assert_eq!(tool("tar", &["-tf", out]).lines().count(), 10_000 + 101 + 1);
    streams.close();
}

#[test]
fn root_of_a_privileged_container_cannot_write_to_our_program() {
    let streams = Streams::new("swrite", Posture::Privileged);
    let idle = smol::block_on(streams.container.stream_in("", "/idle")).expect("begins");
    let before = fs::metadata(crate::lab::BINARY).expect("the program").modified().expect("a time");
    streams.sh(
        "for dir in /proc/[0-9]*; do tr '\\0' ' ' < $dir/cmdline | grep -q '^tar-in' && found=$dir; done
         test -n \"$found\" || exit 3
         readlink $found/exe | grep -q memfd || exit 4
         ! (echo x >> $found/exe) 2> /dev/null || exit 5
         ! dd if=/dev/zero of=$found/exe bs=1 count=1 conv=notrunc 2> /dev/null",
    );
    let after = fs::metadata(crate::lab::BINARY).expect("the program").modified().expect("a time");
    assert_eq!(before, after);
    drop(idle);
    streams.close();
}

#[test]
fn a_stream_ends_with_its_container() {
    let Streams { lab, host, container, .. } = Streams::new("sgone", Posture::Garden);
    smol::block_on(async {
        let mut inflow = container.stream_in("", "/in").await.expect("begins");
        let other = container.stream_in("", "/in").await.expect("begins");
        host.destroy(&"c".parse().expect("handle")).expect("destroy");
        // A pipe takes some before it is known that nobody reads.
        let err = inflow.write(&[0; 1 << 20]).await.expect_err("gone");
        assert!(err.is_gone(), "{err}");
        let err = other.finish().await.expect_err("gone");
        assert!(err.is_gone(), "{err}");
    });
    drop(container);
    lab.close(host);
}

#[test]
fn a_stream_that_is_dropped_half_way_ends_its_program() {
    let streams = Streams::new("sdropped", Posture::Garden);
    fs::write(streams.dir.join("file"), vec![7; 4 << 20]).expect("a file");
    let tar = streams.tar(&["file"]);
    let container = &streams.container;
    smol::block_on(async {
        let mut inflow = container.stream_in("", "/half").await.expect("begins");
        inflow.write(&tar[..2 << 20]).await.expect("taken");
        drop(inflow);
        // Both are held up by us: one for want of bytes, the other by a full pipe.
        streams.send("", "/whole", &tar).expect("in");
        let mut outflow = container.stream_out("", "/whole").await.expect("begins");
        outflow.next().await.expect("some").expect("bytes");
        let idle = container.stream_in("", "/idle").await.expect("begins");
        drop((outflow, idle));
        // Returns when nothing but pid 1 is left.
        container.stop(false).await.expect("stopped");
    });
    streams.sh("test $(stat -c %s /half/file) -lt $((4 << 20)); test ! -e /idle/file");
    streams.close();
}
