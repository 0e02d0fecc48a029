//! Method and path to what is asked. Pure.

use super::cell::CellVerb;
use super::history::HistoryVerb;
use super::images::ImageVerb;
use super::{ErrorKind, ServiceError};
use crate::unit::AppName;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Who answers?
    Ping,
    /// How is the box?
    Box,
    /// Is this manifest right?
    Check,
    /// All apps.
    List,
    /// Something about one app.
    App(AppName, Verb),
    /// An app's directory comes in.
    Source(AppName),
    /// Something about what it was, or is made of.
    History(AppName, HistoryVerb),
    /// A command in an instance: app, process, index.
    Exec(AppName, String, u32),
    /// A fresh instance in an index's place: app, process, index.
    Afresh(AppName, String, u32),
    /// What happens.
    Events,
    /// What is the matter with an app.
    Explain(AppName),
    /// Figures as OpenMetrics.
    Metrics,
    /// Figures of containers as the rep tells them.
    ContainerMetrics,
    /// All images.
    Images,
    /// An archive of images.
    Load,
    /// Something about one image: its name or digest.
    Image(String, ImageVerb),
    /// Remove what nothing is made of.
    Collect,
    /// Something about the cell as a whole.
    Cell(CellVerb),
}

/// What is asked about one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Show,
    /// PUT.
    Apply,
    /// DELETE.
    Delete,
    /// POST start.
    Start,
    /// POST stop.
    Stop,
    /// POST restart.
    Restart,
    /// POST scale.
    Scale,
    /// GET logs.
    Logs,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// 404: no such path.
    Path,
    /// 405: the path exists for these methods.
    Method(&'static str),
    /// A name or number in the path is wrong.
    Wrong(ServiceError),
}

/// Finds the route.
pub fn route(method: &str, path: &[String]) -> Result<Route, NoRoute> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let only = |allowed: &'static str, found: Route| match method == allowed {
        true => Ok(found),
        false => Err(NoRoute::Method(allowed)),
    };
    let about = |app: &str, verb| Ok(Route::App(name(app)?, verb));
    match path[..] {
        ["v1", "ping"] => only("GET", Route::Ping),
        ["v1", "box"] => only("GET", Route::Box),
        ["v1", "check"] => only("POST", Route::Check),
        ["v1", "events"] => only("GET", Route::Events),
        ["v1", "container_metrics"] => only("GET", Route::ContainerMetrics),
        ["metrics"] => only("GET", Route::Metrics),
        ["v1", "apps", app, "explain"] => only("GET", Route::Explain(name(app)?)),
        ["v1", "apps"] => only("GET", Route::List),
        ["v1", "apps", app] => match method {
            "GET" => about(app, Verb::Show),
            "PUT" => about(app, Verb::Apply),
            "DELETE" => about(app, Verb::Delete),
            _ => Err(NoRoute::Method("GET, PUT, DELETE")),
        },
        ["v1", "apps", app, "logs"] => only("GET", about(app, Verb::Logs)?),
        ["v1", "apps", app, verb @ ("start" | "stop" | "restart" | "scale")] => {
            let verb = match verb {
                "start" => Verb::Start,
                "stop" => Verb::Stop,
                "restart" => Verb::Restart,
                _ => Verb::Scale,
            };
            only("POST", about(app, verb)?)
        }
        ["v1", "apps", app, "revisions"] => {
            only("GET", Route::History(name(app)?, HistoryVerb::Revisions))
        }
        ["v1", "apps", app, "source"] => only("PUT", Route::Source(name(app)?)),
        ["v1", "apps", app, "follow"] => {
            only("GET", Route::History(name(app)?, HistoryVerb::Follow))
        }
        ["v1", "apps", app, verb @ ("restage" | "rollback" | "tasks")] => {
            let verb = match verb {
                "restage" => HistoryVerb::Restage,
                "rollback" => HistoryVerb::Rollback,
                _ => HistoryVerb::RunTask,
            };
            only("POST", Route::History(name(app)?, verb))
        }
        ["v1", "apps", app, "instances", process, index, verb @ ("exec" | "restart")] => {
            let index = index.parse().map_err(|_| {
                wrong(format!("instance `{}` is no number", index.escape_default()))
            })?;
            let (app, process) = (name(app)?, process.to_owned());
            only(
                "POST",
                match verb {
                    "exec" => Route::Exec(app, process, index),
                    _ => Route::Afresh(app, process, index),
                },
            )
        }
        ["v1", "images"] => match method {
            "GET" => Ok(Route::Images),
            "POST" => Ok(Route::Load),
            _ => Err(NoRoute::Method("GET, POST")),
        },
        ["v1", "images", image] if !image.is_empty() => match method {
            "GET" => Ok(Route::Image(image.into(), ImageVerb::Inspect)),
            "DELETE" => Ok(Route::Image(image.into(), ImageVerb::Remove)),
            _ => Err(NoRoute::Method("GET, DELETE")),
        },
        ["v1", "images", image, "pull"] => {
            only("POST", Route::Image(image.into(), ImageVerb::Pull))
        }
        ["v1", "images", image, "archive"] => {
            only("GET", Route::Image(image.into(), ImageVerb::Save))
        }
        ["v1", "drain"] => match method {
            "POST" => Ok(Route::Cell(CellVerb::Drain)),
            "DELETE" => Ok(Route::Cell(CellVerb::Undrain)),
            _ => Err(NoRoute::Method("POST, DELETE")),
        },
        ["v1", "collect"] => only("POST", Route::Collect),
        _ => Err(NoRoute::Path),
    }
}

fn name(text: &str) -> Result<AppName, NoRoute> {
    text.parse().map_err(|err| wrong(format!("{err}")))
}

fn wrong(message: String) -> NoRoute {
    NoRoute::Wrong(ServiceError::new(ErrorKind::Invalid, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Route, NoRoute> {
        let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        route(method, &path)
    }

    #[test]
    fn every_path_has_its_methods() {
        let app: AppName = "web".parse().expect("name");
        let about = |verb| Ok(Route::App(app.clone(), verb));
        assert_eq!(find("GET", "/v1/ping"), Ok(Route::Ping));
        assert_eq!(find("GET", "/v1/box"), Ok(Route::Box));
        assert_eq!(find("POST", "/v1/check"), Ok(Route::Check));
        assert_eq!(find("GET", "/v1/apps"), Ok(Route::List));
        assert_eq!(find("POST", "/v1/drain"), Ok(Route::Cell(CellVerb::Drain)));
        assert_eq!(find("DELETE", "/v1/drain"), Ok(Route::Cell(CellVerb::Undrain)));
        assert!(matches!(find("GET", "/v1/drain"), Err(NoRoute::Method(_))));
        for (method, path, verb) in [
            ("GET", "/v1/apps/web", Verb::Show),
            ("PUT", "/v1/apps/web", Verb::Apply),
            ("DELETE", "/v1/apps/web", Verb::Delete),
            ("POST", "/v1/apps/web/start", Verb::Start),
            ("POST", "/v1/apps/web/stop", Verb::Stop),
            ("POST", "/v1/apps/web/restart", Verb::Restart),
            ("POST", "/v1/apps/web/scale", Verb::Scale),
            ("GET", "/v1/apps/web/logs", Verb::Logs),
        ] {
            assert_eq!(find(method, path), about(verb));
            assert!(matches!(find("PATCH", path), Err(NoRoute::Method(_))), "{path}");
        }
        for (path, found) in [
            ("/v1/events", Route::Events),
            ("/v1/container_metrics", Route::ContainerMetrics),
            ("/metrics", Route::Metrics),
            ("/v1/apps/web/explain", Route::Explain(app.clone())),
        ] {
            assert_eq!(find("GET", path), Ok(found));
            assert_eq!(find("POST", path), Err(NoRoute::Method("GET")));
        }
        let exec = find("POST", "/v1/apps/web/instances/worker/7/exec");
        assert_eq!(exec, Ok(Route::Exec(app.clone(), "worker".into(), 7)));
        let afresh = find("POST", "/v1/apps/web/instances/worker/7/restart");
        assert_eq!(afresh, Ok(Route::Afresh(app, "worker".into(), 7)));
    }

    #[test]
    fn an_image_is_one_part_of_the_path_whatever_its_name() {
        let path = |image: &str, rest: &[&str]| -> Vec<String> {
            ["v1", "images", image].iter().chain(rest).map(|it| it.to_string()).collect()
        };
        let name = "reg.lan:5000/ops/app:1";
        for (method, rest, verb) in [
            ("GET", &[][..], ImageVerb::Inspect),
            ("DELETE", &[], ImageVerb::Remove),
            ("POST", &["pull"], ImageVerb::Pull),
            ("GET", &["archive"], ImageVerb::Save),
        ] {
            assert_eq!(route(method, &path(name, rest)), Ok(Route::Image(name.into(), verb)));
            assert!(matches!(route("PUT", &path(name, rest)), Err(NoRoute::Method(_))));
        }
        assert_eq!(find("GET", "/v1/images"), Ok(Route::Images));
        assert_eq!(find("POST", "/v1/images"), Ok(Route::Load));
        assert_eq!(find("POST", "/v1/collect"), Ok(Route::Collect));
        assert_eq!(find("GET", "/v1/images/"), Err(NoRoute::Path));
    }

    #[test]
    fn what_is_no_path_or_name_is_refused() {
        for path in ["/", "/v1", "/v1/apps/", "/v1/apps/a/b", "/v2/apps", "/v1/apps/a/logs/x"] {
            assert!(find("GET", path).is_err(), "{path}");
        }
        assert!(matches!(find("GET", "/v1/apps/.."), Err(NoRoute::Wrong(_))));
        let exec = find("POST", "/v1/apps/a/instances/web/-1/exec");
        assert!(matches!(exec, Err(NoRoute::Wrong(_))));
    }
}
