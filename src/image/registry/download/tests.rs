//! What comes over bad links, and from servers that lie.

use super::*;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use ureq::Body;

const PACE: Pace = Pace { window: Duration::from_secs(3600), least: 0 };

struct Bed {
    dir: PathBuf,
    data: Vec<u8>,
}

impl Bed {
    fn new(name: &str, length: usize) -> Bed {
        let dir = std::env::temp_dir().join(format!("download-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let data = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        Bed { dir, data }
    }

    fn wanted(&self) -> Wanted<'static> {
        let digest = Some(Digest::of(&self.data));
        Wanted { digest, size: Some(self.data.len() as u64), advice: None }
    }

    /// What a server gives from `from` on: at most `most` bytes on a connection.
    fn piece(&self, from: u64, most: usize) -> Piece {
        let rest = &self.data[from as usize..];
        let body = Body::builder().data(rest[..rest.len().min(most)].to_vec()).into_reader();
        let uri = "https://a.lan/b".parse().expect("uri");
        let length = Some(rest.len() as u64);
        Piece { from, length, etag: None, modified: None, body, uri, is_past_end: false }
    }

    fn part(&self) -> PathBuf {
        self.dir.join("part")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn all(mut download: Download<'_>) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    match download.read_to_end(&mut data) {
        Ok(_) => {
            download.kept().forget();
            Ok(data)
        }
        Err(err) => Err(failure_in(&err).expect("a failure")),
    }
}

#[test]
fn broken_connections_are_gone_on_with() {
    let bed = Bed::new("again", 1 << 20);
    let asked = AtomicU32::new(0);
    let open = |from, _: Option<&str>| {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(bed.piece(from, 100_000))
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
    assert_eq!(asked.into_inner(), 11);
    assert!(!bed.part().exists());
}

#[test]
fn what_came_before_is_not_asked_for_again() {
    let bed = Bed::new("before", 300_000);
    std::fs::write(bed.part(), &bed.data[..200_000]).expect("write");
    let first = std::sync::Mutex::new(Vec::new());
    let open = |from, _: Option<&str>| {
        first.lock().expect("lock").push(from);
        Ok(bed.piece(from, usize::MAX))
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
    assert_eq!(first.into_inner().expect("list"), [200_000]);
}

#[test]
fn of_what_comes_in_a_moment_the_beginning_is_kept_and_all_of_what_does_not() {
    let bed = Bed::new("moment", 8 << 20);
    let length = || std::fs::metadata(bed.part()).map_or(0, |meta| meta.len());
    let open = |from, _: Option<&str>| Ok(bed.piece(from, usize::MAX));
    let mut whole = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert_eq!(io::copy(&mut whole, &mut io::sink()).expect("data"), 8 << 20);
    assert!((JUDGED..8 << 20).contains(&length()), "{}", length());
    let mut kept = whole.kept();
    kept.forget_quick();
    assert!(!bed.part().exists());

    let asked = std::sync::Mutex::new(Vec::new());
    let open = |from, _: Option<&str>| {
        asked.lock().expect("lock").push(from);
        // It breaks off while nothing is kept; then again, and now all is.
        Ok(bed.piece(from, 3 << 20))
    };
    let mut broken = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    let mut data = Vec::new();
    broken.read_to_end(&mut data).expect("data");
    assert!(data == bed.data && std::fs::read(bed.part()).expect("kept") == bed.data);
    let asked = asked.lock().expect("lock").clone();
    assert!((JUDGED..3 << 20).contains(&asked[1]), "{asked:?}");
    assert_eq!(asked[2..], [asked[1] + (3 << 20), asked[1] + (6 << 20)][..asked.len() - 2]);
}

#[test]
fn a_part_that_is_longer_than_the_blob_is_thrown_away() {
    let bed = Bed::new("long", 300_000);
    std::fs::write(bed.part(), [&bed.data[..], b"more"].concat()).expect("write");
    let asked = std::sync::Mutex::new(Vec::new());
    let open = |from, _: Option<&str>| {
        asked.lock().expect("lock").push(from);
        Ok(bed.piece(from, usize::MAX))
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
    assert_eq!(asked.into_inner().expect("list"), [0]);
}

#[test]
fn a_server_without_ranges_is_read_from_its_beginning() {
    let bed = Bed::new("whole", 300_000);
    std::fs::write(bed.part(), &bed.data[..200_000]).expect("write");
    let open = |_, _: Option<&str>| Ok(bed.piece(0, usize::MAX));
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
}

#[test]
fn lies_are_found_out_and_leave_nothing() {
    let bed = Bed::new("lies", 1000);
    let told = |wanted: Wanted<'static>, other: Option<Vec<u8>>| {
        let open = |from, _: Option<&str>| {
            let mut piece = bed.piece(from, usize::MAX);
            if let Some(other) = &other {
                piece.length = None;
                piece.body = Body::builder().data(other.clone()).into_reader();
            }
            Ok(piece)
        };
        let download = Download::new(&bed.part(), wanted, PACE, open).expect("new");
        all(download).expect_err("a lie")
    };
    let wanted = bed.wanted();
    let damaged = told(wanted, Some(vec![7; 1000]));
    assert!(damaged.kind == Kind::Mismatch && !bed.part().exists(), "{damaged}");
    let long = told(wanted, Some(vec![7; 1001]));
    assert!(long.text.contains("more bytes came") && !bed.part().exists(), "{long}");
    assert_eq!(long.kind, Kind::Mismatch);
    let short = told(Wanted { size: Some(999), ..wanted }, None);
    assert_eq!(short.kind, Kind::Wrong);
    let text = short.text;
    assert_eq!(text, "https://a.lan/b has 1000 bytes, its descriptor says 999");
}

#[test]
fn a_server_that_knows_nothing_behind_a_part_is_asked_for_all_once() {
    let bed = Bed::new("past", 1000);
    let asked = std::sync::Mutex::new(Vec::new());
    let past = |from| Piece { length: Some(0), is_past_end: true, ..bed.piece(from, 0) };
    let tried = |is_odd: bool| {
        std::fs::write(bed.part(), &bed.data[..600]).expect("write");
        let open = |from, _: Option<&str>| {
            asked.lock().expect("lock").push(from);
            Ok(if from == 0 && !is_odd { bed.piece(0, usize::MAX) } else { past(from) })
        };
        all(Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new"))
    };
    assert!(tried(false).expect("data") == bed.data);
    assert!(tried(true).is_err());
    assert_eq!(asked.into_inner().expect("list"), [600, 0, 600, 0]);
}

/// The pause is far longer than any test.
#[test]
fn a_wait_ends_when_nobody_wants_it_any_more() {
    let bed = Bed::new("unwanted", 10);
    let given_up = AtomicBool::new(false);
    let open = |_, _: Option<&str>| {
        given_up.store(true, Ordering::Relaxed);
        Err(Failure { after: Some(Duration::from_secs(60)), ..Failure::passing("busy") })
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    let is_over = || given_up.load(Ordering::Relaxed);
    assert_eq!(all(download.until(&is_over)).expect_err("busy").text, "busy");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let bed = Bed::new("never", 10);
    let asked = AtomicU32::new(0);
    let open = |_, _: Option<&str>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let after = Some(Duration::from_secs(3600));
        Err(Failure { after, ..Failure::passing("busy") })
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert_eq!(all(download).expect_err("busy").text, "busy");
    assert_eq!(asked.into_inner(), 1);
}

/// Whoever reads on does not hear that the rest is something else.
#[test]
fn what_cannot_be_kept_is_the_disks_fault_and_stays_so() {
    let bed = Bed::new("unkept", 300_000);
    std::fs::write(bed.part(), b"").expect("write");
    let open = |from, _: Option<&str>| Ok(bed.piece(from, usize::MAX));
    let mut download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    download.part = Part::broken(&bed.part());
    let mut buffer = [0; 1000];
    let first = download.read(&mut buffer).expect_err("not kept");
    assert!(first.raw_os_error().is_some() && failure_in(&first).is_none(), "{first}");
    for _ in 0..2 {
        let again = failure_in(&download.read(&mut buffer).expect_err("not kept")).expect("why");
        assert_eq!(again.kind, Kind::Here, "{again}");
        assert!(again.text.starts_with("what comes cannot be kept: "), "{again}");
    }
}

/// What a registry of the first version says of a layer tells whether old and new belong together; where
/// all came as one, it may be wrong.
#[test]
fn advice_counts_where_two_times_meet() {
    let bed = Bed::new("advice", 300_000);
    let right = Digest::of(&[b"{}\n", &bed.data[..]].concat());
    let try_with = |sum: Digest, kept: Option<&[u8]>, has_ranges: bool| {
        let _ = std::fs::remove_file(bed.part());
        if let Some(kept) = kept {
            std::fs::write(bed.part(), kept).expect("write");
        }
        let advice = Advice { before: Sha256::new_with_prefix(b"{}\n"), sums: vec![sum] };
        let wanted = Wanted { digest: None, size: None, advice: Some(&advice) };
        let open =
            |from, _: Option<&str>| Ok(bed.piece(if has_ranges { from } else { 0 }, usize::MAX));
        let all = all(Download::new(&bed.part(), wanted, PACE, open).expect("new"));
        all.map(|data| data == bed.data).map_err(|err| (err.kind, bed.part().exists()))
    };
    let wrong = Digest::of(b"another");
    assert_eq!(try_with(right, None, true), Ok(true));
    assert_eq!(try_with(wrong, None, true), Ok(true), "it is only said");
    assert_eq!(try_with(right, Some(&bed.data[..1000]), true), Ok(true));
    assert_eq!(try_with(right, Some(&bed.data[..1000]), false), Ok(true));
    let refused = Err((Kind::Mismatch, false));
    assert_eq!(try_with(right, Some(&[9; 1000]), true), refused);
    assert_eq!(try_with(wrong, Some(&bed.data[..1000]), true), refused);
}

/// A byte at a time is no standstill, and nothing to wait for either.
#[test]
fn a_drip_is_left() {
    let bed = Bed::new("drip", 1000);
    let asked = AtomicU32::new(0);
    let pace = Pace { window: Duration::ZERO, least: 10 };
    let open = |from, _: Option<&str>| {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(bed.piece(from, 5))
    };
    let wish = AtomicBool::new(false);
    let is_over = || wish.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) > 1;
    let download = Download::new(&bed.part(), bed.wanted(), pace, open).expect("new");
    let slow = all(download.until(&is_over)).expect_err("slow");
    assert!(slow.text.starts_with("https://a.lan/b gave 5 bytes in 0 s, which"), "{slow}");
}

const BARE: Wanted<'static> = Wanted { digest: None, size: None, advice: None };

/// What was asked for: from which byte, as it was before with what.
type Asked = std::sync::Mutex<Vec<(u64, Option<String>)>>;

/// One try, as after a restart, of what nobody names: the server gives this blob, `most` bytes on its only
/// connection, and tells it by `etag`. It looks at no `If-Range` where it `is_careless`.
fn tried(
    bed: &Bed,
    data: &[u8],
    (most, etag, is_careless): (usize, Option<&str>, bool),
    asked: &Asked,
) -> Result<Vec<u8>, Kind> {
    let own = Bed { dir: bed.dir.join("none"), data: data.to_vec() };
    let (over, etag) = (AtomicBool::new(false), etag.map(str::to_owned));
    let open = |from: u64, as_before: Option<&str>| {
        // Where it breaks off the daemon goes, too.
        over.store(most < data.len(), Ordering::Relaxed);
        asked.lock().expect("lock").push((from, as_before.map(str::to_owned)));
        let is_same = is_careless || as_before == etag.as_deref();
        Ok(Piece { etag: etag.clone(), ..own.piece(if is_same { from } else { 0 }, most) })
    };
    let is_over = || over.load(Ordering::Relaxed);
    let download = Download::new(&bed.part(), BARE, PACE, open).expect("new");
    all(download.until(&is_over)).map_err(|failure| failure.kind)
}

#[test]
fn what_nothing_names_is_gone_on_with_at_every_byte_by_what_its_server_tells_it_by() {
    for (length, every) in [(150, 1), (300, 7), (300_000, 40_961)] {
        let bed = Bed::new("bare", length);
        let asked = Asked::default();
        let server = (every, Some("\"a\""), false);
        let data = loop {
            match tried(&bed, &bed.data, server, &asked) {
                Ok(data) => break data,
                Err(kind) => assert_eq!(kind, Kind::Passing),
            }
        };
        assert!(data == bed.data, "{every}");
        let expected: Vec<_> = (0..length.div_ceil(every))
            .map(|at| ((at * every) as u64, (at > 0).then(|| "\"a\"".to_owned())))
            .collect();
        assert_eq!(asked.into_inner().expect("list"), expected, "{every}");
        assert!(!bed.part().exists());
    }
}

#[test]
fn of_what_nothing_names_only_bytes_of_one_blob_are_put_together() {
    let bed = Bed::new("bareother", 1000);
    let other: Vec<u8> = bed.data.iter().map(|byte| byte ^ 1).collect();
    let begin = |etag: Option<&str>| {
        let _ = std::fs::remove_file(bed.part());
        let first = tried(&bed, &bed.data, (400, etag, false), &Asked::default());
        assert_eq!(first, Err(Kind::Passing));
    };
    let (one, two) = (Some("\"a\""), Some("\"b\""));
    // Without anything to tell it by, nothing is kept.
    begin(None);
    assert!(!bed.part().exists());
    // Another one, told by something else: all of it is asked for once more, and nothing of the first is left.
    for (etag, is_careless) in [(two, false), (two, true), (None, true)] {
        begin(one);
        let asked = Asked::default();
        let second = tried(&bed, &other, (usize::MAX, etag, is_careless), &asked);
        assert_eq!((second, bed.part().exists()), (Err(Kind::Mismatch), false), "{etag:?}");
        let first = asked.into_inner().expect("list")[0].clone();
        assert_eq!(first, (400, one.map(str::to_owned)));
        let third = tried(&bed, &other, (usize::MAX, etag, is_careless), &Asked::default());
        assert!(third.expect("all of it") == other);
    }
    // The same one under another name: it begins with what was given out.
    begin(one);
    let same = tried(&bed, &bed.data, (usize::MAX, two, false), &Asked::default());
    assert!(same.expect("the same") == bed.data);
    // It has another length.
    begin(one);
    let longer = [&other[..], b"more"].concat();
    let second = tried(&bed, &longer, (usize::MAX, two, false), &Asked::default());
    assert_eq!((second, bed.part().exists()), (Err(Kind::Mismatch), false));
}

/// As long as it was, and zeros: what a power cut leaves of what never came to the disk.
#[test]
fn what_nothing_names_begins_anew_in_another_run_of_the_box() {
    const BESIDE: &std::ffi::CStr = c"user.terrarium.validator";
    let bed = Bed::new("bareboot", 1000);
    let server = (400, Some("\"a\""), false);
    assert_eq!(tried(&bed, &bed.data, server, &Asked::default()), Err(Kind::Passing));
    let file = std::fs::File::options().write(true).open(bed.part()).expect("part");
    let beside = crate::sys::file::xattr(file.as_fd(), BESIDE).expect("read").expect("beside it");
    let beside = String::from_utf8(beside).expect("text");
    let (boot, own) = beside.split_once('\n').expect("two parts");
    let real = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("boot id");
    assert_eq!(boot, real.trim());
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 400], 0).expect("damaged");
    let other = format!("11111111-2222-3333-4444-555555555555\n{own}");
    crate::sys::file::set_xattr(file.as_fd(), BESIDE, other.as_bytes()).expect("written");
    let asked = Asked::default();
    let whole = tried(&bed, &bed.data, (usize::MAX, Some("\"a\""), false), &asked);
    assert!(whole.expect("all of it") == bed.data);
    assert_eq!(asked.into_inner().expect("list"), [(0, None)]);
    // What a digest names goes on: it shows in the end what came.
    std::fs::write(bed.part(), &bed.data[..400]).expect("write");
    let file = std::fs::File::open(bed.part()).expect("part");
    crate::sys::file::set_xattr(file.as_fd(), BESIDE, other.as_bytes()).expect("written");
    let open = |from, _: Option<&str>| {
        assert_eq!(from, 400);
        Ok(bed.piece(from, usize::MAX))
    };
    let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
}

/// On one connection after the other, of a server that tells nothing: each begins anew, and gives a little more.
#[test]
fn what_begins_as_before_is_gone_on_with_in_one_try() {
    let bed = Bed::new("barewhole", 1000);
    let opened = AtomicU32::new(0);
    let open = |from, as_before: Option<&str>| {
        assert_eq!((from, as_before), (0, None));
        let most = 300 * (1 + opened.fetch_add(1, Ordering::Relaxed) as usize);
        Ok(Piece { length: None, ..bed.piece(0, most) })
    };
    let wanted = Wanted { size: Some(1000), ..BARE };
    let download = Download::new(&bed.part(), wanted, PACE, open).expect("new");
    assert!(all(download).expect("data") == bed.data);
    assert_eq!(opened.into_inner(), 4);
}
