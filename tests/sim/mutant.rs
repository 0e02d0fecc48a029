//! Mistakes that could have been made, planted one at a time: the simulation has to find each.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None.
    No,
    /// Five minutes of running forgive nothing.
    CountNotReset,
    /// A crashed instance starts at once, whatever its count.
    NoBackoff,
    /// A container that does not go gives its room back.
    StuckGivesRoomBack,
    /// A Task that the last daemon left running is begun again.
    TaskAgain,
    /// A new daemon makes every instance anew.
    NothingAdopted,
    /// A new daemon leaves what it does not know.
    NothingSwept,
    /// Nobody waits for what he needs.
    NeedsIgnored,
    /// Room is given back twice when an instance was stopped.
    RoomTwice,
    /// The end of a container does not wake who waits for room.
    NoWake,
    /// A manifest that cannot be read is one that is gone.
    UnreadIsGone,
    /// The process starts before its record says where it lives.
    ClaimLate,
    /// Nobody looks whether a new version is any good.
    NeverJudged,
    /// A new version that runs may take as long as it will until it is ready.
    UnreadyForEver,
    /// Times are left as they are when the clock is set.
    ClockTrusted,
    /// Times are moved along with the clock for the daemon of now only.
    MovedForOne,
    /// Which app was declared later is told by the clock alone.
    NewestByClock,
    /// An old instance makes room though the new one would not fit all the same.
    RoomForNothing,
    /// Ports are led elsewhere only after an instance was told to end.
    PublishedLate,
    /// Nobody looks for containers that nobody knows.
    NothingReaped,
    /// A container that cannot be reached at once is made anew.
    NothingSought,
    /// Who waits too long for its container keeps its place in the books.
    ReservedForEver,
    /// A cell that is ill replaces instances all the same.
    IllnessIgnored,
    /// Nobody gives up a Task. No mistake: a script of the world that is missing.
    NobodyCancels,
}

impl Mutant {
    /// Scripts that are missing: nothing breaks, but the daemon does not die where they lead to.
    pub const SCRIPTS: [Mutant; 1] = [Mutant::NobodyCancels];

    /// All that are planted.
    pub const ALL: [Mutant; 22] = [
        Mutant::CountNotReset,
        Mutant::NoBackoff,
        Mutant::StuckGivesRoomBack,
        Mutant::TaskAgain,
        Mutant::NothingAdopted,
        Mutant::NothingSwept,
        Mutant::NeedsIgnored,
        Mutant::RoomTwice,
        Mutant::NoWake,
        Mutant::UnreadIsGone,
        Mutant::ClaimLate,
        Mutant::NeverJudged,
        Mutant::UnreadyForEver,
        Mutant::ClockTrusted,
        Mutant::MovedForOne,
        Mutant::NewestByClock,
        Mutant::RoomForNothing,
        Mutant::PublishedLate,
        Mutant::NothingReaped,
        Mutant::NothingSought,
        Mutant::ReservedForEver,
        Mutant::IllnessIgnored,
    ];
}
