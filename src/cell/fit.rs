//! Whether this cell takes something at all, before it is asked for room. Diego's texts: cloud
//! controllers and people match their beginnings. Pure.

use crate::model::view::NO_CELL;
use std::fmt;

/// The full weight, and what none stands for.
const WEIGHT_FULL: u32 = 100;

/// What the cell is ready for at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// It is being drained, or is.
    pub is_draining: bool,
    /// Why its last check of itself failed.
    pub unhealthy: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

/// Tags of a cell, as rep's flags say them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Who comes has to ask for all of these.
    pub needed: Vec<String>,
    /// And may ask for these.
    pub optional: Vec<String>,
}

impl Tags {
    /// Whether somebody who asks for these may come.
    fn suit(&self, asked: &[String]) -> bool {
        let known = |tag: &String| self.needed.contains(tag) || self.optional.contains(tag);
        asked.iter().all(known) && self.needed.iter().all(|tag| asked.contains(tag))
    }
}

/// What somebody wants a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// What its root is made of is here.
    pub has_rootfs: bool,
    /// Drivers of volumes that it asks for and that this box does not have.
    pub volume_drivers: &'a [String],
    /// Tags of cells that it asks for; `None`: it was declared on this very box.
    pub placement_tags: Option<&'a [String]>,
    /// Share of the processor.
    pub cpu_weight: Option<u32>,
}

/// Why there is no place for it. Lack of room is `exec::room::Insufficient`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The cell takes nothing new.
    Draining,
    /// Nor this one, until it has mended.
    Unhealthy(String),
    /// No stack of that name, or no such scheme.
    Rootfs,
    /// These are not on this box.
    VolumeDrivers(Vec<String>),
    /// They are not the cell's.
    Tags(Vec<String>),
    /// Diego's `LimitsInvalid`.
    Limits,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Draining => write!(
                f,
                "{NO_CELL}: this cell is drained and starts nothing; `terrarium undrain` ends that"
            ),
            Misfit::Unhealthy(why) => write!(
                f,
                "{NO_CELL}: this cell cannot make containers at the moment ({why}); it goes on \
                 trying, and starts this when it can"
            ),
            Misfit::Rootfs => f.write_str("found no compatible cell for required rootfs"),
            Misfit::VolumeDrivers(drivers) => write!(
                f,
                "found no compatible cell with required volume drivers: {}; this box has `local`",
                drivers.join(", ")
            ),
            Misfit::Tags(tags) => match &tags[..] {
                [] => f.write_str("found no compatible cell with no placement tags"),
                [one] => write!(f, "found no compatible cell with placement tag \"{one}\""),
                [all @ .., last] => {
                    let all: Vec<_> = all.iter().map(|tag| format!("\"{tag}\"")).collect();
                    let all = all.join(", ");
                    write!(f, "found no compatible cell with placement tags {all} and \"{last}\"")
                }
            },
            Misfit::Limits => f.write_str("container limits invalid"),
        }
    }
}

impl std::error::Error for Misfit {}

/// The one check. What can never fit is told before what does not fit now.
pub fn fit(node: &Node, wish: &Wish<'_>) -> Result<(), Misfit> {
    weight(wish.cpu_weight)?;
    if !wish.has_rootfs {
        return Err(Misfit::Rootfs);
    }
    if !wish.volume_drivers.is_empty() {
        return Err(Misfit::VolumeDrivers(wish.volume_drivers.to_vec()));
    }
    if let Some(asked) = wish.placement_tags.filter(|asked| !node.tags.suit(asked)) {
        let mut tags = asked.to_vec();
        tags.sort();
        tags.dedup();
        return Err(Misfit::Tags(tags));
    }
    match &node.unhealthy {
        _ if node.is_draining => Err(Misfit::Draining),
        Some(why) => Err(Misfit::Unhealthy(why.clone())),
        None => Ok(()),
    }
}

/// The weight of a container: none and 0 are the full one, more than that is refused.
pub fn weight(asked: Option<u32>) -> Result<u32, Misfit> {
    match asked.unwrap_or(0) {
        0 => Ok(WEIGHT_FULL),
        weight if weight <= WEIGHT_FULL => Ok(weight),
        _ => Err(Misfit::Limits),
    }
}

/// Shares of the processor of a weight when the full one has `most`; what is behind the point is
/// dropped, as in Diego.
pub fn shares(weight: u32, most: u32) -> u64 {
    u64::from(most) * u64::from(weight) / u64::from(WEIGHT_FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish<'static> =
        Wish { has_rootfs: true, volume_drivers: &[], placement_tags: None, cpu_weight: None };

    fn text(node: &Node, wish: &Wish<'_>) -> String {
        fit(node, wish).expect_err("no place").to_string()
    }

    #[test]
    fn row_22_the_texts_of_an_auctioneer() {
        let node = Node::default();
        assert_eq!(fit(&node, &WISH), Ok(()));
        let rootfs = Wish { has_rootfs: false, ..WISH };
        assert_eq!(text(&node, &rootfs), "found no compatible cell for required rootfs");
        let drivers = ["nfs".to_owned()];
        let drivers = Wish { volume_drivers: &drivers, ..WISH };
        let expected = "found no compatible cell with required volume drivers: nfs; this box has";
        assert!(text(&node, &drivers).starts_with(expected));
        let limits = Wish { cpu_weight: Some(101), ..WISH };
        assert_eq!(text(&node, &limits), "container limits invalid");
    }

    #[test]
    fn row_24_tags_that_are_not_the_cells_are_refused_by_name() {
        let list = |text: &str| -> Vec<String> {
            text.split(' ').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
        };
        let without = Node::default();
        let tags = Tags { needed: list("x"), optional: list("y") };
        let with = Node { tags, ..Node::default() };
        for (node, asked, expected) in [
            (&without, "", None),
            (&without, "x", Some("with placement tag \"x\"")),
            (&without, "z y x y", Some("with placement tags \"x\", \"y\" and \"z\"")),
            (&with, "", Some("with no placement tags")),
            (&with, "x", None),
            (&with, "x y", None),
            (&with, "y", Some("with placement tag \"y\"")),
            (&with, "x z", Some("with placement tags \"x\" and \"z\"")),
        ] {
            let asked = list(asked);
            let found = fit(node, &Wish { placement_tags: Some(&asked), ..WISH });
            let found = found.err().map(|err| err.to_string());
            let expected = expected.map(|end| format!("found no compatible cell {end}"));
            assert_eq!(found, expected);
        }
        // Apps of this very box are where they belong.
        assert_eq!(fit(&with, &WISH), Ok(()));
    }

    #[test]
    fn row_35_and_37_a_cell_that_is_drained_or_ill_takes_nothing_and_says_which() {
        let ill = Node { unhealthy: Some("no room".into()), ..Node::default() };
        assert!(text(&ill, &WISH).contains("cannot make containers at the moment (no room)"));
        let both = Node { is_draining: true, ..ill };
        assert!(text(&both, &WISH).contains("`terrarium undrain`"));
        // What would never fit is told first.
        let limits = Wish { cpu_weight: Some(101), ..WISH };
        assert_eq!(text(&both, &limits), "container limits invalid");
    }

    #[test]
    fn row_27_no_weight_is_the_full_one_and_shares_are_cut_down() {
        assert_eq!((weight(None), weight(Some(0)), weight(Some(100))), (Ok(100), Ok(100), Ok(100)));
        assert_eq!((weight(Some(1)), weight(Some(101))), (Ok(1), Err(Misfit::Limits)));
        for (weight, most, expected) in
            [(100, 1024, 1024), (50, 1024, 512), (1, 1024, 10), (33, 1024, 337), (50, 200, 100)]
        {
            assert_eq!(shares(weight, most), expected, "{weight} of {most}");
        }
    }
}
