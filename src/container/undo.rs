//! Half-made things unmake themselves.

use super::ContainerError;

/// Takes back one step; it is told whether all later steps were taken back.
type Takeback<'a> = Box<dyn FnOnce(bool) -> Result<(), ContainerError> + 'a>;

/// Undo steps of a creation under way, run newest first unless [`Undo::keep`] is called.
#[derive(Default)]
pub struct Undo<'a>(Vec<(&'static str, Takeback<'a>)>);

impl<'a> Undo<'a> {
    /// `undo` takes back the step that has just been done, or is just being tried.
    pub fn push(
        &mut self,
        step: &'static str,
        undo: impl FnOnce() -> Result<(), ContainerError> + 'a,
    ) {
        self.0.push((step, Box::new(|_| undo())));
    }

    /// As [`Undo::push`], for what must stay when something else stays: `undo` is told whether
    /// everything later was taken back.
    pub fn push_base(
        &mut self,
        step: &'static str,
        undo: impl FnOnce(bool) -> Result<(), ContainerError> + 'a,
    ) {
        self.0.push((step, Box::new(undo)));
    }

    /// All went well: nothing is undone.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let mut clean = true;
        while let Some((step, undo)) = self.0.pop() {
            if let Err(err) = undo(clean) {
                clean = false;
                crate::warn!("undo.failed", step = step, err = crate::log::chain(&err));
            }
        }
    }
}
