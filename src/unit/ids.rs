//! Which ids of the box stand behind those of a container.

use super::IdRange;
use serde::{Deserialize, Serialize};

/// What a container's user and group ids are outside; the same for both kinds. Each form holds 0 to
/// 65535 at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMap {
    /// A run of its own: nobody else has any of them. From 0, it is the box's own ids.
    Range(IdRange),
    /// As Garden maps them: root is [`IdMap::NOBODYS`], every other id is the same number outside,
    /// and in every other container of this form.
    Garden,
}

impl IdMap {
    /// The highest id there is; 2^32 - 1 means "none" to the kernel. Nobody has it but the roots of
    /// containers.
    pub const NOBODYS: u32 = u32::MAX - 1;

    /// The box's id of the container's root.
    pub fn root(self) -> u32 {
        match self {
            IdMap::Range(range) => range.base,
            IdMap::Garden => IdMap::NOBODYS,
        }
    }

    /// The box's id of `inside`; `None`: the container cannot hold that id.
    pub fn host(self, inside: u32) -> Option<u32> {
        match self {
            IdMap::Range(range) => range.host(inside),
            IdMap::Garden if inside == 0 => Some(IdMap::NOBODYS),
            IdMap::Garden => (inside < IdMap::NOBODYS).then_some(inside),
        }
    }

    /// The highest id of the container; below it there is no gap. With the box's own ids that is the
    /// box's.
    pub fn last(self) -> u32 {
        match self {
            IdMap::Range(_) if self.is_the_boxs() => IdMap::NOBODYS,
            IdMap::Range(_) => IdRange::WIDTH - 1,
            IdMap::Garden => IdMap::NOBODYS - 1,
        }
    }

    /// Whether root inside is root of the box.
    pub fn is_the_boxs(self) -> bool {
        self.root() == 0
    }

    /// Whether every id of it exists.
    pub fn is_whole(self) -> bool {
        match self {
            IdMap::Range(range) => range.base.checked_add(IdRange::WIDTH).is_some(),
            IdMap::Garden => true,
        }
    }

    /// What is written to `/proc/<pid>/uid_map` and `gid_map`: of each run the first id inside, the
    /// first on the box, and how many; user_namespaces(7).
    pub fn text(self) -> String {
        match self {
            IdMap::Range(range) => format!("0 {} {}\n", range.base, IdRange::WIDTH),
            IdMap::Garden => {
                let nobodys = IdMap::NOBODYS;
                format!("0 {nobodys} 1\n1 1 {}\n", nobodys - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gardens_map_moves_root_alone() {
        assert_eq!(IdMap::Garden.text(), "0 4294967294 1\n1 1 4294967293\n");
        for (inside, outside) in [
            (0, Some(4_294_967_294)),
            (1, Some(1)),
            (65_535, Some(65_535)),
            (4_294_967_293, Some(4_294_967_293)),
            (4_294_967_294, None),
            (u32::MAX, None),
        ] {
            assert_eq!(IdMap::Garden.host(inside), outside, "{inside}");
        }
        assert_eq!(IdMap::Garden.last(), 4_294_967_293);
        assert!(IdMap::Garden.is_whole() && !IdMap::Garden.is_the_boxs());
    }

    #[test]
    fn a_range_is_65536_ids_from_its_base() {
        let map = |base| IdMap::Range(IdRange { base });
        assert_eq!(map(1 << 28).text(), "0 268435456 65536\n");
        assert_eq!((map(100_000).root(), map(100_000).host(5)), (100_000, Some(100_005)));
        assert_eq!(map(100_000).host(65_536), None);
        assert_eq!((map(100_000).last(), map(0).last()), (65_535, 4_294_967_294));
        assert!(map(0).is_the_boxs() && !map(1).is_the_boxs());
        assert!(map(0).is_whole() && !map(u32::MAX - 65_535).is_whole());
    }
}
