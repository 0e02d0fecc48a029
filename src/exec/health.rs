//! Health checks: probes from the daemon against the container's own address, no process each.

use super::cancel::Cancel;
use super::steps::{StepError, StepResult};
use super::streams::Sink;
use crate::model::manifest::{Check, Health};
use crate::unit::span;
use async_io::{Async, Timer};
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an HTTP answer that are looked at; the status line is in the first of them.
const ANSWER_MAX: usize = 16 * 1024;

/// Redirects to the same instance that are followed.
const REDIRECT_MAX: usize = 3;

/// What to probe, and who to tell.
pub struct Monitor<'a> {
    /// The container's address.
    pub address: Ipv4Addr,
    /// What is tried, and when.
    pub health: &'a Health,
    /// Source `HEALTH` of the instance.
    pub sink: Sink,
}

impl Monitor<'_> {
    /// Tries until the first success. Fails when a try fails after the start timeout has passed.
    pub async fn startup(&self, cancel: &Cancel) -> StepResult {
        if self.health.check == Check::Process {
            return Ok(());
        }
        self.cell().say(false, "Starting health monitoring of container");
        let begin = Instant::now();
        loop {
            if !cancel.sleep(self.health.interval_unhealthy).await {
                return Err(StepError::Cancelled);
            }
            let Some(tried) = cancel.or(self.probe()).await else {
                return Err(StepError::Cancelled);
            };
            let limit = self.health.start_timeout;
            match tried {
                Ok(()) => {
                    self.cell().say(false, "Container became healthy");
                    return Ok(());
                }
                Err(why) if !limit.is_zero() && begin.elapsed() >= limit => {
                    let limit = span::show_go(limit);
                    self.sink.say(true, why.clone());
                    let text = format!("Failed after {limit}: startup health check never passed.");
                    self.cell().say(true, text);
                    let text = format!("Instance never healthy after {limit}: {why}");
                    return Err(StepError::Failed(text));
                }
                Err(_) => {}
            }
        }
    }

    /// Tries until the first failure.
    pub async fn liveness(&self, cancel: &Cancel) -> StepError {
        loop {
            let mut wait = self.health.interval_healthy;
            if self.health.check == Check::Process {
                wait = Duration::MAX;
            }
            if wait == Duration::MAX {
                cancel.cancelled().await;
            }
            if cancel.is_cancelled() || !cancel.sleep(wait).await {
                return StepError::Cancelled;
            }
            match cancel.or(self.probe()).await {
                None => return StepError::Cancelled,
                Some(Ok(())) => {}
                Some(Err(why)) => {
                    self.sink.say(true, why.clone());
                    self.cell().say(true, "Container became unhealthy");
                    return StepError::Failed(format!("Instance became unhealthy: {why}"));
                }
            }
        }
    }

    fn cell(&self) -> Sink {
        Sink { source: "CELL".into(), ..self.sink.clone() }
    }

    /// One try. The texts are those of Diego's healthcheck program.
    async fn probe(&self) -> Result<(), String> {
        let limit = self.health.timeout;
        let late = format!("timed out after {:.2} seconds", limit.as_secs_f64());
        match &self.health.check {
            Check::Process => Ok(()),
            Check::Port { port } => {
                let at = SocketAddr::from((self.address, *port));
                within(limit, Async::<TcpStream>::connect(at))
                    .await
                    .ok_or(late)
                    .and_then(|tried| tried.map(drop).map_err(|err| plain(&err)))
                    .map_err(|why| format!("failed to make TCP connection to {at}: {why}"))
            }
            Check::Http { port, path } => {
                let at = SocketAddr::from((self.address, *port));
                let begin = Instant::now();
                let tried = within(limit, get(at, path)).await;
                let why = match tried {
                    Some(Ok(200)) => return Ok(()),
                    Some(Ok(code)) => {
                        format!("received status code {code} in {}ms", begin.elapsed().as_millis())
                    }
                    Some(Err(_)) => "connection refused".to_owned(),
                    None => late,
                };
                Err(format!("failed to make HTTP request to '{path}' on port {port}: {why}"))
            }
        }
    }
}

/// The system's words without its number.
fn plain(err: &std::io::Error) -> String {
    match err.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => err.to_string(),
    }
}

/// The outcome if it comes in time.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(work.await) }, async {
        Timer::after(limit).await;
        None
    })
    .await
}

/// The status of the last answer to a GET, redirects within the instance followed.
async fn get(at: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut path = path.to_owned();
    for _ in 0..=REDIRECT_MAX {
        let answer = get_once(at, &path).await?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        head.parse(&answer).map_err(std::io::Error::other)?;
        let code = head.code.unwrap_or(0);
        let next = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("location"))
            .and_then(|header| std::str::from_utf8(header.value).ok());
        match next {
            Some(next) if (300..400).contains(&code) => path = local_path(next, at),
            _ => return Ok(code),
        }
    }
    Ok(310)
}

/// Path of a redirect; another host's is asked of this instance all the same, as only it counts.
fn local_path(location: &str, at: SocketAddr) -> String {
    let rest = location.strip_prefix(&format!("http://{at}")).unwrap_or(location);
    match rest.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/".to_owned(), |at| rest[at..].to_owned()),
        None if rest.starts_with('/') => rest.to_owned(),
        None => format!("/{rest}"),
    }
}

/// The head of one answer.
async fn get_once(at: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = Async::<TcpStream>::connect(at).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: diego-healthcheck\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; ANSWER_MAX];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..]).await?;
        length += read;
        let whole = answer[..length].windows(4).any(|four| four == b"\r\n\r\n");
        if read == 0 || whole || length == ANSWER_MAX {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_the_instance() {
        let at: SocketAddr = "10.254.0.2:8080".parse().expect("address");
        for (location, path) in [
            ("/login", "/login"),
            ("http://10.254.0.2:8080/x?y", "/x?y"),
            ("https://example.org/a/b", "/a/b"),
            ("https://example.org", "/"),
            ("next", "/next"),
        ] {
            assert_eq!(local_path(location, at), path, "{location}");
        }
    }
}
