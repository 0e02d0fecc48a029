//! Where output goes, and whether a person or a program reads it.

use super::error::CliError;
use super::parse::Global;
use super::show;
use super::text::clean_json;
use crate::model::view::LogLine;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Both output streams.
pub struct Ui {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// JSON instead of text.
    pub json: bool,
    /// Only what was asked for.
    pub quiet: bool,
    /// A person watches stderr.
    pub is_watched: bool,
    /// A person watches stdout.
    pub is_screen: bool,
    /// Colours on stdout.
    pub color: bool,
    /// Colours on stderr.
    pub color_err: bool,
}

impl Ui {
    /// The process's own streams; colours only on terminals and only when nobody objects.
    pub fn new(global: &Global) -> Ui {
        let wanted = !global.no_color
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Ui {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            json: global.json,
            quiet: global.quiet,
            is_watched: !global.quiet && io::stderr().is_terminal(),
            is_screen: io::stdout().is_terminal(),
            color: wanted && io::stdout().is_terminal(),
            color_err: wanted && io::stderr().is_terminal(),
        }
    }

    /// Other streams, without colours.
    #[cfg(test)]
    pub fn to(global: &Global, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Ui {
        let (json, quiet) = (global.json, global.quiet);
        let (is_watched, is_screen) = (false, false);
        Ui { out, err, json, quiet, is_watched, is_screen, color: false, color_err: false }
    }

    /// What was asked for, to stdout.
    pub fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Bytes of what is no text, to stdout.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CliError::Output)
    }

    /// One document, to stdout.
    pub fn document(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value);
        self.print(&(clean_json(text.expect("our own types always become JSON")) + "\n"))
    }

    /// One item of a stream, to stdout.
    pub fn item(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value);
        self.print(&(clean_json(text.expect("our own types always become JSON")) + "\n"))
    }

    /// A line of an app's log, to stdout.
    pub fn log(&mut self, line: &LogLine) -> Result<(), CliError> {
        match self.json {
            true => self.item(line),
            false => self.print(&show::log_line(line, self.color)),
        }
    }

    /// What goes on, to stderr, unless `--quiet`. A closed stderr stops nothing.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.complain(&format!("{text}\n"));
        }
    }

    /// What is wrong, to stderr, as it is.
    pub fn complain(&mut self, text: &str) {
        let _ = self.err.write_all(text.as_bytes());
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
