//! What a person sees of the ordinary OpenSSH client, held against `tests/golden/ssh/NAME.txt`.
//!
//! | line begins with | is |
//! |---|---|
//! | `> ` | what was typed at the shell of this box |
//! | `< ` | what the client wrote to its output |
//! | `! ` | what it wrote to its error output |
//! | `\| ` | a line of its terminal |
//! | `= ` | its exit status |
//!
//! What differs from run to run has a word in its place. A new release of the client may word things
//! otherwise, then `TERRARIUM_BLESS=1 cargo xtask test e2e -- ssh::` writes the files anew, and the difference
//! is reviewed as code. They are of OpenSSH 9.2 of Debian 12.

use super::client::Client;
use crate::lab::{Lab, Ran};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A transcript that grows.
pub struct Session {
    text: String,
    /// What is shown, and what in its place.
    words: Vec<(String, String)>,
}

impl Session {
    pub fn new(lab: &Lab) -> Session {
        let root = lab.root.to_str().expect("a UTF-8 path").to_owned();
        Session { text: String::new(), words: vec![(root, "ROOT".into())] }
    }

    /// Shows `word` in the place of `text`.
    pub fn call(&mut self, text: &str, word: &str) {
        self.words.push((text.to_owned(), word.to_owned()));
    }

    /// `ssh` with a command, to its end.
    pub fn ssh(&mut self, client: &Client, command: &str) -> Ran {
        let ran = client.run(command);
        self.ran(&client.typed(command), &ran);
        ran
    }

    /// `scp` in `dir`, to its end.
    pub fn scp(&mut self, client: &Client, dir: &Path, args: &[&str]) -> Ran {
        let ran = client.scp_in(dir, args);
        self.ran(&format!("scp {}", args.join(" ")), &ran);
        ran
    }

    /// A command that has ended.
    pub fn ran(&mut self, typed: &str, ran: &Ran) {
        let _ = writeln!(self.text, "> {typed}");
        self.add('<', &ran.out);
        self.add('!', &ran.err);
        let _ = writeln!(self.text, "= {}\n", ran.code);
    }

    /// A client on a terminal that has ended.
    pub fn saw(&mut self, typed: &str, (code, screen): (i32, &str)) {
        let _ = writeln!(self.text, "> {typed}");
        self.add('|', &lines(screen));
        let _ = writeln!(self.text, "= {code}\n");
    }

    fn add(&mut self, mark: char, text: &str) {
        for line in text.replace('\r', "").lines() {
            let _ = writeln!(self.text, "{}", format!("{mark} {line}").trim_end());
        }
    }

    /// Compares with the file of this name.
    pub fn golden(self, name: &str) {
        let mut text = self.text;
        for (shown, word) in &self.words {
            text = text.replace(shown, word);
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ssh");
        let path = path.join(format!("{name}.txt"));
        if std::env::var_os("TERRARIUM_BLESS").is_some() {
            fs::write(&path, &text).expect("golden file");
        }
        let expected = fs::read_to_string(&path).expect("golden file");
        let client = Command::new("ssh").arg("-V").output().expect("ssh -V").stderr;
        let client = String::from_utf8_lossy(&client);
        let by = format!("recorded with OpenSSH 9.2, seen with {}", client.trim());
        assert_eq!(text, expected, "{by}; TERRARIUM_BLESS=1 rewrites {}", path.display());
    }
}

/// What a terminal shows of these bytes at last: without its control sequences, and without what a line was
/// before it was written over.
fn lines(screen: &str) -> String {
    let mut text = String::new();
    let mut chars = screen.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.as_str().starts_with('[') => {
                // To the letter that ends it.
                chars.by_ref().find(char::is_ascii_alphabetic);
            }
            '\u{1b}' | '\u{7}' => {}
            c => text.push(c),
        }
    }
    let last = |line: &str| {
        let line = line.trim_end_matches('\r');
        line.rsplit('\r').next().unwrap_or(line).trim_end().to_owned()
    };
    text.trim_end().split('\n').map(last).collect::<Vec<_>>().join("\n")
}
