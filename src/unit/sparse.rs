//! Files with holes as GNU tar writes them in PAX form (`--sparse --format=pax`), versions 0.0, 0.1
//! and 1.0: which bytes of the file the entry's data are.
//!
//! | version | where the map is |
//! |---|---|
//! | 0.0 | records `GNU.sparse.offset` and `.numbytes`, in turn, for each piece |
//! | 0.1 | record `GNU.sparse.map`: `offset,length,offset,length` |
//! | 1.0 | before the data: number of pieces, then offset and length of each, a decimal on each line, padded to blocks of 512 |

/// Most pieces of a file.
pub const SEGMENTS_MAX: usize = 65_536;

/// Of a tar's headers, and of what data and maps are padded to.
const BLOCK: usize = 512;

/// Where a piece begins in the file, and its length, in bytes.
pub type Segment = (u64, u64);

/// What the `GNU.sparse.*` records of one entry say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseRecords {
    /// The file's name; the entry's own is made up.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    segments: Vec<Segment>,
    /// An offset whose length has not come yet.
    offset: Option<u64>,
    major: u64,
    has_any: bool,
}

/// Where the map of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Map {
    /// The entry is no such file.
    None,
    /// These pieces, of a file of this size.
    Known(Vec<Segment>, u64),
    /// Before the data, of a file of this size: read it with [`MapText`].
    InData(u64),
}

const BROKEN: &str = "is a sparse file whose description cannot be read";

/// A file in more than [`SEGMENTS_MAX`] pieces.
const SHREDDED: &str = "is a sparse file in more than 65536 pieces";

impl SparseRecords {
    /// Takes one record, `key` without its `GNU.sparse.`.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.has_any = true;
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"major" => self.major = number(value)?,
            b"offset" => match self.offset.replace(number(value)?) {
                None => {}
                Some(_) => return Err(BROKEN),
            },
            b"numbytes" => {
                let offset = self.offset.take().ok_or(BROKEN)?;
                self.push((offset, number(value)?))?;
            }
            b"map" => {
                // What 0.0 says beside it says the same.
                self.segments.clear();
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(offset) = numbers.next().filter(|offset| !offset.is_empty()) {
                    let length = numbers.next().ok_or(BROKEN)?;
                    self.push((number(offset)?, number(length)?))?;
                }
            }
            // How many there are, the minor version.
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, segment: Segment) -> Result<(), &'static str> {
        if self.segments.len() == SEGMENTS_MAX {
            return Err(SHREDDED);
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Whether there was any such record.
    pub fn has_any(&self) -> bool {
        self.has_any
    }

    /// Where the map is.
    pub fn map(&mut self) -> Result<Map, &'static str> {
        match (self.has_any, self.major, self.size, self.offset) {
            (false, ..) => Ok(Map::None),
            (true, 0, Some(size), None) => Ok(Map::Known(std::mem::take(&mut self.segments), size)),
            (true, 1, Some(size), None) => Ok(Map::InData(size)),
            (true, 2.., ..) => Err("is a sparse file in a form that is newer than GNU's 1.0"),
            _ => Err(BROKEN),
        }
    }
}

/// The map of version 1.0 as it is read, block by block.
#[derive(Debug, Default)]
pub struct MapText {
    /// How many pieces there are, once that is known.
    count: Option<usize>,
    offset: Option<u64>,
    segments: Vec<Segment>,
    /// A number that its block has cut, or that is not at its end.
    digits: Vec<u8>,
}

impl MapText {
    /// Takes the next block; `Some`: it was the last one, and here are the pieces.
    pub fn push(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Segment>>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.digits.len() == 20 {
                    return Err(BROKEN);
                }
                self.digits.push(byte);
                continue;
            }
            let found = number(&std::mem::take(&mut self.digits))?;
            match (self.count, self.offset.take()) {
                (None, _) if found > SEGMENTS_MAX as u64 => return Err(SHREDDED),
                (None, _) => self.count = Some(found as usize),
                (Some(_), None) => self.offset = Some(found),
                (Some(_), Some(offset)) => self.segments.push((offset, found)),
            }
            if self.count == Some(self.segments.len()) && self.offset.is_none() {
                return Ok(Some(std::mem::take(&mut self.segments)));
            }
        }
        Ok(None)
    }
}

/// Checks that pieces are in order, inside a file of `size` bytes, and together `stored` long.
pub fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut reached, mut sum) = (0u64, 0u64);
    for &(offset, len) in segments {
        match offset.checked_add(len).filter(|end| *end <= size) {
            Some(end) if offset >= reached => reached = end,
            _ => return Err("is a sparse file with a senseless map"),
        }
        sum = sum.saturating_add(len);
    }
    match sum == stored {
        true => Ok(()),
        false => Err("is a sparse file whose map and data differ"),
    }
}

fn number(digits: &[u8]) -> Result<u64, &'static str> {
    // `parse` alone would take a `+` too.
    let text = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(all: &[(&str, &str)]) -> Result<Map, &'static str> {
        let mut records = SparseRecords::default();
        for (key, value) in all {
            records.take(key.as_bytes(), value.as_bytes())?;
        }
        records.map()
    }

    #[test]
    fn each_version_has_its_map_in_a_place_of_its_own() {
        assert_eq!(records(&[]), Ok(Map::None));
        let known = Ok(Map::Known(vec![(0, 5), (10, 2)], 20));
        let old = [("size", "20"), ("numblocks", "2"), ("offset", "0"), ("numbytes", "5")];
        let old = [&old[..], &[("offset", "10"), ("numbytes", "2")]].concat();
        assert_eq!(records(&old), known);
        assert_eq!(records(&[("size", "20"), ("map", "0,5,10,2")]), known);
        let new = [("major", "1"), ("minor", "0"), ("realsize", "20"), ("name", "f")];
        assert_eq!(records(&new), Ok(Map::InData(20)));
        for bad in [
            &[("map", "0,5")][..],
            &[("size", "20"), ("map", "0,5,10")],
            &[("size", "20"), ("numbytes", "5")],
            &[("size", "20"), ("offset", "5")],
            &[("size", "+1")],
            &[("major", "2"), ("realsize", "1")],
        ] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
        let many = "0,0,".repeat(SEGMENTS_MAX + 1);
        assert_eq!(records(&[("size", "1"), ("map", &many)]), Err(SHREDDED));
    }

    #[test]
    fn a_map_before_the_data_may_be_longer_than_a_block() {
        let segments: Vec<Segment> = (0..100).map(|n| (n * 4096, 512)).collect();
        let mut text = format!("{}\n", segments.len());
        for (offset, len) in &segments {
            text.push_str(&format!("{offset}\n{len}\n"));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut map = MapText::default();
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        let (last, first) = blocks.split_last().expect("blocks");
        assert!(first.len() > 1);
        assert!(first.iter().all(|block| map.push(block) == Ok(None)));
        assert_eq!(map.push(last), Ok(Some(segments)));
        let block = |text: &str| {
            let mut block = [0; BLOCK];
            block[..text.len()].copy_from_slice(text.as_bytes());
            block
        };
        assert_eq!(MapText::default().push(&block("0\n")), Ok(Some(Vec::new())));
        for bad in ["x\n", "99999999\n", "1\n-1\n5\n", "no number and no end of it"] {
            assert!(MapText::default().push(&block(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn pieces_are_in_order_inside_and_as_long_as_the_data() {
        assert_eq!(check(&[(0, 5), (10, 2), (20, 0)], 20, 7), Ok(()));
        for (bad, stored) in
            [(&[(0, 5), (4, 1)][..], 6), (&[(19, 2)], 2), (&[(u64::MAX, 2)], 2), (&[(0, 5)], 6)]
        {
            assert!(check(bad, 20, stored).is_err(), "{bad:?}");
        }
    }
}
