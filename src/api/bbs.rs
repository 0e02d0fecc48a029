//! Today's record store: the BBS's protobuf over HTTP, as its Go client and `cfdot` speak it.
//!
//! Every question is a POST whose body is a message, and is answered with 200 and a message of which
//! the field `error` says what was wrong. `/v1/events...` are server-sent events whose data is a
//! message in base64. The paths stand in [`route`], the messages in [`tables`]; between bytes and
//! records lies the receptor's JSON, so that both dialects take and show the same.
//!
//! | paths below `/v1/` | |
//! |---|---|
//! | `ping`, `domains/{list,upsert}`, `cells/list.r1` | |
//! | `desired_lrp/{desire.r2,update,remove}` | |
//! | `desired_lrps/{list,get_by_process_guid}.{r3,r2}`, `desired_lrp_scheduling_infos/{list,get_by_process_guid}`, `desired_lrp_routing_infos/list` | |
//! | `actual_lrps/{list,list_by_process_guids,retire}`, `actual_lrp_groups/{list,list_by_process_guid,get_by_process_guid_and_index}` | |
//! | `tasks/{desire.r2,cancel,resolving,delete}`, `tasks/{list,get_by_task_guid}.{r3,r2}` | |
//! | `events/{lrp_instances,tasks}.r1`, `events.r1` | streams |
//! | `tasks/{start,fail,reject,complete}`, `actual_lrps/{claim,start,crash,fail,remove,evacuate_...}` | InvalidRequest: the cell is of this box and writes its records itself |
//!
//! On the daemon's socket and the bridge's port the same paths stand below `/bbs`.

mod change;
mod events;
mod handle;
mod proto;
mod refusal;
mod route;
mod show;
mod tables;
mod wire;

pub use handle::answer;

use super::apps::watch::WatchService;
use super::bridge::Bridged;
use super::http::server::{Handler, Response};
use super::http::{Body, Request};

/// Answers the BBS's routes and nothing else: for a listener of its own.
pub struct Bbs<S>(pub S);

impl<S: Bridged + WatchService> Handler for Bbs<S> {
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        answer(&self.0, &request.path, request, body).await
    }
}
