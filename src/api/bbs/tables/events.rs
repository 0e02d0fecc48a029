//! Events.

use super::super::proto::{Message, flat, one, signed, text, truth, word};
use super::MODIFICATION_TAG;
use super::lrp::{ACTUAL, ACTUAL_KEY, DESIRED, GROUP, INSTANCE_KEY, NET_INFO, PRESENCE};
use super::task::TASK;

/// `DesiredLRPCreatedEvent`, `DesiredLRPRemovedEvent`.
pub static DESIRED_ONE: Message = Message(&[one(1, "desired_lrp", &DESIRED)]);
/// `DesiredLRPChangedEvent`.
pub static DESIRED_CHANGED: Message =
    Message(&[one(1, "before", &DESIRED), one(2, "after", &DESIRED)]);

/// `ActualLRPInstanceCreatedEvent`, `ActualLRPInstanceRemovedEvent`.
pub static INSTANCE_ONE: Message = Message(&[one(1, "actual_lrp", &ACTUAL)]);
/// `ActualLRPInstanceChangedEvent`.
pub static INSTANCE_CHANGED: Message = Message(&[
    flat(1, &ACTUAL_KEY),
    flat(2, &INSTANCE_KEY),
    one(3, "before", &INFO),
    one(4, "after", &INFO),
]);

/// `ActualLRPInfo`.
static INFO: Message = Message(&[
    flat(3, &NET_INFO),
    signed(4, "crash_count"),
    text(5, "crash_reason"),
    text(6, "state"),
    text(7, "placement_error"),
    signed(8, "since"),
    one(9, "modification_tag", &MODIFICATION_TAG),
    word(10, "presence", &PRESENCE),
    truth(11, "routable").or_none(),
    text(12, "availability_zone"),
]);

/// `ActualLRPCreatedEvent`, `ActualLRPRemovedEvent`, as until 2019.
pub static GROUP_ONE: Message = Message(&[one(1, "actual_lrp_group", &GROUP)]);
/// `ActualLRPChangedEvent`.
pub static GROUP_CHANGED: Message = Message(&[one(1, "before", &GROUP), one(2, "after", &GROUP)]);

/// `ActualLRPCrashedEvent`.
pub static CRASHED: Message = Message(&[
    flat(1, &ACTUAL_KEY),
    flat(2, &INSTANCE_KEY),
    signed(3, "crash_count"),
    text(4, "crash_reason"),
    signed(5, "since"),
]);

/// `TaskCreatedEvent`, `TaskRemovedEvent`.
pub static TASK_ONE: Message = Message(&[one(1, "task", &TASK)]);
/// `TaskChangedEvent`.
pub static TASK_CHANGED: Message = Message(&[one(1, "before", &TASK), one(2, "after", &TASK)]);
