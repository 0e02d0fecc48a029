//! Cuts a stream of bytes into log lines by Diego's rules.

/// A line of this many bytes is cut; the rest goes on as the next line. Diego's limit.
pub const LINE_MAX: usize = 61_440;

/// Bytes that have not made a line yet.
#[derive(Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// What comes up to the next end of a line belongs to one that was dropped.
    torn: bool,
}

impl Lines {
    /// Takes the next bytes of the stream and gives every line that they end, in order. Lines end
    /// at `\n` and `\r`; empty ones are dropped.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        if self.torn {
            let Some(end) = bytes.iter().position(is_end) else { return };
            bytes = &bytes[end + 1..];
            self.torn = false;
        }
        while !bytes.is_empty() {
            let room = LINE_MAX - self.begun.len();
            let end = bytes.iter().take(room).position(is_end);
            let taken = end.unwrap_or(room.min(bytes.len()));
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() {
                self.flush(&mut line);
            } else if self.begun.len() == LINE_MAX {
                let rest = self.begun.split_off(cut(&self.begun));
                self.flush(&mut line);
                self.begun = rest;
            }
        }
    }

    /// Drops the next bytes of the stream and every line that they end, begin or go on with.
    pub fn skip(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.begun.clear();
            self.torn = !is_end(last);
        }
    }

    /// Gives what is left as a last line.
    pub fn flush(&mut self, mut line: impl FnMut(String)) {
        if !self.begun.is_empty() {
            line(String::from_utf8_lossy(&self.begun).into_owned());
            self.begun.clear();
        }
    }
}

fn is_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Where to cut a full line so that no UTF-8 sequence is split: up to 3 bytes before its end.
fn cut(line: &[u8]) -> usize {
    let len = line.len();
    let back = line.iter().rev().take(4).position(|b| b & 0xc0 != 0x80);
    match back {
        // The last character's first byte, `back + 1` bytes from the end: whole or split?
        Some(back) => {
            let first = line[len - 1 - back];
            let width = match first {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf7 => 4,
                _ => 1,
            };
            if width > back + 1 { len - 1 - back } else { len }
        }
        None => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut cutter, mut out) = (Lines::default(), Vec::new());
        chunks.iter().for_each(|chunk| cutter.push(chunk, |line| out.push(line)));
        cutter.flush(|line| out.push(line));
        out
    }

    #[test]
    fn row_53_what_is_skipped_takes_its_whole_lines_along_and_no_other() {
        let (mut cutter, mut out) = (Lines::default(), Vec::new());
        cutter.push(b"one\ntw", |line| out.push(line));
        cutter.skip(b"o\nthree\nfo");
        cutter.skip(b"");
        cutter.push(b"u", |line| out.push(line));
        cutter.push(b"r\nfive\nsi", |line| out.push(line));
        cutter.skip(b"x\n");
        cutter.push(b"seven\nei", |line| out.push(line));
        cutter.skip(b"gh");
        cutter.flush(|line| out.push(line));
        assert_eq!(out, ["one", "five", "seven"]);
    }

    #[test]
    fn row_52_lines_end_at_both_newlines_and_empty_ones_are_dropped() {
        assert_eq!(lines(&[b"a\r\n\nb", b"c\rd"]), ["a", "bc", "d"]);
    }

    #[test]
    fn row_52_a_long_line_is_cut_at_the_limit_without_splitting_a_character() {
        let mut long = vec![b'x'; LINE_MAX - 1];
        long.extend_from_slice("é!".as_bytes());
        let out = lines(&[&long]);
        assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX - 1, 3]);
        assert_eq!(out[1], "é!");
        // Wherever the limit falls in a character of four bytes, it stays whole.
        for before in LINE_MAX - 4..=LINE_MAX {
            let mut long = vec![b'x'; before];
            long.extend_from_slice("🦀!".as_bytes());
            let out = lines(&[&long[..100], &long[100..]]);
            let first = if before == LINE_MAX - 4 { LINE_MAX } else { before };
            assert_eq!(out[0].len(), first, "{before}");
            assert_eq!(out.concat().as_bytes(), long, "{before}");
        }
        assert_eq!(lines(&[&[b'x'; LINE_MAX + 1]]).len(), 2);
        assert_eq!(lines(&[&[0x80; LINE_MAX + 1]]).len(), 2);
    }
}
