//! What is asked and what is answered.

use super::super::proto::{Message, flat, many, one, signed, text, texts, truth, unsigned, word};
use super::super::refusal::TYPES;
use super::lrp::{ACTUAL, ACTUAL_KEY, CELL, DESIRED, GROUP, SCHEDULING, UPDATE};
use super::task::TASK;

static ERROR: Message = Message(&[word(1, "type", &TYPES), text(2, "message")]);

/// Nothing is asked.
pub static NOTHING: Message = Message(&[]);
/// Nothing is answered but an error: the first field of every answer.
pub static DONE: Message = Message(&[one(1, "error", &ERROR)]);

/// `PingResponse`.
pub static PONG: Message = Message(&[truth(1, "available")]);

/// `DomainsResponse`.
pub static DOMAINS: Message = Message(&[one(1, "error", &ERROR), texts(2, "domains")]);
/// `UpsertDomainRequest`.
pub static UPSERT: Message = Message(&[text(1, "domain"), unsigned(2, "ttl")]);

/// `CellsResponse`.
pub static CELLS: Message = Message(&[one(1, "error", &ERROR), many(2, "cells", &CELL)]);

/// `ActualLRPsRequest`, and that of groups.
pub static ACTUALS_OF: Message = Message(&[
    text(1, "domain"),
    text(2, "cell_id"),
    text(3, "process_guid"),
    signed(4, "index").or_none(),
]);
/// `ActualLRPsByProcessGuidsRequest`.
pub static GUIDS: Message = Message(&[texts(1, "process_guids")]);
/// `ActualLRPsResponse`.
pub static ACTUALS: Message = Message(&[one(1, "error", &ERROR), many(2, "actual_lrps", &ACTUAL)]);
/// `ActualLRPGroupsResponse`.
pub static GROUPS: Message =
    Message(&[one(1, "error", &ERROR), many(2, "actual_lrp_groups", &GROUP)]);
/// `ActualLRPGroupResponse`.
pub static ONE_GROUP: Message =
    Message(&[one(1, "error", &ERROR), one(2, "actual_lrp_group", &GROUP)]);
/// `ActualLRPGroupByProcessGuidAndIndexRequest`.
pub static INDEX: Message = Message(&[text(1, "process_guid"), signed(2, "index")]);
/// `RetireActualLRPRequest`.
pub static RETIRE: Message = Message(&[flat(1, &ACTUAL_KEY)]);

/// `DesiredLRPsRequest`.
pub static DESIREDS_OF: Message =
    Message(&[text(1, "domain"), texts(2, "process_guids"), texts(3, "app_guids")]);
/// `DesiredLRPsResponse`.
pub static DESIREDS: Message =
    Message(&[one(1, "error", &ERROR), many(2, "desired_lrps", &DESIRED)]);
/// `DesiredLRPResponse`.
pub static ONE_DESIRED: Message =
    Message(&[one(1, "error", &ERROR), one(2, "desired_lrp", &DESIRED)]);
/// `DesiredLRPSchedulingInfosResponse`.
pub static SCHEDULINGS: Message =
    Message(&[one(1, "error", &ERROR), many(2, "desired_lrp_scheduling_infos", &SCHEDULING)]);
/// `DesiredLRPSchedulingInfoByProcessGuidResponse`.
pub static ONE_SCHEDULING: Message =
    Message(&[one(1, "error", &ERROR), one(2, "desired_lrp_scheduling_info", &SCHEDULING)]);
/// `DesiredLRPByProcessGuidRequest`, `RemoveDesiredLRPRequest`.
pub static GUID: Message = Message(&[text(1, "process_guid")]);
/// `DesireLRPRequest`.
pub static DESIRE: Message = Message(&[flat(1, &DESIRED)]);
/// `UpdateDesiredLRPRequest`.
pub static CHANGE: Message = Message(&[text(1, "process_guid"), one(2, "update", &UPDATE)]);

/// `TasksRequest`.
pub static TASKS_OF: Message = Message(&[text(1, "domain"), text(2, "cell_id")]);
/// `TasksResponse`.
pub static TASKS: Message = Message(&[one(1, "error", &ERROR), many(2, "tasks", &TASK)]);
/// `TaskByGuidRequest`, `TaskGuidRequest`.
pub static TASK_GUID: Message = Message(&[text(1, "task_guid")]);
/// `TaskResponse`.
pub static ONE_TASK: Message = Message(&[one(1, "error", &ERROR), one(2, "task", &TASK)]);

/// `EventsByCellId`.
pub static EVENTS_OF: Message = Message(&[text(1, "cell_id")]);
