//! Many files, and a large one.

use super::*;
use std::io::Read;

/// More than eleven octal digits can say.
const LARGE: u64 = (8 << 30) + 5;

/// Zeros, the last byte of `LARGE` of them a one, in a tar between `head` and its end.
struct Zeros {
    head: io::Cursor<Vec<u8>>,
    left: u64,
    after: io::Cursor<Vec<u8>>,
}

impl Zeros {
    fn new(head: Vec<u8>) -> Zeros {
        let padding = LARGE.next_multiple_of(512) - LARGE;
        let after = [&vec![0; padding as usize][..], &Tar::default().file("after", "ok").end()];
        let (head, after) = (io::Cursor::new(head), io::Cursor::new(after.concat()));
        Zeros { head, left: LARGE, after }
    }
}

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 if self.left > 0 => {}
            0 => return self.after.read(buffer),
            n => return Ok(n),
        }
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        buffer[..n].fill(0);
        self.left -= n as u64;
        if self.left == 0 {
            buffer[n - 1] = 1;
        }
        Ok(n)
    }
}

#[test]
fn a_file_of_eight_gib_of_zeros_takes_no_room() {
    with_store("eightgib", |_, store| {
        let base256 = Tar::default().raw(b'0', b"large", b"", |block| {
            block[124..136].copy_from_slice(&u128::from(LARGE).to_be_bytes()[4..]);
            block[124] |= 0x80;
        });
        let pax = Tar::default().pax(&[("size", LARGE.to_string().as_bytes())]);
        let pax = pax.raw(b'0', b"large", b"", |block| {
            block[124..135].copy_from_slice(b"77777777777");
        });
        for (what, head) in [("base 256", base256), ("PAX", pax)] {
            let dir = empty(store, "h");
            let summary = unpack(&mut Zeros::new(head.0), &dir, &Options::default()).expect(what);
            assert_eq!((summary.made, summary.bytes), (2, LARGE + 2), "{what}");
            let meta = fs::metadata(dir.join("large")).expect(what);
            assert_eq!(meta.len(), LARGE, "{what}");
            assert!(meta.blocks() * 512 < 1 << 20, "{what}: {} blocks", meta.blocks());
            let mut end = [0; 2];
            let file = fs::File::open(dir.join("large")).expect(what);
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, LARGE - 2).expect(what);
            assert_eq!(end, [0, 1], "{what}");
        }
    });
}

/// Where holes come and go, at all borders: the content is the same, and so is the digest.
#[test]
fn holes_are_zeros() {
    with_store("holes", |lab, store| {
        let hole = 64 << 10;
        let mut data: Vec<u8> = Vec::new();
        for (zeros, ones) in [(hole, 1), (hole - 1, hole), (3 * hole + 7, 2), (1, 1), (5 * hole, 0)]
        {
            data.resize(data.len() + zeros, 0);
            data.resize(data.len() + ones, 0xa5);
        }
        let tar = Tar::default()
            .file("before", "x")
            .raw(b'0', b"holes", &data, |_| ())
            .raw(b'0', b"all", &vec![0; 2 * hole], |_| ())
            .raw(b'0', b"few", &vec![0; hole - 1], |_| ())
            .file("after", "y")
            .end();
        let archive = lab.dir.join("holes.tar.gz");
        gzip(&tar, &archive);
        let chain = import_stack(store, &archive, &mut |_, _| ()).expect("import");
        assert_eq!(chain, Digest::of(&tar), "what is hashed is what came");
        let layer = store.layer(&chain).expect("layer");
        assert!(fs::read(layer.join("holes")).expect("read") == data);
        assert!(fs::read(layer.join("all")).expect("read") == vec![0; 2 * hole]);
        assert!(fs::read(layer.join("few")).expect("read") == vec![0; hole - 1]);
        let blocks = |name: &str| fs::metadata(layer.join(name)).expect("stat").blocks() * 512;
        assert_eq!(blocks("all"), 0);
        assert!(blocks("holes") < data.len() as u64 / 2, "{}", blocks("holes"));
    });
}

#[test]
fn a_hundred_thousand_files_are_a_layer_like_any_other() {
    const FILES: usize = 100_000;
    with_store("manyfiles", |lab, store| {
        let name = |n: usize| format!("d{:02}/s{}/file-{n}", n % 50, n % 7);
        let tar = (0..FILES).fold(Tar::default(), |tar, n| tar.file(&name(n), &n.to_string()));
        let tar = tar.end();
        let archive = lab.dir.join("many.tar.zst");
        zstd(&tar, &archive);
        let chain = import_stack(store, &archive, &mut |_, _| ()).expect("import");
        assert_eq!(chain, Digest::of(&tar));
        let layer = store.layer(&chain).expect("layer");
        let count = run("sh", &["-c", "find \"$0\" -type f | wc -l", text(&layer)]);
        assert_eq!(count.trim(), FILES.to_string());
        for n in [0, 1, 12_345, FILES - 1] {
            assert_eq!(fs::read_to_string(layer.join(name(n))).expect("read"), n.to_string());
        }
        // And it goes again.
        store.remove_layer(&chain).expect("remove");
        assert_eq!(store.layers().expect("layers"), []);
    });
}
