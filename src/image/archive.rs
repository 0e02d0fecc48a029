//! The walk through a tar stream: one entry at a time, in constant memory.

use super::error::UnpackError;
use super::held::Held;
use super::wire::{self, BLOCK, Header, Kind, Pax};
use crate::sys::file::FileTime;
use crate::unit::sparse::{self, Map, MapText, SEGMENTS_MAX, Segment};
use std::io::{self, Read};

/// Longest GNU long name; the kernel takes no more in a path anyway.
const LONG_NAME_MAX: u64 = 64 << 10;
/// Longest block of PAX records.
const PAX_MAX: u64 = 128 << 10;
/// Most extended attributes of all entries, and their bytes together: they are kept to the end.
const GLOBAL_MAX: (usize, usize) = (64, 128 << 10);
/// What describes an entry in so many bytes takes no memory that somebody has to be asked for: nearly
/// all that there is.
const SHORT: usize = 4 << 10;
/// So many times its text takes what is read, and what that becomes: pieces of a file at worst, each of
/// four bytes in a list that is twice as long as it has to be.
const TIMES: usize = 10;
/// Pieces of a file that nobody is asked for, and the bytes that each takes at worst.
const FEW: usize = 256;
const PIECE: usize = 2 * size_of::<Segment>();
/// Most bytes that an archive has without asking.
pub(super) const OWN: usize = 64 << 10;
const _: () = assert!(SHORT * TIMES + FEW * PIECE + 2 * SHORT <= OWN);

/// An entry with everything that was said about it put together.
#[derive(Debug)]
pub struct Entry {
    /// Never one of the kinds that are about another entry.
    pub kind: Kind,
    /// As written.
    pub path: Vec<u8>,
    /// As written; for hard links and symlinks.
    pub link: Vec<u8>,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Last change.
    pub time: FileTime,
    /// Bytes of data in the stream.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For [`Kind::Sparse`]: where the data goes, and the size with holes.
    pub sparse: Option<(Vec<Segment>, u64)>,
}

/// A tar stream.
pub struct Archive<R> {
    stream: R,
    /// Data of the current entry that was not read yet.
    data: u64,
    /// Padding after it.
    padding: u64,
    global: Pax,
    /// Memory for what is said of all entries, and for what is said of this one.
    global_held: Held,
    held: Held,
    headers: u64,
    headers_max: u64,
}

/// What is said about an entry before its own header.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> Archive<R> {
    /// Starts reading; more than `headers_max` headers of any kind are refused.
    pub fn new(stream: R, headers_max: u64) -> Archive<R> {
        let (global, global_held, held) = Default::default();
        Archive { stream, data: 0, padding: 0, global, global_held, held, headers: 0, headers_max }
    }

    /// The next entry, passing over what is left of the last one. `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut ahead = Ahead::default();
        // The last one's.
        self.held = Held::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else {
                if ahead.name.is_some() || ahead.link.is_some() || ahead.pax.is_some() {
                    return Err(UnpackError::archive("ends where an entry is announced"));
                }
                return Ok(None);
            };
            let header = wire::header(&block).map_err(UnpackError::archive)?;
            let twice = || UnpackError::entry(&header.path, "is described twice");
            match header.kind {
                Kind::LongName => {
                    let name = self.long_name(&header)?;
                    ahead.name.replace(name).map_or(Ok(()), |_| Err(twice()))?;
                }
                Kind::LongLink => {
                    let link = self.long_name(&header)?;
                    ahead.link.replace(link).map_or(Ok(()), |_| Err(twice()))?;
                }
                Kind::Pax => {
                    let pax = self.records(&header)?;
                    ahead.pax.replace(pax).map_or(Ok(()), |_| Err(twice()))?;
                }
                Kind::PaxGlobal => {
                    let pax = self.records(&header)?;
                    let has_one = pax.path.is_some() || pax.link.is_some() || pax.size.is_some();
                    if has_one || pax.sparse.has_any() {
                        let why = "gives all entries one name, size or map";
                        return Err(UnpackError::archive(why));
                    }
                    self.remember(pax)?;
                }
                _ => return self.assemble(header, ahead, &block).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let want = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        match self.read(&mut buffer[..want])? {
            0 => Err(UnpackError::archive("ends in the middle of a file")),
            n => {
                self.data -= n as u64;
                Ok(n)
            }
        }
    }

    /// Reads what the stream has; 0 at its end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            match self.stream.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(UnpackError::stream),
            }
        }
    }

    /// Reads the stream to its very end: what follows the archive's own end counts for the digest.
    pub fn drain(mut self) -> Result<(), UnpackError> {
        io::copy(&mut self.stream, &mut io::sink()).map(drop).map_err(UnpackError::stream)
    }

    /// Takes what is said about all further entries; what was said before stays, unless it is said
    /// anew.
    fn remember(&mut self, pax: Pax) -> Result<(), UnpackError> {
        let old = std::mem::replace(&mut self.global, pax);
        let new = &mut self.global;
        new.uid = new.uid.or(old.uid);
        new.gid = new.gid.or(old.gid);
        new.time = new.time.or(old.time);
        add_missing(&mut new.xattrs, &old.xattrs);
        let bytes: usize = new.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if new.xattrs.len() > GLOBAL_MAX.0 || bytes > GLOBAL_MAX.1 {
            let (count, kib) = (GLOBAL_MAX.0, GLOBAL_MAX.1 >> 10);
            let why =
                format!("gives all entries more than {count} extended attributes or {kib} KiB");
            return Err(UnpackError::archive(why));
        }
        self.global_held = Held::default();
        match bytes <= SHORT || self.global_held.take(bytes) {
            true => Ok(()),
            false => Err(UnpackError::no_memory("")),
        }
    }

    /// Takes memory for what is said of the current entry.
    fn hold(&mut self, bytes: usize) -> Result<(), UnpackError> {
        match self.held.take(bytes) {
            true => Ok(()),
            false => Err(UnpackError::no_memory("")),
        }
    }

    /// Puts together what the header, the long names and the PAX records say.
    fn assemble(
        &mut self,
        header: Header,
        ahead: Ahead,
        block: &[u8; BLOCK],
    ) -> Result<Entry, UnpackError> {
        let mut pax = ahead.pax.unwrap_or_default();
        let named = |long: Option<Vec<u8>>, pax: Option<Vec<u8>>, short: Vec<u8>| match (long, pax)
        {
            (Some(_), Some(_)) => Err(UnpackError::entry(&short, "has two long names")),
            (Some(name), None) | (None, Some(name)) => Ok(name),
            (None, None) => Ok(short),
        };
        let path = named(ahead.name, pax.path, header.path)?;
        let link = named(ahead.link, pax.link, header.link)?;
        let path = pax.sparse.name.take().unwrap_or(path);
        let map = pax.sparse.map().map_err(|why| UnpackError::entry(&path, why))?;
        let kind = match header.kind {
            Kind::File if path.ends_with(b"/") => Kind::Directory,
            kind => kind,
        };
        if map != Map::None && kind != Kind::File {
            return Err(UnpackError::entry(&path, "has holes, which its kind cannot have"));
        }
        let size = pax.size.unwrap_or(header.size);
        let size = match kind {
            // GNU and Go agree that a size here says nothing.
            Kind::HardLink => 0,
            Kind::Symlink | Kind::Directory | Kind::Fifo | Kind::Device if size != 0 => {
                return Err(UnpackError::entry(&path, "has data, which its kind cannot have"));
            }
            _ => size,
        };
        let sparse = match kind {
            Kind::Sparse => Some(self.sparse_map(block, size).map_err(|err| err.at(&path))?),
            _ => None,
        };
        self.expect_data(size);
        let sparse = match map {
            Map::None => sparse,
            map => Some(self.pax_map(map).map_err(|err| err.at(&path))?),
        };
        let size = self.data;
        self.hold(self.global_held.bytes())?;
        let mut xattrs = pax.xattrs;
        add_missing(&mut xattrs, &self.global.xattrs);
        Ok(Entry {
            kind,
            path,
            link,
            mode: header.mode,
            uid: pax.uid.or(self.global.uid).unwrap_or(header.uid),
            gid: pax.gid.or(self.global.gid).unwrap_or(header.gid),
            time: pax.time.or(self.global.time).unwrap_or(header.time),
            size,
            xattrs,
            sparse,
        })
    }

    /// The map of a sparse file in PAX form, checked against the data, before which it may stand.
    fn pax_map(&mut self, map: Map) -> Result<(Vec<Segment>, u64), UnpackError> {
        let wrong = |why: &str| UnpackError::archive(why);
        let mut known = (Vec::new(), 0);
        match map {
            Map::None => {}
            Map::Known(segments, real) => known = (segments, real),
            Map::InData(real) => {
                let mut text = MapText::default();
                for read in 0usize.. {
                    // Two bytes are a number, and two numbers a piece.
                    if read >= FEW / (BLOCK / 4) {
                        self.hold(BLOCK / 4 * PIECE)?;
                    }
                    let mut block = [0; BLOCK];
                    let mut filled = 0;
                    while filled < BLOCK {
                        match self.read_data(&mut block[filled..])? {
                            0 => return Err(wrong("is a sparse file whose map is cut off")),
                            n => filled += n,
                        }
                    }
                    if let Some(segments) = text.push(&block).map_err(wrong)? {
                        known = (segments, real);
                        break;
                    }
                }
            }
        }
        let (segments, real) = known;
        sparse::check(&segments, real, self.data).map_err(wrong)?;
        Ok((segments, real))
    }

    /// Reads the map of a GNU sparse file and checks that its pieces are in order, inside the
    /// file, and together as long as the data.
    fn sparse_map(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
    ) -> Result<(Vec<Segment>, u64), UnpackError> {
        let (mut segments, mut more, real) = wire::sparse(block).map_err(UnpackError::archive)?;
        while more {
            let Some(block) = self.raw_block()? else {
                return Err(UnpackError::archive("ends in the middle of a sparse file's map"));
            };
            let (next, further) = wire::sparse_more(&block).map_err(UnpackError::archive)?;
            if segments.len() >= FEW {
                self.hold(next.len() * PIECE)?;
            }
            segments.extend(next);
            more = further;
            if segments.len() > SEGMENTS_MAX {
                let why = format!("holds a sparse file in more than {SEGMENTS_MAX} pieces");
                return Err(UnpackError::archive(why));
            }
        }
        sparse::check(&segments, real, size).map_err(UnpackError::archive)?;
        Ok((segments, real))
    }

    /// A GNU long name without its NUL.
    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.whole(header.size, LONG_NAME_MAX)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn records(&mut self, header: &Header) -> Result<Pax, UnpackError> {
        let data = self.whole(header.size, PAX_MAX)?;
        wire::pax(&data).map_err(UnpackError::archive)
    }

    /// The data of an entry that is about another entry.
    fn whole(&mut self, size: u64, max: u64) -> Result<Vec<u8>, UnpackError> {
        if size > max {
            let why = format!("describes an entry in {size} bytes; {max} are enough for anybody");
            return Err(UnpackError::archive(why));
        }
        if size > SHORT as u64 {
            self.hold((size as usize).saturating_mul(TIMES))?;
        }
        self.expect_data(size);
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn expect_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Passes over the rest of the current entry. Its data must be whole; the padding of the last
    /// entry may be missing, as in what `umoci insert` writes.
    fn skip_data(&mut self) -> Result<(), UnpackError> {
        let mut scratch = [0u8; 16 << 10];
        while self.read_data(&mut scratch)? > 0 {}
        let mut padding = std::mem::take(&mut self.padding) as usize;
        while padding > 0 {
            match self.read(&mut scratch[..padding])? {
                0 => break,
                n => padding -= n,
            }
        }
        Ok(())
    }

    /// The next header block; `None` at the end, which is two zero blocks, or one, or nothing
    /// more after an entry's data, as all three are found in practice.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        self.headers += 1;
        if self.headers > self.headers_max {
            let why = format!("has more than {} entries", self.headers_max);
            return Err(UnpackError::archive(why));
        }
        match self.raw_block()? {
            Some(block) if wire::is_end(&block) => match self.raw_block()? {
                Some(second) if !wire::is_end(&second) => {
                    Err(UnpackError::archive("goes on after a block that ends it"))
                }
                _ => Ok(None),
            },
            other => Ok(other),
        }
    }

    /// The next 512 bytes; `None` when there is not even one more.
    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(UnpackError::archive("ends in the middle of a header")),
                n => filled += n,
            }
        }
        Ok(Some(block))
    }
}

/// Adds those of `more` whose names are not there.
fn add_missing(xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>, more: &[(Vec<u8>, Vec<u8>)]) {
    for (name, value) in more {
        if !xattrs.iter().any(|(own, _)| own == name) {
            xattrs.push((name.clone(), value.clone()));
        }
    }
}
