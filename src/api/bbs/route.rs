//! Path to what is asked of the BBS, with the messages of question and answer. Pure.

use super::proto::Message;
use super::tables::requests as m;
use super::tables::task;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether somebody is there.
    Ping,
    /// The fresh domains.
    Domains,
    /// A domain is fresh.
    UpsertDomain,
    /// The cells: this one.
    Cells,
    /// Instances, of all LRPs or some.
    Actuals,
    /// Those of these LRPs.
    ActualsByGuids,
    /// The same as [`Ask::Actuals`], each in a group of its own.
    Groups,
    /// One of them.
    Group,
    /// One instance shall end.
    Retire,
    /// DesiredLRPs.
    Desireds,
    /// One of them.
    Desired,
    /// DesiredLRPs without what they do.
    Schedulings,
    /// One of them.
    Scheduling,
    /// A new DesiredLRP.
    Desire,
    /// It shall be otherwise.
    Update,
    /// It shall go.
    Remove,
    /// Tasks.
    Tasks,
    /// One of them.
    Task,
    /// A new Task.
    DesireTask,
    /// It shall end.
    CancelTask,
    /// Whoever asked takes note of its end.
    ResolvingTask,
    /// It is forgotten.
    DeleteTask,
    /// What cells tell a BBS of LRPs and Tasks: this box's cell has no need to.
    OfCell,
}

impl Ask {
    /// It changes nothing: some ask so every second.
    pub fn is_read(self) -> bool {
        use Ask as A;
        let lrps = matches!(self, A::Desireds | A::Desired | A::Schedulings | A::Scheduling);
        let instances = matches!(self, A::Actuals | A::ActualsByGuids | A::Groups | A::Group);
        let others = matches!(self, A::Ping | A::Domains | A::Cells | A::Tasks | A::Task);
        lrps || instances || others
    }
}

/// Which events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Of Tasks.
    Tasks,
    /// Of LRPs and their instances.
    Instances,
    /// The same, each instance in a group of its own, as until 2019.
    Groups,
}

/// A question and its answer.
#[derive(Clone, Copy)]
pub struct Unary {
    /// What is asked.
    pub ask: Ask,
    /// In which message.
    pub request: &'static Message,
    /// And how that is answered; every one has the field `error`.
    pub response: &'static Message,
}

/// What a path is for.
#[derive(Clone, Copy)]
pub enum Route {
    /// One answer.
    Unary(Unary),
    /// Events, as they come.
    Events(Events),
}

type Row = (&'static str, Ask, &'static Message, &'static Message);

/// Below `/v1/`. What ended in an older revision is answered as the newer one is.
static UNARY: [Row; 44] = [
    ("ping", Ask::Ping, &m::NOTHING, &m::PONG),
    ("domains/list", Ask::Domains, &m::NOTHING, &m::DOMAINS),
    ("domains/upsert", Ask::UpsertDomain, &m::UPSERT, &m::DONE),
    ("cells/list.r1", Ask::Cells, &m::NOTHING, &m::CELLS),
    ("actual_lrps/list", Ask::Actuals, &m::ACTUALS_OF, &m::ACTUALS),
    ("actual_lrps/list_by_process_guids", Ask::ActualsByGuids, &m::GUIDS, &m::ACTUALS),
    ("actual_lrp_groups/list", Ask::Groups, &m::ACTUALS_OF, &m::GROUPS),
    ("actual_lrp_groups/list_by_process_guid", Ask::Groups, &m::GUID, &m::GROUPS),
    ("actual_lrp_groups/get_by_process_guid_and_index", Ask::Group, &m::INDEX, &m::ONE_GROUP),
    ("actual_lrps/retire", Ask::Retire, &m::RETIRE, &m::DONE),
    ("desired_lrps/list.r3", Ask::Desireds, &m::DESIREDS_OF, &m::DESIREDS),
    ("desired_lrps/list.r2", Ask::Desireds, &m::DESIREDS_OF, &m::DESIREDS),
    ("desired_lrp_routing_infos/list", Ask::Desireds, &m::DESIREDS_OF, &m::DESIREDS),
    ("desired_lrps/get_by_process_guid.r3", Ask::Desired, &m::GUID, &m::ONE_DESIRED),
    ("desired_lrps/get_by_process_guid.r2", Ask::Desired, &m::GUID, &m::ONE_DESIRED),
    ("desired_lrp_scheduling_infos/list", Ask::Schedulings, &m::DESIREDS_OF, &m::SCHEDULINGS),
    (
        "desired_lrp_scheduling_infos/get_by_process_guid",
        Ask::Scheduling,
        &m::GUID,
        &m::ONE_SCHEDULING,
    ),
    ("desired_lrp/desire.r2", Ask::Desire, &m::DESIRE, &m::DONE),
    ("desired_lrp/update", Ask::Update, &m::CHANGE, &m::DONE),
    ("desired_lrp/remove", Ask::Remove, &m::GUID, &m::DONE),
    ("tasks/list.r3", Ask::Tasks, &m::TASKS_OF, &m::TASKS),
    ("tasks/list.r2", Ask::Tasks, &m::TASKS_OF, &m::TASKS),
    ("tasks/get_by_task_guid.r3", Ask::Task, &m::TASK_GUID, &m::ONE_TASK),
    ("tasks/get_by_task_guid.r2", Ask::Task, &m::TASK_GUID, &m::ONE_TASK),
    ("tasks/desire.r2", Ask::DesireTask, &task::DESIRE, &m::DONE),
    ("tasks/cancel", Ask::CancelTask, &m::TASK_GUID, &m::DONE),
    ("tasks/resolving", Ask::ResolvingTask, &m::TASK_GUID, &m::DONE),
    ("tasks/delete", Ask::DeleteTask, &m::TASK_GUID, &m::DONE),
    ("tasks/start", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("tasks/fail", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("tasks/reject", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("tasks/complete", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/claim", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/start", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/start.r1", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/crash", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/fail", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/remove", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/remove_evacuating", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/evacuate_claimed", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/evacuate_crashed", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/evacuate_stopped", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/evacuate_running", Ask::OfCell, &m::NOTHING, &m::DONE),
    ("actual_lrps/evacuate_running.r1", Ask::OfCell, &m::NOTHING, &m::DONE),
];

static EVENTS: [(&str, Events); 6] = [
    ("events", Events::Groups),
    ("events.r1", Events::Groups),
    ("events/tasks", Events::Tasks),
    ("events/tasks.r1", Events::Tasks),
    ("events/lrp_instances", Events::Instances),
    ("events/lrp_instances.r1", Events::Instances),
];

/// Finds the route; the error is the methods that the path has, empty: there is no such path.
pub fn route(method: &str, path: &[String]) -> Result<Route, &'static str> {
    let Some(("v1", rest)) = path.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return Err("");
    };
    let path = rest.join("/");
    if let Some((_, events)) = EVENTS.iter().find(|(name, _)| *name == path) {
        // Clients of each method there were.
        return match method {
            "GET" | "POST" => Ok(Route::Events(*events)),
            _ => Err("GET, POST"),
        };
    }
    let (_, ask, request, response) = UNARY.iter().find(|row| row.0 == path).ok_or("")?;
    match method {
        "POST" => Ok(Route::Unary(Unary { ask: *ask, request, response })),
        _ => Err("POST"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Route, &'static str> {
        let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        route(method, &path)
    }

    /// Row 34: the paths of the BBS's client.
    #[test]
    fn row_34_every_path_has_its_question() {
        for (path, wanted) in [
            ("/v1/ping", Ask::Ping),
            ("/v1/desired_lrp/desire.r2", Ask::Desire),
            ("/v1/desired_lrps/list.r3", Ask::Desireds),
            ("/v1/actual_lrps/list", Ask::Actuals),
            ("/v1/actual_lrps/claim", Ask::OfCell),
            ("/v1/tasks/resolving", Ask::ResolvingTask),
            ("/v1/cells/list.r1", Ask::Cells),
        ] {
            let Ok(Route::Unary(found)) = find("POST", path) else { panic!("{path}") };
            assert_eq!(found.ask, wanted, "{path}");
            assert_eq!(find("GET", path).err(), Some("POST"), "{path}");
        }
        for (path, wanted) in [
            ("/v1/events.r1", Events::Groups),
            ("/v1/events/tasks.r1", Events::Tasks),
            ("/v1/events/lrp_instances.r1", Events::Instances),
        ] {
            for method in ["GET", "POST"] {
                assert!(matches!(find(method, path), Ok(Route::Events(it)) if it == wanted));
            }
        }
        for path in ["/v1/tasks", "/v1/tasks/list.r4", "/v2/ping", "/v1", "/", "/v1/ping/"] {
            assert_eq!(find("POST", path).err(), Some(""), "{path}");
        }
        let paths: std::collections::BTreeSet<_> = UNARY.iter().map(|row| row.0).collect();
        assert_eq!(paths.len(), UNARY.len());
    }
}
