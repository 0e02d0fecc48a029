//! Whether the box's disk has room for what the cell must write.

use super::shared::Cell;
use crate::log::chain;
use crate::model::view::BoxView;
use crate::sys::file::{self, Space};
use crate::unit::Bytes;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Free space below which records, logs and droplets are in danger, on a small disk; on a large one
/// it is a hundredth.
const FREE_MIN: u64 = 64 << 20;

impl Cell {
    /// How the box is doing. A store that is short of what containers were promised tries to grow
    /// first: only the attempt tells whether it can.
    pub async fn examine_box(&self) -> BoxView {
        let (shared, drain) = (self.shared.clone(), self.drain_view());
        let view = smol::unblock(move || {
            let state = &shared.paths.state;
            let store = shared.host.store();
            let space = File::open(state).and_then(|dir| file::space(dir.as_fd()));
            let mut view = BoxView {
                disk_free_bytes: space.as_ref().map_or(0, |space| space.free_bytes),
                disk_total_bytes: space.as_ref().map_or(0, |space| space.total_bytes),
                store_free_bytes: 0,
                problems: problem(state, &space).into_iter().collect(),
                cell: shared.cell_view(),
                ..BoxView::default()
            };
            view.problems.extend(shared.cell_problems());
            // Who only looks removes no image.
            if let Err(err) = store.try_room(Bytes::default()) {
                view.problems.push(chain(&err));
            }
            view.store_free_bytes = store.free().get();
            let refused = shared.state().refused.clone();
            view.problems.extend(
                refused
                    .into_iter()
                    .map(|(path, why)| format!("{} is not followed: {why}", path.display())),
            );
            shared.events.tell_health(&view.problems);
            view
        });
        let mut view = view.await;
        view.cell.drain = drain;
        view
    }
}

/// What is wrong with the disk below `dir`.
fn problem(dir: &Path, space: &io::Result<Space>) -> Option<String> {
    let dir = dir.display();
    match space {
        Err(err) => Some(format!("cannot measure the disk of {dir}: {err}")),
        // 0: a file system that does not say.
        Ok(Space { total_bytes: 0, .. }) => None,
        Ok(space) if space.free_bytes >= (space.total_bytes / 100).max(FREE_MIN) => None,
        Ok(space) => {
            let [free, total] = [space.free_bytes, space.total_bytes].map(|it| it >> 20);
            Some(format!(
                "the disk of {dir} is full: {free} of {total} MiB are free, and what apps do \
                 cannot be recorded; make room, `du -xh / | sort -h | tail` tells what is large"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_a_little_before_it_is() {
        let said = |free_mib: u64, total_mib: u64| {
            let (free_bytes, total_bytes) = (free_mib << 20, total_mib << 20);
            problem(Path::new("/x"), &Ok(Space { magic: 0, free_bytes, total_bytes }))
        };
        assert_eq!(said(64, 1000), None);
        assert_eq!(said(1000, 100_000), None);
        assert_eq!(said(0, 0), None);
        for (free, total) in [(63, 1000), (999, 100_000), (0, 1)] {
            let text = said(free, total).expect("a problem");
            let start = format!("the disk of /x is full: {free} of {total} MiB are free, ");
            assert!(text.starts_with(&start), "{text}");
        }
    }
}
