//! Method and path to what is asked. Pure.

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// All Tasks.
    Tasks,
    /// A new one.
    DesireTask,
    /// One of them.
    Task(String),
    /// It shall end.
    CancelTask(String),
    /// It shall be forgotten.
    DeleteTask(String),
    /// All containers.
    Containers,
    /// New ones.
    Create,
    /// One of them.
    Container(String),
    /// It shall end.
    Stop(String),
    /// It shall go.
    Delete(String),
}

/// Whether the path is one of these dialects'.
pub fn is_ours(path: &[String]) -> bool {
    matches!(path, [v1, what, ..] if v1 == "v1" && (what == "tasks" || what == "containers"))
}

/// Finds the route; the error is the methods that the path has, empty: there is no such path.
pub fn route(method: &str, path: &[String]) -> Result<Route, &'static str> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let own = |guid: &str| guid.to_owned();
    match (method, &path[..]) {
        ("GET", ["v1", "tasks"]) => Ok(Route::Tasks),
        ("POST", ["v1", "tasks"]) => Ok(Route::DesireTask),
        (_, ["v1", "tasks"]) => Err("GET, POST"),
        ("GET", ["v1", "tasks", guid]) => Ok(Route::Task(own(guid))),
        ("DELETE", ["v1", "tasks", guid]) => Ok(Route::DeleteTask(own(guid))),
        (_, ["v1", "tasks", _]) => Err("GET, DELETE"),
        ("POST", ["v1", "tasks", guid, "cancel"]) => Ok(Route::CancelTask(own(guid))),
        (_, ["v1", "tasks", _, "cancel"]) => Err("POST"),
        ("GET", ["v1", "containers"]) => Ok(Route::Containers),
        ("POST", ["v1", "containers"]) => Ok(Route::Create),
        (_, ["v1", "containers"]) => Err("GET, POST"),
        ("GET", ["v1", "containers", guid]) => Ok(Route::Container(own(guid))),
        ("DELETE", ["v1", "containers", guid]) => Ok(Route::Delete(own(guid))),
        (_, ["v1", "containers", _]) => Err("GET, DELETE"),
        ("POST", ["v1", "containers", guid, "stop"]) => Ok(Route::Stop(own(guid))),
        (_, ["v1", "containers", _, "stop"]) => Err("POST"),
        _ => Err(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_methods() {
        let find = |method: &str, path: &str| {
            let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
            assert!(is_ours(&path), "{path:?}");
            route(method, &path)
        };
        let g = || "G_1".to_owned();
        for (method, path, found) in [
            ("GET", "/v1/tasks", Route::Tasks),
            ("POST", "/v1/tasks", Route::DesireTask),
            ("GET", "/v1/tasks/G_1", Route::Task(g())),
            ("DELETE", "/v1/tasks/G_1", Route::DeleteTask(g())),
            ("POST", "/v1/tasks/G_1/cancel", Route::CancelTask(g())),
            ("GET", "/v1/containers", Route::Containers),
            ("POST", "/v1/containers", Route::Create),
            ("GET", "/v1/containers/G_1", Route::Container(g())),
            ("DELETE", "/v1/containers/G_1", Route::Delete(g())),
            ("POST", "/v1/containers/G_1/stop", Route::Stop(g())),
        ] {
            assert_eq!(find(method, path), Ok(found));
            assert!(find("PATCH", path).is_err_and(|allowed| allowed.contains(method)), "{path}");
        }
        assert_eq!(find("GET", "/v1/tasks/G_1/x"), Err(""));
        assert!(!is_ours(&["v1".into(), "apps".into()]));
    }
}
