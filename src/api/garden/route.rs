//! Method and path of Garden's protocol to what is asked. Pure.

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Is the server there?
    Ping,
    /// What the box has.
    Capacity,
    /// Handles, filtered by properties.
    List,
    /// A new container.
    Create,
    /// Facts about many containers.
    BulkInfo,
    /// Figures of many containers.
    BulkMetrics,
    /// Something about one container.
    Container(String, Verb),
}

/// What is asked about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET info.
    Info,
    /// DELETE.
    Destroy,
    /// PUT stop.
    Stop,
    /// PUT files.
    StreamIn,
    /// GET files.
    StreamOut,
    /// GET limits/WHICH.
    Limits(Limit),
    /// PUT limits/WHICH, which only clients of 2015 send.
    SetLimits(Limit),
    /// POST net/in.
    NetIn,
    /// POST net/out.
    NetOut,
    /// POST net/out/bulk.
    BulkNetOut,
    /// POST processes.
    Run,
    /// GET processes/ID.
    Attach(String),
    /// GET processes/ID/attaches/STREAM/stdout or stderr.
    Output(String, String, Output),
    /// PUT grace_time.
    SetGraceTime,
    /// GET properties.
    Properties,
    /// GET properties/KEY.
    Property(String),
    /// PUT properties/KEY.
    SetProperty(String),
    /// DELETE properties/KEY.
    RemoveProperty(String),
    /// GET metrics.
    Metrics,
}

/// One kind of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes per second of its network.
    Bandwidth,
    /// Share of the processor.
    Cpu,
    /// What it may write.
    Disk,
    /// Memory and swap.
    Memory,
}

/// One output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, and everything that goes to a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// 404: no such path.
    Path,
    /// 405: the path exists for these methods.
    Method(&'static str),
}

/// Finds the route. The segments are decoded: a handle or key may hold anything, also a `/`.
pub fn route(method: &str, path: &[String]) -> Result<Route, NoRoute> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let only = |allowed: &'static str, found: Route| match method == allowed {
        true => Ok(found),
        false => Err(NoRoute::Method(allowed)),
    };
    match path[..] {
        ["ping"] => only("GET", Route::Ping),
        ["capacity"] => only("GET", Route::Capacity),
        ["containers"] => match method {
            "GET" => Ok(Route::List),
            "POST" => Ok(Route::Create),
            _ => Err(NoRoute::Method("GET, POST")),
        },
        // Before any handle: no container can be called so.
        ["containers", "bulk_info"] => only("GET", Route::BulkInfo),
        ["containers", "bulk_metrics"] => only("GET", Route::BulkMetrics),
        ["containers", handle, ref rest @ ..] if !handle.is_empty() => {
            verb(method, rest).map(|verb| Route::Container(handle.to_owned(), verb))
        }
        _ => Err(NoRoute::Path),
    }
}

/// What is asked about a container, from the path behind its handle.
fn verb(method: &str, rest: &[&str]) -> Result<Verb, NoRoute> {
    let of = |verbs: &'static str, found: &[(&str, Verb)]| {
        let found = found.iter().find(|(allowed, _)| *allowed == method);
        found.map(|(_, verb)| verb.clone()).ok_or(NoRoute::Method(verbs))
    };
    match *rest {
        [] => of("DELETE", &[("DELETE", Verb::Destroy)]),
        ["info"] => of("GET", &[("GET", Verb::Info)]),
        ["stop"] => of("PUT", &[("PUT", Verb::Stop)]),
        ["files"] => of("GET, PUT", &[("GET", Verb::StreamOut), ("PUT", Verb::StreamIn)]),
        ["limits", which] => {
            let which = limit(which).ok_or(NoRoute::Path)?;
            of("GET, PUT", &[("GET", Verb::Limits(which)), ("PUT", Verb::SetLimits(which))])
        }
        ["net", "in"] => of("POST", &[("POST", Verb::NetIn)]),
        ["net", "out"] => of("POST", &[("POST", Verb::NetOut)]),
        ["net", "out", "bulk"] => of("POST", &[("POST", Verb::BulkNetOut)]),
        ["processes"] => of("POST", &[("POST", Verb::Run)]),
        ["processes", id] => of("GET", &[("GET", Verb::Attach(id.into()))]),
        ["processes", id, "attaches", stream, which @ ("stdout" | "stderr")] => {
            let which = if which == "stdout" { Output::Stdout } else { Output::Stderr };
            of("GET", &[("GET", Verb::Output(id.into(), stream.into(), which))])
        }
        ["grace_time"] => of("PUT", &[("PUT", Verb::SetGraceTime)]),
        ["properties"] => of("GET", &[("GET", Verb::Properties)]),
        // The Go client leaves a `/` in a key as it is.
        ["properties", ref key @ ..] => of(
            "GET, PUT, DELETE",
            &[
                ("GET", Verb::Property(key.join("/"))),
                ("PUT", Verb::SetProperty(key.join("/"))),
                ("DELETE", Verb::RemoveProperty(key.join("/"))),
            ],
        ),
        ["metrics"] => of("GET", &[("GET", Verb::Metrics)]),
        _ => Err(NoRoute::Path),
    }
}

fn limit(name: &str) -> Option<Limit> {
    match name {
        "bandwidth" => Some(Limit::Bandwidth),
        "cpu" => Some(Limit::Cpu),
        "disk" => Some(Limit::Disk),
        "memory" => Some(Limit::Memory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(line: &str) -> Result<Route, NoRoute> {
        let (method, path) = line.split_once(' ').expect("METHOD /path");
        let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        route(method, &path)
    }

    #[test]
    fn every_route_of_the_go_client_is_known() {
        let of = |verb| Ok(Route::Container("h".into(), verb));
        for (line, expected) in [
            ("GET /ping", Ok(Route::Ping)),
            ("GET /capacity", Ok(Route::Capacity)),
            ("GET /containers", Ok(Route::List)),
            ("POST /containers", Ok(Route::Create)),
            ("GET /containers/bulk_info", Ok(Route::BulkInfo)),
            ("GET /containers/bulk_metrics", Ok(Route::BulkMetrics)),
            ("GET /containers/h/info", of(Verb::Info)),
            ("DELETE /containers/h", of(Verb::Destroy)),
            ("PUT /containers/h/stop", of(Verb::Stop)),
            ("PUT /containers/h/files", of(Verb::StreamIn)),
            ("GET /containers/h/files", of(Verb::StreamOut)),
            ("GET /containers/h/limits/bandwidth", of(Verb::Limits(Limit::Bandwidth))),
            ("GET /containers/h/limits/cpu", of(Verb::Limits(Limit::Cpu))),
            ("GET /containers/h/limits/disk", of(Verb::Limits(Limit::Disk))),
            ("GET /containers/h/limits/memory", of(Verb::Limits(Limit::Memory))),
            ("PUT /containers/h/limits/memory", of(Verb::SetLimits(Limit::Memory))),
            ("POST /containers/h/net/in", of(Verb::NetIn)),
            ("POST /containers/h/net/out", of(Verb::NetOut)),
            ("POST /containers/h/net/out/bulk", of(Verb::BulkNetOut)),
            ("POST /containers/h/processes", of(Verb::Run)),
            ("GET /containers/h/processes/p", of(Verb::Attach("p".into()))),
            (
                "GET /containers/h/processes/p/attaches/7/stdout",
                of(Verb::Output("p".into(), "7".into(), Output::Stdout)),
            ),
            (
                "GET /containers/h/processes/p/attaches/7/stderr",
                of(Verb::Output("p".into(), "7".into(), Output::Stderr)),
            ),
            ("PUT /containers/h/grace_time", of(Verb::SetGraceTime)),
            ("GET /containers/h/properties", of(Verb::Properties)),
            ("GET /containers/h/properties/k", of(Verb::Property("k".into()))),
            ("PUT /containers/h/properties/k", of(Verb::SetProperty("k".into()))),
            ("DELETE /containers/h/properties/k", of(Verb::RemoveProperty("k".into()))),
            ("GET /containers/h/metrics", of(Verb::Metrics)),
        ] {
            assert_eq!(find(line), expected, "{line}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_which_are_right_and_a_wrong_path_is_none() {
        assert_eq!(find("PATCH /containers"), Err(NoRoute::Method("GET, POST")));
        assert_eq!(find("POST /containers/h/files"), Err(NoRoute::Method("GET, PUT")));
        assert_eq!(find("DELETE /containers/bulk_info"), Err(NoRoute::Method("GET")));
        for line in [
            "GET /",
            "GET /containers/",
            "GET /containers//info",
            "GET /containers/h/limits/pids",
            "GET /containers/h/processes/p/attaches/7/stdin",
            "GET /containers/h/nothing",
        ] {
            assert_eq!(find(line), Err(NoRoute::Path), "{line}");
        }
    }

    #[test]
    fn a_decoded_slash_stays_inside_its_segment() {
        let path = ["containers", "a/b", "properties", "c/d:e"].map(str::to_owned);
        let expected = Route::Container("a/b".into(), Verb::Property("c/d:e".into()));
        assert_eq!(route("GET", &path), Ok(expected));
    }
}
