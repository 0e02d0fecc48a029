//! What is in a file: its data, with the holes that the archive tells of.

use crate::unit::sparse::{self, Map, MapText, Segment};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Writes an entry's data, which is `stored` bytes long, into the empty `file`. `UnexpectedEof`: the
/// archive ends within it. `InvalidData`: its map makes no sense.
pub(super) fn write(mut data: impl Read, stored: u64, map: Map, file: &mut File) -> io::Result<()> {
    let (segments, real, stored) = match map {
        Map::None => return copy(&mut data, stored, file),
        Map::Known(segments, real) => (segments, real, stored),
        Map::InData(real) => {
            let (segments, used) = read_map(&mut data)?;
            (segments, real, stored.saturating_sub(used))
        }
    };
    sparse::check(&segments, real, stored).map_err(senseless)?;
    file.set_len(real)?;
    for (offset, len) in segments {
        file.seek(SeekFrom::Start(offset))?;
        copy(&mut data, len, file)?;
    }
    Ok(())
}

/// The map that stands before the data, and its length.
fn read_map(data: &mut impl Read) -> io::Result<(Vec<Segment>, u64)> {
    let (mut text, mut used) = (MapText::default(), 0);
    loop {
        let mut block = [0; 512];
        data.read_exact(&mut block)?;
        used += block.len() as u64;
        if let Some(segments) = text.push(&block).map_err(senseless)? {
            return Ok((segments, used));
        }
    }
}

fn copy(data: &mut impl Read, len: u64, file: &mut File) -> io::Result<()> {
    match io::copy(&mut data.take(len), file)? == len {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn senseless(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it {why}"))
}
