//! Why a wish could not be granted.

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
}

impl CellError {
    /// A refusal of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> CellError {
        CellError { kind, text: text.into() }
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
