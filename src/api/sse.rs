//! Server-sent events on the wire: fields of one event, a line each, then an empty line. Pure.
//!
//! Source: HTML Living Standard, 9.2 Server-sent events.

/// One event as text. `data` has no line break.
pub fn encode(id: Option<&str>, event: &str, data: &str) -> Vec<u8> {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {event}\ndata: {data}\n\n").into_bytes()
}

/// An event that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Its id, where it has one.
    pub id: Option<String>,
    /// Its kind.
    pub event: String,
    /// Its payload.
    pub data: String,
}

/// Longest event that is read, in bytes.
const EVENT_MAX: usize = 4 << 20;

/// Takes a stream apart as it comes.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    now: Read,
}

impl Decoder {
    /// The events that are whole with these bytes. `Err`: one is longer than any that is sent.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Read>, String> {
        self.bytes.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.bytes[begin..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[begin..begin + length]).into_owned();
            begin += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.bytes.drain(..begin);
        match self.bytes.len() + self.now.data.len() > EVENT_MAX {
            true => Err("an event is longer than 4 MiB".into()),
            false => Ok(events),
        }
    }

    fn line(&mut self, line: &str) -> Option<Read> {
        if line.is_empty() {
            let whole = std::mem::take(&mut self.now);
            return (whole != Read::default()).then_some(whole);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.now.id = Some(value.to_owned()),
            "event" => self.now.event = value.to_owned(),
            "data" => {
                if !self.now.data.is_empty() {
                    self.now.data.push('\n');
                }
                self.now.data.push_str(value);
            }
            // A comment has an empty name; unknown fields are left out.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_wherever_it_is_cut() {
        let mut wire = encode(Some("3-17"), "task_created", r#"{"a":"b: c"}"#);
        wire.extend_from_slice(b": nobody\r\nretry: 5\n\n");
        wire.extend(encode(None, "gap", "{}"));
        let expected = [
            Read {
                id: Some("3-17".into()),
                event: "task_created".into(),
                data: r#"{"a":"b: c"}"#.into(),
            },
            Read { id: None, event: "gap".into(), data: "{}".into() },
        ];
        for cut in 0..=wire.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.push(&wire[..cut]).expect("short");
            events.extend(decoder.push(&wire[cut..]).expect("short"));
            assert_eq!(events, expected, "{cut}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: ").expect("short");
        assert!(decoder.push(&vec![b'x'; EVENT_MAX]).is_err());
    }
}
