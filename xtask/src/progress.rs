//! Long work, shown: one line that renews itself on a terminal, one line per stage elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The stages of one piece of work.
pub struct Progress {
    title: String,
    live: bool,
    begun: Instant,
    stage: Option<(String, Instant)>,
    shown: Instant,
}

impl Progress {
    /// Nothing is shown before the first stage.
    pub fn new(title: &str) -> Progress {
        let now = Instant::now();
        let live = std::io::stderr().is_terminal();
        Progress { title: title.to_owned(), live, begun: now, stage: None, shown: now }
    }

    /// Ends the stage before and begins one. The same name again goes on with it.
    pub fn stage(&mut self, name: &str) {
        if self.stage.as_ref().is_some_and(|(now, _)| now == name) {
            return;
        }
        self.end_stage();
        self.stage = Some((name.to_owned(), Instant::now()));
        match self.live {
            true => self.line(""),
            false => eprintln!("{}: {name}", self.title),
        }
    }

    /// What the stage is at, for a terminal; at most ten times a second.
    pub fn detail(&mut self, text: &str) {
        if self.live && self.shown.elapsed() > Duration::from_millis(100) {
            self.line(text);
        }
    }

    /// Ends the last stage; the time all of it took.
    pub fn done(mut self) -> Duration {
        self.end_stage();
        self.begun.elapsed()
    }

    fn end_stage(&mut self) {
        if let Some((name, begun)) = self.stage.take()
            && self.live
        {
            let seconds = begun.elapsed().as_secs_f32();
            eprintln!("\r\x1b[2K{}: {name} {seconds:.1} s", self.title);
        }
    }

    fn line(&mut self, detail: &str) {
        let Some((name, begun)) = &self.stage else { return };
        let detail: String = detail.chars().take(40).collect();
        let seconds = begun.elapsed().as_secs();
        eprint!("\r\x1b[2K{}: {name} {seconds} s  {detail}", self.title);
        // A terminal that is gone takes the progress with it, not the work.
        let _ = std::io::stderr().flush();
        self.shown = Instant::now();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live && self.stage.is_some() {
            eprintln!();
        }
    }
}
