//! Cuts a stream of bytes into log lines by Diego's rules.

/// A line of this many bytes is cut; the rest goes on as the next line. Diego's limit.
pub const LINE_MAX: usize = 61_440;

/// Bytes that have not made a line yet.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes the next bytes of the stream and gives every line that they end, in order. Lines end
    /// at `\n` and `\r`; empty ones are dropped.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.0.len();
            let end = bytes.iter().take(room).position(|b| matches!(b, b'\n' | b'\r'));
            let taken = end.unwrap_or(room.min(bytes.len()));
            self.0.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() {
                self.flush(&mut line);
            } else if self.0.len() == LINE_MAX {
                let rest = self.0.split_off(cut(&self.0));
                self.flush(&mut line);
                self.0 = rest;
            }
        }
    }

    /// Gives what is left as a last line.
    pub fn flush(&mut self, mut line: impl FnMut(String)) {
        if !self.0.is_empty() {
            line(String::from_utf8_lossy(&self.0).into_owned());
            self.0.clear();
        }
    }
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
    fn lines_end_at_both_newlines_and_empty_ones_are_dropped() {
        assert_eq!(lines(&[b"a\r\n\nb", b"c\rd"]), ["a", "bc", "d"]);
    }

    #[test]
    fn a_long_line_is_cut_at_the_limit_without_splitting_a_character() {
        let mut long = vec![b'x'; LINE_MAX - 1];
        long.extend_from_slice("é!".as_bytes());
        let out = lines(&[&long]);
        assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX - 1, 3]);
        assert_eq!(out[1], "é!");
        assert_eq!(lines(&[&[b'x'; LINE_MAX + 1]]).len(), 2);
        assert_eq!(lines(&[&[0x80; LINE_MAX + 1]]).len(), 2);
    }
}
