//! Files in and out, with GNU tar at the other end.

use super::client::{container, escape};
use super::place::Garden;
use super::wire::{Answer, Wire};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// GNU tar's archive of `names` below `dir`.
fn pack(dir: &Path, names: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(dir).arg("-cf").arg("-").args(names).output();
    let output = output.expect("tar");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What GNU tar lists, names only.
fn names(tar: &[u8]) -> Vec<String> {
    let mut child = Command::new("tar")
        .args(["-tf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar");
    let mut stdin = child.stdin.take().expect("piped");
    let bytes = tar.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().expect("tar");
    writer.join().expect("no panic").expect("tar reads it");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("names");
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Streams a tar in, chunked as Go does it.
fn stream_in(garden: &Garden, user: &str, to: &str, tar: &[u8]) -> Answer {
    stream_into(garden, "c", user, to, tar)
}

/// The same into any container.
pub fn stream_into(garden: &Garden, handle: &str, user: &str, to: &str, tar: &[u8]) -> Answer {
    let mut wire = Wire::dial(&garden.socket);
    let query = format!("/files?user={}&destination={}", escape(user), escape(to));
    let path = container(handle, &query);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\nContent-Type: application/x-tar\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    wire.send(head.as_bytes());
    for chunk in tar.chunks(5000) {
        wire.send(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.send(chunk);
        wire.send(b"\r\n");
    }
    wire.send(b"0\r\n\r\n");
    wire.answer()
}

fn stream_out(garden: &Garden, user: &str, from: &str) -> Answer {
    let query = format!("/files?user={}&source={}", escape(user), escape(from));
    garden.call("GET", &container("c", &query), None)
}

/// A tree of the host to send.
fn tree(garden: &Garden) -> std::path::PathBuf {
    let dir = garden.lab().root.join("tree");
    fs::create_dir_all(dir.join("deep/er")).expect("tree");
    fs::write(dir.join("deep/file"), "content\n").expect("file");
    fs::write(dir.join("big"), vec![7; 300_000]).expect("file");
    let executable = fs::Permissions::from_mode(0o777);
    fs::set_permissions(dir.join("deep/file"), executable).expect("mode");
    std::os::unix::fs::symlink("file", dir.join("deep/link")).expect("link");
    fs::hard_link(dir.join("big"), dir.join("same")).expect("hard link");
    dir
}

#[test]
fn what_goes_in_belongs_to_the_user_and_comes_out_the_same() {
    let garden = Garden::start("files");
    garden.make("c");
    let dir = tree(&garden);
    let tar = pack(&dir, &["."]);
    for (user, to, at) in [
        ("vcap", "/made/for/it", "/made/for/it"),
        ("", "/as/root", "/as/root"),
        ("vcap", "relative", "/home/vcap/relative"),
    ] {
        let answer = stream_in(&garden, user, to, &tar);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let ids = if user == "vcap" { "2000:2000" } else { "0:0" };
        let stat = format!("stat -c %u:%g {at} {at}/deep {at}/deep/file {at}/big | sort -u");
        assert_eq!(garden.says("c", &stat), ids, "{user} {to}");
        assert_eq!(garden.says("c", &format!("stat -c %a {at}/deep/file")), "755", "the umask");
        assert_eq!(garden.says("c", &format!("readlink {at}/deep/link")), "file");
        assert_eq!(garden.says("c", &format!("wc -c < {at}/same")), "300000");
    }
    let out = stream_out(&garden, "vcap", "/made/for/it");
    assert_eq!(out.status(), 200);
    let expected = ["it/", "it/big", "it/deep/", "it/deep/er/", "it/deep/file", "it/deep/link"];
    assert_eq!(names(&out.body)[..6], expected);
    let expected = ["./", "./big", "./deep/", "./deep/er/", "./deep/file", "./deep/link", "./same"];
    assert_eq!(names(&stream_out(&garden, "", "/made/for/it/").body), expected);
    assert_eq!(names(&stream_out(&garden, "", "/made/for/it/deep/file").body), ["file"]);
    assert_eq!(names(&stream_out(&garden, "vcap", "relative/deep/er").body), ["er/"]);
    garden.finish();
}

#[test]
fn attributes_that_the_user_may_set_come_along() {
    let garden = Garden::start("xattrs");
    garden.make("c");
    // One file with user.note=kept, as GNU tar and others write it.
    let record = "31 SCHILY.xattr.user.note=kept\n";
    let mut tar = tar::Builder::new(Vec::new());
    let mut more = tar::Header::new_ustar();
    more.set_entry_type(tar::EntryType::XHeader);
    more.set_size(record.len() as u64);
    more.set_cksum();
    tar.append_data(&mut more, "PaxHeaders/file", record.as_bytes()).expect("a tar");
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "file", &b"x\n"[..]).expect("a tar");
    let tar = tar.into_inner().expect("a tar");
    assert_eq!(stream_in(&garden, "vcap", "/home/vcap/in", &tar).status(), 200);
    // Nothing inside can show it, so it is looked at from the box.
    let first = super::lost::first_process(&super::lost::entry_file(&garden, "c"));
    let file = fs::File::open(format!("/proc/{first}/root/home/vcap/in/file")).expect("the file");
    let names = terrarium::sys::file::xattr_names(file.as_fd()).expect("names");
    // What is open keeps the store from being closed.
    drop(file);
    assert!(names.iter().any(|name| name == b"user.note"), "{names:?}");
    garden.finish();
}

#[test]
fn what_cannot_be_written_or_read_is_an_error() {
    let garden = Garden::start("nofiles");
    garden.make("c");
    let tar = pack(&tree(&garden), &["."]);
    let answer = stream_in(&garden, "nobo", "/tmp/x", &tar);
    assert_eq!(answer.status(), 500);
    assert!(answer.error().1.contains("error streaming in"), "{}", answer.text());
    let answer = stream_in(&garden, "vcap", "/root", &tar);
    let message = answer.error().1;
    assert!(message.contains("error streaming in"), "{message}");
    assert!(message.contains("Permission denied"), "{message}");
    let answer = stream_in(&garden, "", "/tmp/cut", &tar[..tar.len() / 2]);
    assert!(answer.error().1.contains("error streaming in"), "{}", answer.text());
    let answer = stream_in(&garden, "", "/tmp/noise", &[0x5a; 4096]);
    assert!(answer.error().1.contains("error streaming in"), "{}", answer.text());
    let answer = stream_out(&garden, "", "/no/such/file");
    let empty = answer.status() == 200 && answer.body.is_empty();
    assert!(empty || answer.status() == 500, "{} {}", answer.status(), answer.text());
    let answer = stream_out(&garden, "vcap", "/root/");
    let empty = answer.status() == 200 && answer.body.is_empty();
    assert!(empty || answer.status() == 500, "{} {}", answer.status(), answer.text());
    assert_eq!(garden.says("c", "echo alive"), "alive");
    garden.finish();
}

#[test]
fn nothing_leads_out_of_the_container() {
    let garden = Garden::start("escape");
    garden.make("c");
    let root = garden.lab().root.clone();
    let outside = root.join("outside");
    fs::create_dir_all(&outside).expect("outside");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).expect("mode");
    fs::write(outside.join("secret"), "of the host\n").expect("secret");
    let path = outside.to_str().expect("UTF-8");
    garden.says("c", &format!("ln -s {path} /tmp/out; ln -s ../../../../../../.. /tmp/up"));
    let tar = pack(&tree(&garden), &["deep"]);
    for to in ["/tmp/out".to_owned(), format!("/tmp/up{path}"), format!("../../../..{path}")] {
        // Inside the container those are names like any other: refused or made there.
        stream_in(&garden, "", &to, &tar);
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 1, "{to}");
    }
    for from in ["/tmp/out/secret".to_owned(), format!("/tmp/up{path}/secret")] {
        let answer = stream_out(&garden, "", &from);
        let found = answer.body.windows(11).any(|bytes| bytes == b"of the host");
        assert!(!found, "{from}");
    }
    // An archive that climbs by its names, and one that goes through a link of its own.
    let evil = root.join("evil");
    fs::create_dir_all(&evil).expect("evil");
    fs::write(evil.join("file"), "evil\n").expect("file");
    let target = format!("s,^file$,../../../../../../..{path}/climbed,");
    let climbs = Command::new("tar")
        .arg("-C")
        .arg(&evil)
        .args(["-P", "--transform", &target, "-cf", "-", "file"])
        .output()
        .expect("tar");
    stream_in(&garden, "", "/tmp/climb", &climbs.stdout);
    std::os::unix::fs::symlink(path, evil.join("link")).expect("link");
    let through = Command::new("tar")
        .arg("-C")
        .arg(&evil)
        .args(["--transform", "s,^file$,link/through,", "-cf", "-", "link", "file"])
        .output()
        .expect("tar");
    stream_in(&garden, "", "/tmp/through", &through.stdout);
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 1);
    garden.finish();
}

#[test]
fn files_go_in_and_out_of_a_stopped_container() {
    let garden = Garden::start("stopped");
    garden.make("c");
    let tar = pack(&tree(&garden), &["deep"]);
    garden.does("PUT", "/containers/c/stop", Some(&serde_json::json!({"kill": true})));
    assert_eq!(garden.info("c")["State"], "stopped");
    assert_eq!(stream_in(&garden, "", "/tmp/in", &tar).status(), 200);
    let out = stream_out(&garden, "", "/tmp/in/deep/file");
    assert_eq!(names(&out.body), ["file"]);
    garden.finish();
}

#[test]
fn a_client_that_breaks_off_leaves_the_daemon_well() {
    let garden = Garden::start("breaks");
    garden.make("c");
    let head = "PUT /containers/c/files?destination=%2Ftmp%2Fx HTTP/1.1\r\nHost: api\r\n\
                Transfer-Encoding: chunked\r\n\r\n1000\r\nshort";
    for _ in 0..20 {
        let mut wire = Wire::dial(&garden.socket);
        wire.send(head.as_bytes());
        drop(wire);
    }
    let mut wire = Wire::dial(&garden.socket);
    wire.send(b"GET /containers/c/files?source=%2F HTTP/1.1\r\nHost: api\r\n\r\n");
    wire.exactly(100);
    drop(wire);
    assert_eq!(garden.says("c", "echo alive"), "alive");
    garden.destroy("c");
    garden.finish();
}

/// Stops a tar program from inside, as its own user, once it is there.
fn stop_inside(garden: &Garden, role: &str) {
    let script = format!(
        "while :; do for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in \
         {role}*) kill -STOP ${{p#/proc/}} && exit 0;; esac; done; sleep 0.1; done"
    );
    let spec = serde_json::json!({"path": "sh", "args": ["-c", script], "user": "vcap"});
    let ended = garden.run("c", &spec).finish();
    assert_eq!(ended.status, 0, "{ended:?}");
}

#[test]
fn a_tar_program_that_is_stopped_from_inside_is_given_up() {
    let garden = Garden::start("stuck");
    garden.make("c");
    garden.says("c", "dd if=/dev/zero of=/tmp/big bs=1M count=20 2>/dev/null; chmod 644 /tmp/big");
    let mut out = Wire::dial(&garden.socket);
    let path = container("c", "/files?user=vcap&source=%2Ftmp%2Fbig");
    out.send(format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n").as_bytes());
    assert_eq!(out.head().status, 200);
    stop_inside(&garden, "tar-out");
    let mut wire = Wire::dial(&garden.socket);
    let path = container("c", "/files?user=vcap&destination=%2Ftmp%2Fx");
    let head = format!("PUT {path} HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send(head.as_bytes());
    stop_inside(&garden, "tar-in");
    // No more than the pipe and the socket hold: it is the end that is waited for.
    let dir = tree(&garden);
    let tar = pack(&dir, &["deep"]);
    wire.send(format!("{:x}\r\n", tar.len()).as_bytes());
    wire.send(&tar);
    wire.send(b"\r\n0\r\n\r\n");
    assert!(!out.rest().ends_with(b"0\r\n\r\n"), "what came out is not whole, and shows it");
    let answer = wire.answer();
    let said = answer.error().1;
    assert_eq!(answer.status(), 500, "{said}");
    assert!(said.contains("the program that was at it inside did nothing for 30 s"), "{said}");
    assert_eq!(stream_in(&garden, "vcap", "/tmp/x", &tar).status(), 200);
    let left = "grep -l '^State:.*stopped' /proc/[0-9]*/status 2>/dev/null | wc -l";
    super::client::eventually("the stopped programs are gone", || {
        (garden.says("c", left) == "0").then_some(())
    });
    garden.finish();
}

#[test]
fn who_streams_into_a_container_that_is_destroyed_hears_of_it() {
    let garden = Garden::start("tar-gone");
    garden.make("c");
    let mut wire = Wire::dial(&garden.socket);
    let path = container("c", "/files?user=root&destination=/tmp");
    wire.send(
        format!("PUT {path} HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    );
    // The first header of a tar, and no more: both sides wait for the client.
    let tar = pack(&tree(&garden), &["deep"]);
    wire.send(b"200\r\n");
    wire.send(&tar[..512]);
    wire.send(b"\r\n");
    super::client::eventually("it is unpacked", || {
        (garden.sh("c", "test -d /tmp/deep").status == 0).then_some(())
    });
    garden.destroy("c");
    let answer = wire.answer();
    assert_eq!((answer.status(), answer.error().0.as_str()), (404, "ContainerNotFoundError"));
    garden.finish();
}
