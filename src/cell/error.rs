//! Why a wish could not be granted.

use crate::config::{Diagnostic, Diagnostics};
use std::error::Error;
use std::fmt;

/// The kind of a refusal, for exit codes and HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No such app, process or instance.
    NotFound,
    /// The manifest is not valid.
    Invalid,
    /// It exists but does not run.
    NotRunning,
    /// Something else has it already.
    Conflict,
    /// The program to be run does not exist inside.
    NoProgram,
    /// The program to be run is none.
    NotExecutable,
    /// It was tried and did not work.
    Failed,
}

/// A wish that was not granted. The text names object, reason and cure.
#[derive(Debug)]
pub struct CellError {
    /// Which kind.
    pub kind: Kind,
    /// For a person.
    pub text: String,
    /// For a log, where it differs: mistakes in a manifest without the lines that they are in.
    brief: Option<String>,
}

impl CellError {
    /// A refusal of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> CellError {
        CellError { kind, text: text.into(), brief: None }
    }

    /// These mistakes are in the manifest.
    pub fn invalid(problems: &Diagnostics) -> CellError {
        let one = |it: &Diagnostic| format!("{}:{}: {}", it.line, it.column, it.message);
        let brief = problems.iter().map(one).collect::<Vec<_>>().join("; ");
        CellError { kind: Kind::Invalid, text: problems.render(false), brief: Some(brief) }
    }

    /// One line for a log; it shows nothing of what a manifest keeps secret.
    pub fn brief(&self) -> &str {
        self.brief.as_deref().unwrap_or(&self.text)
    }

    /// There is no app of that name.
    pub fn no_app(name: &str) -> CellError {
        CellError::new(
            Kind::NotFound,
            format!("there is no app `{name}`; `terrarium apps` lists what there is"),
        )
    }

    /// It was tried and did not work.
    pub fn failed(doing: impl fmt::Display, err: &dyn Error) -> CellError {
        CellError::new(Kind::Failed, format!("{doing}: {}", crate::log::chain(err)))
    }
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for CellError {}
