//! Method and path to what is asked. Pure.

use super::Status;
use super::receptor::Receptor;
use super::rep::Rep;

/// Where a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the daemon's socket, where other dialects are, too.
    Socket,
    /// To the bridge's own port.
    Port,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A staging.
    Stage(String),
    /// It shall end.
    StopStaging(String),
    /// It has ended.
    Staged(String),
    /// An app.
    Desire(String),
    /// It shall go.
    StopApp(String),
    /// One instance shall end: guid and index.
    KillIndex(String, String),
    /// A one-off task.
    RunTask,
    /// It shall end.
    StopTask(String),
    /// How apps are.
    Status(Status),
    /// A file, by the names of its path.
    File(Vec<String>),
    /// A droplet, or else a build cache, on its way.
    Upload(bool),
    /// Of the record store.
    Receptor(Receptor),
    /// Of the record store's Tasks: the path without the component's name.
    Tasks(Vec<String>),
    /// Of the cell.
    Rep(Rep),
    /// Of today's record store: the path without the component's name.
    Bbs(Vec<String>),
}

/// A process guid of a cloud controller: two guids of 36 characters with `-` between.
const PROCESS_GUID: usize = 73;

/// Finds the route. `None`: the path is not the bridge's. The error is the methods that the path has,
/// empty: there is no such path.
pub fn route(method: &str, path: &[String], place: Place) -> Option<Result<Route, &'static str>> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let rest = names.get(1..).unwrap_or_default();
    match names.first().copied() {
        Some("stager") => return Some(stager(method, rest)),
        Some("nsync") => return Some(nsync(method, rest)),
        Some("tps") => return Some(tps(method, rest)),
        Some("files") => return Some(files(method, rest)),
        Some("uploader") => return Some(uploader(method, rest)),
        Some("receptor") => return Some(receptor(method, rest)),
        Some("rep") => return Some(rep(method, rest)),
        Some("bbs") => return Some(Ok(Route::Bbs(path[1..].to_vec()))),
        _ => {}
    }
    let on_port = place == Place::Port;
    match names[..] {
        ["v1", "staging", ..] => Some(stager(method, &names)),
        ["v1", "apps", guid, ..] if on_port || guid.len() == PROCESS_GUID => {
            Some(nsync(method, &names))
        }
        ["v1", "tasks"] if on_port && method == "POST" => Some(nsync(method, &names)),
        ["v1", "tasks", _] if on_port && method == "DELETE" => Some(nsync(method, &names)),
        ["v1", "bulk_actual_lrp_status"] => Some(tps(method, &names)),
        ["v1", "actual_lrps", _] | ["v1", "actual_lrps", _, "stats"] => Some(tps(method, &names)),
        ["v1", "static", ..] => Some(files(method, &names)),
        ["v1", "droplet" | "build_artifacts", _] => Some(uploader(method, &names)),
        ["v1", "desired_lrps" | "actual_lrps" | "domains" | "cells", ..] => {
            Some(receptor(method, &names))
        }
        ["v1", "tasks" | "events" | "version", ..] if on_port => Some(receptor(method, &names)),
        ["container_metrics"] if on_port => Some(rep(method, &names)),
        ["ping" | "state" | "work" | "evacuate"] | ["sim", "reset"] | ["v1" | "v2", "lrps", ..] => {
            Some(rep(method, &names))
        }
        _ => None,
    }
}

type Found = Result<Route, &'static str>;

fn only(method: &str, allowed: &'static str, route: Route) -> Found {
    if method == allowed { Ok(route) } else { Err(allowed) }
}

fn stager(method: &str, path: &[&str]) -> Found {
    match (method, path) {
        ("PUT", ["v1", "staging", guid]) => Ok(Route::Stage((*guid).into())),
        ("DELETE", ["v1", "staging", guid]) => Ok(Route::StopStaging((*guid).into())),
        (_, ["v1", "staging", _]) => Err("PUT, DELETE"),
        (_, ["v1", "staging", guid, "completed"]) => {
            only(method, "POST", Route::Staged((*guid).into()))
        }
        _ => Err(""),
    }
}

fn nsync(method: &str, path: &[&str]) -> Found {
    match (method, path) {
        ("PUT", ["v1", "apps", guid]) => Ok(Route::Desire((*guid).into())),
        ("DELETE", ["v1", "apps", guid]) => Ok(Route::StopApp((*guid).into())),
        (_, ["v1", "apps", _]) => Err("PUT, DELETE"),
        (_, ["v1", "apps", guid, "index", index]) => {
            only(method, "DELETE", Route::KillIndex((*guid).into(), (*index).into()))
        }
        (_, ["v1", "tasks"]) => only(method, "POST", Route::RunTask),
        (_, ["v1", "tasks", guid]) => only(method, "DELETE", Route::StopTask((*guid).into())),
        _ => Err(""),
    }
}

fn tps(method: &str, path: &[&str]) -> Found {
    let status = match path {
        ["v1", "actual_lrps", guid] => Status::Instances((*guid).into()),
        ["v1", "actual_lrps", guid, "stats"] => Status::Stats((*guid).into()),
        ["v1", "bulk_actual_lrp_status"] => Status::Bulk,
        _ => return Err(""),
    };
    only(method, "GET", Route::Status(status))
}

fn files(method: &str, path: &[&str]) -> Found {
    match path {
        ["v1", "static", names @ ..] => {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            match method {
                "GET" | "HEAD" => Ok(Route::File(names)),
                _ => Err("GET, HEAD"),
            }
        }
        _ => Err(""),
    }
}

fn uploader(method: &str, path: &[&str]) -> Found {
    match path {
        ["v1", "droplet", _] => only(method, "POST", Route::Upload(true)),
        ["v1", "build_artifacts", _] => only(method, "POST", Route::Upload(false)),
        _ => Err(""),
    }
}

fn receptor(method: &str, path: &[&str]) -> Found {
    use Receptor as R;
    let own = |name: &&str| (*name).to_owned();
    let what = match (method, path) {
        ("GET", ["v1", "desired_lrps"]) => R::DesiredAll,
        ("POST", ["v1", "desired_lrps"]) => R::Desire,
        (_, ["v1", "desired_lrps"]) => return Err("GET, POST"),
        ("GET", ["v1", "desired_lrps", guid]) => R::Desired(own(guid)),
        ("PUT", ["v1", "desired_lrps", guid]) => R::Update(own(guid)),
        ("DELETE", ["v1", "desired_lrps", guid]) => R::Remove(own(guid)),
        (_, ["v1", "desired_lrps", _]) => return Err("GET, PUT, DELETE"),
        ("GET", ["v1", "actual_lrps"]) => R::ActualAll,
        ("GET", ["v1", "actual_lrps", guid]) => R::Actuals(own(guid)),
        ("GET", ["v1", "actual_lrps", guid, "index", index]) => R::Actual(own(guid), own(index)),
        ("DELETE", ["v1", "actual_lrps", guid, "index", index]) => R::Kill(own(guid), own(index)),
        (_, ["v1", "actual_lrps", _, "index", _]) => return Err("GET, DELETE"),
        (_, ["v1", "actual_lrps"] | ["v1", "actual_lrps", _]) => return Err("GET"),
        ("GET", ["v1", "domains"]) => R::Domains,
        ("PUT", ["v1", "domains", domain]) => R::Refresh(own(domain)),
        (_, ["v1", "domains"]) => return Err("GET"),
        (_, ["v1", "domains", _]) => return Err("PUT"),
        ("GET", ["v1", "cells"]) => R::Cells,
        ("GET", ["v1", "events"]) => R::Events,
        ("GET", ["v1", "version"]) => R::Version,
        (_, ["v1", "cells" | "events" | "version"]) => return Err("GET"),
        (_, ["v1", "tasks", ..]) => return Ok(Route::Tasks(path.iter().map(own).collect())),
        _ => return Err(""),
    };
    Ok(Route::Receptor(what))
}

fn rep(method: &str, path: &[&str]) -> Found {
    let (allowed, what) = match path {
        ["ping"] => ("GET", Rep::Ping),
        ["state"] => ("GET", Rep::State),
        ["container_metrics"] => ("GET", Rep::Metrics),
        ["work"] => ("POST", Rep::Work),
        ["evacuate"] => ("POST", Rep::Evacuate),
        ["sim", "reset"] => ("POST", Rep::Reset),
        ["v1", "lrps", guid, "instances", instance, "stop"] => {
            ("POST", Rep::Stop((*guid).into(), (*instance).into()))
        }
        ["v1" | "v2", "lrps", guid, "instances", instance] => {
            ("PUT", Rep::Update((*guid).into(), (*instance).into()))
        }
        ["v1", "tasks", guid, "cancel"] => ("POST", Rep::Cancel((*guid).into())),
        _ => return Err(""),
    };
    only(method, allowed, Route::Rep(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str, place: Place) -> Option<Result<Route, &'static str>> {
        let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        route(method, &path, place)
    }

    /// Row 79, row 34: every path of the table, with and without its component's name.
    #[test]
    fn row_79_every_path_has_its_component() {
        let g = || "g".to_owned();
        for (component, method, path, found) in [
            ("stager", "PUT", "/v1/staging/g", Route::Stage(g())),
            ("stager", "DELETE", "/v1/staging/g", Route::StopStaging(g())),
            ("stager", "POST", "/v1/staging/g/completed", Route::Staged(g())),
            ("nsync", "PUT", "/v1/apps/g", Route::Desire(g())),
            ("nsync", "DELETE", "/v1/apps/g", Route::StopApp(g())),
            ("nsync", "DELETE", "/v1/apps/g/index/3", Route::KillIndex(g(), "3".into())),
            ("nsync", "POST", "/v1/tasks", Route::RunTask),
            ("nsync", "DELETE", "/v1/tasks/g", Route::StopTask(g())),
            ("tps", "GET", "/v1/actual_lrps/g", Route::Status(Status::Instances(g()))),
            ("tps", "GET", "/v1/actual_lrps/g/stats", Route::Status(Status::Stats(g()))),
            ("tps", "GET", "/v1/bulk_actual_lrp_status", Route::Status(Status::Bulk)),
            ("files", "GET", "/v1/static/g/g", Route::File(vec![g(), g()])),
            ("uploader", "POST", "/v1/droplet/g", Route::Upload(true)),
            ("uploader", "POST", "/v1/build_artifacts/g", Route::Upload(false)),
            ("receptor", "PUT", "/v1/domains/g", Route::Receptor(Receptor::Refresh(g()))),
            ("receptor", "GET", "/v1/desired_lrps", Route::Receptor(Receptor::DesiredAll)),
            ("receptor", "GET", "/v1/actual_lrps", Route::Receptor(Receptor::ActualAll)),
            ("rep", "POST", "/v1/lrps/g/instances/g/stop", Route::Rep(Rep::Stop(g(), g()))),
            ("rep", "PUT", "/v2/lrps/g/instances/g", Route::Rep(Rep::Update(g(), g()))),
            ("rep", "PUT", "/v1/lrps/g/instances/g", Route::Rep(Rep::Update(g(), g()))),
            ("rep", "GET", "/container_metrics", Route::Rep(Rep::Metrics)),
            ("rep", "GET", "/ping", Route::Rep(Rep::Ping)),
            ("rep", "POST", "/sim/reset", Route::Rep(Rep::Reset)),
        ] {
            assert_eq!(find(method, path, Place::Port), Some(Ok(found.clone())), "{path}");
            for place in [Place::Port, Place::Socket] {
                let named = format!("/{component}{path}");
                assert_eq!(find(method, &named, place), Some(Ok(found.clone())), "{named}");
                let other = find("PATCH", &named, place).expect("it is the bridge's");
                assert!(other.is_err_and(|allowed| allowed.contains(method)), "{named}");
            }
        }
    }

    #[test]
    fn on_the_socket_other_dialects_go_first() {
        for path in ["/v1/apps/web", "/v1/tasks", "/v1/tasks/g", "/v1/events", "/v1/ping", "/x"] {
            assert_eq!(find("DELETE", path, Place::Socket), None, "{path}");
        }
        let guid = "c181be6b-d89c-469c-b79c-4cab1e99b8de-6eac776b-f051-4cb0-9614-5a3954d1bfd6";
        let found = find("DELETE", &format!("/v1/apps/{guid}"), Place::Socket);
        assert_eq!(found, Some(Ok(Route::StopApp(guid.into()))));
        let actuals = Route::Receptor(Receptor::Actuals("g".into()));
        let found = find("GET", "/receptor/v1/actual_lrps/g", Place::Socket);
        assert_eq!(found, Some(Ok(actuals)));
    }
}
