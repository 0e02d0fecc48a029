//! Droplets and build caches on their way to the controller.

use super::client::{self, Answered, Controller, Unanswered};
use super::{Bridge, Busy, Reply, form};
use crate::exec::fetch::{GiveUp, GivenUp};
use crate::image::registry::reach::login_of;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::{Uri, header};

/// Files that are passed on at a time: more than this box's containers send by themselves. Each takes room
/// on the disk and a thread of the pool.
const UPLOADS_MAX: usize = 16;
/// Attempts at a controller that cannot be reached.
const TRIES: u32 = 3;
/// From a look at an upload that is being worked on to the next.
const POLL: Duration = Duration::from_secs(1);

/// One file that is to be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// A droplet, whose upload is worked on behind the answer; else a build cache.
    pub is_droplet: bool,
    /// Where it goes.
    pub uri: String,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Bytes of the file.
    pub length: u64,
    /// Header fields that go with it: digests.
    pub fields: Vec<(&'static str, String)>,
}

impl Bridge {
    /// Takes a place among the files that are passed on; `None`: there is none, say 503.
    pub fn begin_upload(&self) -> Option<Busy> {
        Busy::enter(&self.0.uploads, UPLOADS_MAX)
    }

    /// Longest file that is passed on, in bytes.
    pub fn upload_max(&self) -> u64 {
        self.0.settings.upload_max
    }

    /// A file for what is on its way; it has no name. Blocking.
    pub fn scratch(&self) -> io::Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = &self.0.settings.uploads;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // What a daemon left that was killed before it took the name away, the next one takes over.
        let path = dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    /// Passes `file` on, and waits for a droplet to be worked on. Dropped, it is given up; its place
    /// is free when the thread that sends it has noticed.
    pub async fn upload(&self, file: File, upload: Upload, place: Busy) -> Reply {
        let until = Instant::now() + upload.timeout;
        let (way, wanted) = (self.way(), upload.clone());
        let give_up = GiveUp::default();
        let given_up = give_up.heard();
        let (sent, _place) =
            smol::unblock(move || (way.send(file, &wanted, &given_up), place)).await;
        let answered = match sent {
            Ok(answered) => answered,
            Err(err) => return Reply::refused(500, err.why),
        };
        match answered.status {
            200..300 if !upload.is_droplet => Reply::new(200),
            200..300 => self.follow(&upload, answered, until).await,
            status => Reply::passed_on(status),
        }
    }

    /// Looks at an upload until it is worked on.
    async fn follow(&self, upload: &Upload, first: Answered, until: Instant) -> Reply {
        let mut answer = first;
        loop {
            let job: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            match job["entity"]["status"].as_str().unwrap_or_default() {
                "finished" => return Reply::new(201),
                "failed" => return Reply::refused(500, "upload job failed"),
                "queued" | "running" => {}
                // It was done at once, by a controller that has no jobs.
                "" if job["metadata"]["url"].is_null() => return Reply::new(201),
                other => return Reply::refused(500, format!("unknown upload status `{other}`")),
            }
            let Some(url) = job["metadata"]["url"].as_str().and_then(|it| resolve(&upload.uri, it))
            else {
                return Reply::refused(500, "the upload's job has no URL of the controller");
            };
            if Instant::now() + POLL > until {
                return Reply::refused(504, "the upload's job did not end in time");
            }
            async_io::Timer::after(POLL).await;
            let way = self.way();
            let left = until.saturating_duration_since(Instant::now()).max(POLL);
            answer = match smol::unblock(move || way.look(&url, left)).await {
                Ok(answered) if answered.status < 300 => answered,
                Ok(answered) => {
                    let why = format!("the upload's job: status {}", answered.status);
                    return Reply::refused(500, why);
                }
                Err(err) => return Reply::refused(500, err.why),
            };
        }
    }

    fn way(&self) -> Way {
        Way { certs: self.0.settings.certs.clone(), controller: self.0.controller.clone() }
    }
}

/// How the controller is reached: nothing of the cell, which may end while a file is on its way.
struct Way {
    certs: PathBuf,
    controller: Option<Controller>,
}

impl Way {
    fn agent(&self, url: &str, whole: Duration) -> Result<(Agent, Uri), Unanswered> {
        let unchecked = self.controller.as_ref().is_some_and(|it| it.is_trusted(url));
        client::agent(url, &self.certs, unchecked, whole)
    }

    /// Blocking.
    fn send(
        &self,
        mut file: File,
        upload: &Upload,
        given_up: &GivenUp,
    ) -> Result<Answered, Unanswered> {
        tried(given_up, || {
            let here = |err: io::Error| Unanswered { why: err.to_string(), unsent: false };
            file.rewind().map_err(here)?;
            self.once(&file, upload, given_up)
        })
    }

    /// One attempt.
    fn once(
        &self,
        file: &File,
        upload: &Upload,
        given_up: &GivenUp,
    ) -> Result<Answered, Unanswered> {
        let name = if upload.is_droplet { "droplet.tgz" } else { "buildpack_cache.tgz" };
        let boundary = format!("terrarium-{:032x}", nonce());
        let form = form::of_file(name, &boundary);
        let length = form.head.len() as u64 + upload.length + form.tail.len() as u64;
        let url = if upload.is_droplet { with_async(&upload.uri) } else { upload.uri.clone() };
        let (agent, uri) = self.agent(&url, upload.timeout)?;
        let mut request = agent
            .post(&uri)
            .header(header::CONTENT_TYPE, &form.content_type)
            .header(header::CONTENT_LENGTH, length.to_string());
        if let Some(login) = login_of(&uri) {
            request = request.header(header::AUTHORIZATION, login);
        }
        for (name, value) in &upload.fields {
            request = request.header(*name, value);
        }
        let mut body = given_up.reading(form.head.chain(file).chain(&form.tail[..]));
        client::read(&uri, request.send(client::body_of(&mut body)))
    }

    fn look(&self, url: &str, whole: Duration) -> Result<Answered, Unanswered> {
        let (agent, uri) = self.agent(url, whole)?;
        let request = agent.get(&uri);
        let request = match login_of(&uri) {
            Some(login) => request.header(header::AUTHORIZATION, login),
            None => request,
        };
        client::read(&uri, request.call())
    }
}

/// Asks again while there was no connection; whoever has heard a part of it may have done something already.
fn tried(
    given_up: &GivenUp,
    mut ask: impl FnMut() -> Result<Answered, Unanswered>,
) -> Result<Answered, Unanswered> {
    let mut tries = 1;
    loop {
        match ask() {
            Err(err) if err.unsent && tries < TRIES && !given_up.is() => tries += 1,
            done => return done,
        }
    }
}

/// The upload is to be worked on behind the answer.
fn with_async(uri: &str) -> String {
    let mark = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{mark}async=true")
}

/// The URL of a job at the server of `base`, with the login that `base` carries; `None`: it is
/// somebody else's.
fn resolve(base: &str, job: &str) -> Option<String> {
    let uri: Uri = base.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let own = format!("{}://{authority}", uri.scheme_str()?);
    if job.starts_with('/') {
        return Some(format!("{own}{job}"));
    }
    let there: Uri = job.parse().ok()?;
    let host = |uri: &Uri| (uri.host().map(str::to_ascii_lowercase), uri.port_u16());
    let path = there.path_and_query().map_or("/", |it| it.as_str());
    (host(&uri) == host(&there)).then(|| format!("{own}{path}"))
}

/// A number that no file holds as its boundary but by intent: time and a count.
fn nonce() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{} {count} {}", std::process::id(), crate::sys::clock::now_ms());
    let digest = crate::unit::Digest::of(text.as_bytes()).hex();
    u128::from_str_radix(&digest[..32], 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_looked_for_at_the_controller_and_nowhere_else() {
        let base = "http://ann:pw@cc.lan:9022/staging/droplets/g/upload";
        for (job, url) in [
            ("/v2/jobs/1", Some("http://ann:pw@cc.lan:9022/v2/jobs/1")),
            ("http://cc.lan:9022/jobs/1?x=y", Some("http://ann:pw@cc.lan:9022/jobs/1?x=y")),
            ("http://other.lan/jobs/1", None),
            ("jobs/1", None),
        ] {
            assert_eq!(resolve(base, job).as_deref(), url, "{job}");
        }
        assert_eq!(with_async("http://a/b"), "http://a/b?async=true");
        assert_eq!(with_async("http://a/b?c=d"), "http://a/b?c=d&async=true");
    }

    /// Row 87: what could not be said is said again, what may have been heard is not.
    #[test]
    fn row_87_only_who_is_not_reached_is_asked_again() {
        let way = Way { certs: "/nonexistent".into(), controller: None };
        let give_up = GiveUp::default();
        let given_up = give_up.heard();
        let send = |uri: String| {
            let timeout = Duration::from_secs(60);
            let upload = Upload { is_droplet: false, uri, timeout, length: 0, fields: Vec::new() };
            let (file, mut asked) = (File::open("/dev/null").expect("open"), 0);
            let sent = tried(&given_up, || {
                asked += 1;
                way.once(&file, &upload, &given_up)
            });
            (sent.expect_err("nobody answers").unsent, asked)
        };
        // Whoever comes is heard to the end of his head, and told nothing.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let uri = format!("http://{}/", listener.local_addr().expect("address"));
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let lines = io::BufRead::lines(io::BufReader::new(stream)).map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).count()
        });
        assert_eq!(send(uri), (false, 1));
        assert!(server.join().expect("served") > 1);
        assert_eq!(send("http://127.0.0.1:1/".into()), (true, 3));
        drop(give_up);
        assert_eq!(send("http://127.0.0.1:1/".into()), (true, 1), "nobody wants it any more");
    }

    /// A client that has left wants nothing passed on any more.
    #[test]
    fn what_is_given_up_is_not_sent_to_its_end() {
        let dir = std::env::temp_dir().join(format!("terrarium-given-up-{}", std::process::id()));
        std::fs::write(&dir, "droplet").expect("a file");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let uri = format!("http://{}/", listener.local_addr().expect("address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut came = Vec::new();
            let _ = stream.read_to_end(&mut came);
            String::from_utf8_lossy(&came).into_owned()
        });
        let way = Way { certs: "/nonexistent".into(), controller: None };
        let timeout = Duration::from_secs(60);
        let upload = Upload { is_droplet: false, uri, timeout, length: 7, fields: Vec::new() };
        let given_up = GiveUp::default().heard();
        let sent = way.send(File::open(&dir).expect("open"), &upload, &given_up);
        let why = sent.expect_err("nobody wants it").why;
        assert!(why.contains("nobody wants it any more"), "{why}");
        let came = server.join().expect("served");
        assert!(came.starts_with("POST / ") && !came.contains("droplet"), "{came}");
        std::fs::remove_file(dir).expect("clean up");
    }
}
