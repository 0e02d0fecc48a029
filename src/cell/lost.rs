//! Apps whose layers are not in the store any more, as its file was lost or replaced: they are staged
//! again, from the very image that they had where somebody still has it.

use super::record::{AppRecord, Release};
use super::shared::{Cell, Shared};
use crate::unit::{AppName, Digest};
use std::collections::BTreeMap;

/// The image that an app had, and of which of its declarations.
pub(super) type Lost = BTreeMap<AppName, (u64, Digest)>;

impl Cell {
    /// Looks for them. Records stay as they are until something else is staged.
    pub(super) async fn forget_lost(&self) {
        let releases: Vec<(AppName, Release)> = {
            let state = self.shared.state();
            let releases = state.apps.iter().filter(|(_, app)| !app.deleting);
            let each = |(name, app): (&AppName, &AppRecord)| {
                app.releases().map(|it| (name.clone(), it.clone())).collect::<Vec<_>>()
            };
            releases.flat_map(each).collect()
        };
        let shared = self.shared.clone();
        let lost = smol::unblock(move || {
            let store = shared.host.store();
            let is_lost =
                |release: &Release| release.layers().iter().any(|it| store.layer(it).is_none());
            releases.into_iter().filter(|(_, release)| is_lost(release)).collect::<Vec<_>>()
        });
        for (name, release) in lost.await {
            let before = {
                let mut state = self.shared.state();
                let app = state.apps.get_mut(&name);
                app.filter(|app| app.release.as_ref() != Some(&release)).map(|app| {
                    // There is nothing to go back to.
                    app.last_good = None;
                })
            };
            if before.is_some() {
                continue;
            }
            crate::warn!("app.layers_lost", app = name);
            self.shared.say(
                &name,
                "CELL",
                true,
                "Its layers are gone from the store: staged again",
            );
            let mut state = self.shared.state();
            let Some(app) = state.apps.get_mut(&name) else { continue };
            (app.staged, app.release, app.last_good) = (None, None, None);
            let generation = app.generation;
            if let Some(image) = release.image {
                state.lost.insert(name, (generation, image.digest));
            }
        }
    }
}

impl Shared {
    /// The image that this declaration of an app had and that was lost.
    pub(super) fn lost_image(&self, app: &AppRecord) -> Option<Digest> {
        let state = self.state();
        let (generation, digest) = state.lost.get(&app.manifest.name)?;
        (*generation == app.generation).then_some(*digest)
    }
}
