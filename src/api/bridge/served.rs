//! Files: those that are served, and those that are passed on.

use super::plain;
use crate::api::http::proto::Framing;
use crate::api::http::server::{Content, Response};
use crate::api::http::{Body, Request};
use crate::bridge::files::plan::{Asked, Plan};
use crate::bridge::files::{Found, NoFile};
use crate::bridge::{Bridge, Reply, Upload};
use crate::unit::date;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Timer, Unblock, future, stream};
use std::fs::File;
use std::io;
use std::time::Duration;

/// Bytes that are read or written at once.
const PIECE: usize = 64 << 10;
/// How long an upload may take of which nothing is said, and at most.
const UPLOAD: Duration = Duration::from_secs(300);
const UPLOAD_MAX: u64 = 86_400;

/// GET or HEAD of a file.
pub async fn file(bridge: &Bridge, names: Vec<String>, request: &Request) -> Response {
    let field = |name: &str| request.headers.get(name).map(str::to_owned);
    let asked = Asked {
        if_none_match: field("if-none-match"),
        if_modified_since: field("if-modified-since"),
        if_range: field("if-range"),
        range: field("range"),
    };
    let files = bridge.files().clone();
    let (found, names) = smol::unblock(move || (files.find(&names, &asked), names)).await;
    let Found { file, known, plan } = match found {
        Ok(found) => found,
        Err(err) => return refusal(err, &names),
    };
    let length = known.length;
    let response = match plan {
        Plan::Same => Response::new(304, Content::Full(Vec::new())),
        Plan::OutOfRange => {
            let response = Response::text(416, "the range begins behind the end of the file");
            return response.with("Content-Range", format!("bytes */{length}"));
        }
        Plan::Whole => Response::new(200, pieces(file, length)),
        Plan::Part(first, last) => Response::new(206, pieces(file, last - first + 1))
            .with("Content-Range", format!("bytes {first}-{last}/{length}")),
    };
    response
        .with("Content-Type", "application/octet-stream")
        .with("Accept-Ranges", "bytes")
        .with("ETag", known.etag)
        .with("Last-Modified", date::http(known.modified))
}

fn refusal(err: NoFile, names: &[String]) -> Response {
    match err {
        NoFile::Dots => Response::text(400, "invalid URL path"),
        NoFile::Directory => Response::text(401, "Unauthorized to list the directory"),
        NoFile::Missing => {
            let name = names.last().map(String::as_str).unwrap_or_default();
            Response::text(404, &format!("File not found: {}", name.escape_default()))
        }
        NoFile::Unreadable(why) => Response::text(500, "the file cannot be read").because(why),
    }
}

/// So many bytes of a file, piece by piece.
fn pieces(file: File, length: u64) -> Content {
    let file = Unblock::with_capacity(PIECE, file);
    let pieces = stream::try_unfold((file, length), |(mut file, left)| async move {
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        if piece.is_empty() {
            return Ok(None);
        }
        let count = file.read(&mut piece).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        piece.truncate(count);
        Ok(Some((piece, (file, left - count as u64))))
    });
    Content::Sized(length, Box::pin(pieces))
}

/// POST of a file that is passed on to the controller.
pub async fn upload(
    bridge: &Bridge,
    is_droplet: bool,
    request: &Request,
    body: &mut Body<'_>,
) -> Response {
    let key = match is_droplet {
        true => "cc-droplet-upload-uri",
        false => "cc-build-artifacts-upload-uri",
    };
    let wanted = match wanted(bridge, is_droplet, key, request) {
        Ok(wanted) => wanted,
        Err(refused) => return plain(refused),
    };
    let Some(place) = bridge.begin_upload() else {
        return plain(Reply::refused(503, "too many uploads at a time"));
    };
    // What comes byte by byte does not keep its place for ever.
    let late = async {
        Timer::after(wanted.timeout).await;
        Err(Reply::refused(408, "the file did not come in its time"))
    };
    let file = match future::or(take(bridge, body), late).await {
        Ok(file) => file,
        Err(refused) => return plain(refused),
    };
    let gone = async {
        body.gone().await;
        Reply::refused(499, "the client has gone")
    };
    plain(future::or(bridge.upload(file, wanted, place), gone).await)
}

fn wanted(
    bridge: &Bridge,
    is_droplet: bool,
    key: &str,
    request: &Request,
) -> Result<Upload, Reply> {
    let Framing::Length(length) = request.framing else {
        return Err(Reply::refused(411, "Content-Length is missing"));
    };
    if request.headers.get("content-length").is_none() {
        return Err(Reply::refused(411, "Content-Length is missing"));
    }
    if length > bridge.upload_max() {
        let most = bridge.upload_max();
        let why = format!("the file has more than {most} bytes ([downloads] size)");
        return Err(Reply::refused(413, why));
    }
    let uri = request.query(key).filter(|uri| !uri.is_empty());
    let uri = uri.ok_or_else(|| Reply::refused(400, format!("missing {key} parameter")))?;
    let seconds = request.query("timeout").map(str::parse::<u64>).transpose();
    let timeout = match seconds {
        Ok(None | Some(0)) => UPLOAD,
        Ok(Some(seconds)) => Duration::from_secs(seconds.min(UPLOAD_MAX)),
        Err(_) => return Err(Reply::refused(400, "`timeout` is no number of seconds")),
    };
    let field = |name: &'static str| Some((name, request.headers.get(name)?.to_owned()));
    let fields = ["Content-MD5", "Content-Digest"].into_iter().filter_map(field).collect();
    Ok(Upload { is_droplet, uri: uri.to_owned(), timeout, length, fields })
}

/// The body as a file of the box.
async fn take(bridge: &Bridge, body: &mut Body<'_>) -> Result<File, Reply> {
    let here = |err: io::Error| Reply::refused(500, format!("it cannot be kept here: {err}"));
    let inner = bridge.clone();
    let file = smol::unblock(move || inner.scratch()).await.map_err(here)?;
    let mut file = Unblock::with_capacity(PIECE, file);
    loop {
        match body.next().await {
            Ok(Some(piece)) => file.write_all(&piece).await.map_err(here)?,
            Ok(None) => break,
            Err(err) => return Err(Reply::refused(err.status(), err.to_string())),
        }
    }
    file.flush().await.map_err(here)?;
    Ok(file.into_inner().await)
}
