//! Two apps of one manifest that name one port of the box: no box can have both. Pure.

use super::{Imported, Mistake};

/// Refuses them together, before any of them is made.
pub fn clash(all: &[Imported]) -> Result<(), Mistake> {
    for (at, one) in all.iter().enumerate() {
        let Some(named) = one.named else { continue };
        let other = |it: &&Imported| it.named.is_some_and(|other| other.port == named.port);
        let Some(first) = all[..at].iter().find(other) else { continue };
        let what = format!(
            "port {} of the box is named for {} and for {}",
            named.port, first.name, one.name
        );
        return Err(Mistake {
            column: Some(named.column),
            see: first.named.map(|first| (first.line, first.column)),
            ..Mistake::new(named.line, what, "give one of them another port")
        });
    }
    Ok(())
}
