//! Apps that live as long as somebody holds on to them.

use super::shared::{AppChange, Cell};
use crate::unit::AppName;

/// Holds a temporary app; when this is dropped, whoever asked for the app is gone, and it goes too.
pub struct Lease {
    cell: Cell,
    name: AppName,
    /// Of the declaration that is held: a later one is somebody else's.
    generation: u64,
}

impl Cell {
    /// A hold on the temporary app `name`, if it is one.
    pub fn hold(&self, name: &AppName) -> Option<Lease> {
        let state = self.shared.state();
        let app = state.apps.get(name).filter(|app| app.temporary)?;
        Some(Lease { cell: self.clone(), name: name.clone(), generation: app.generation })
    }

    /// Deletes the temporary apps of the daemon before us: nobody holds them any more.
    pub(super) async fn end_leases(&self) {
        let held: Vec<(AppName, u64)> = {
            let state = self.shared.state();
            let held = state.apps.iter().filter(|(_, app)| app.temporary && !app.deleting);
            held.map(|(name, app)| (name.clone(), app.generation)).collect()
        };
        for (name, generation) in held {
            self.let_go(&name, generation).await;
        }
    }

    /// Begins to delete a temporary app, if it is still the one of this declaration.
    async fn let_go(&self, name: &AppName, generation: u64) {
        let changed = self.shared.change_app(name, |state| {
            let held = state.apps.get(name).filter(|app| {
                app.temporary && app.generation == generation && !app.deleting && !state.closing
            });
            let Some(app) = held else { return Ok(AppChange::Keep) };
            if let Some(canceller) = state.staging.get(name) {
                canceller.cancel();
            }
            crate::info!("app.abandoned", app = name);
            let mut app = app.clone();
            app.deleting = true;
            Ok(AppChange::Put(Box::new(app)))
        });
        if let Err(err) = changed.await {
            // A full disk must not keep it running; its record goes when one can be written.
            crate::error!("app.kept", app = name, err = err);
            let mut state = self.shared.state();
            let app = state.apps.get_mut(name).filter(|app| app.generation == generation);
            app.into_iter().for_each(|app| app.deleting = true);
            drop(state);
            self.shared.wake();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (cell, name, generation) = (self.cell.clone(), self.name.clone(), self.generation);
        smol::spawn(async move { cell.let_go(&name, generation).await }).detach();
    }
}
