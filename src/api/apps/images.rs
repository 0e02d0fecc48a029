//! Images in the local dialect: what is told of them, and what the service must be able to do.

use super::{ErrorKind, Served, ServiceError, handle};
use crate::api::http::Body;
use crate::api::http::server::{Content, Response};
use crate::model::view::ErrorView;
use crate::unit::{Digest, ImageRef};
use serde::{Deserialize, Serialize};
use smol::channel::{Receiver, Sender, bounded};
use smol::{future, stream};
use std::io;
use std::pin::pin;

/// Longest archive that is loaded, packed as it comes, in bytes.
const LOAD_MAX: u64 = 64 << 30;
/// Pieces of an archive between the connection and who unpacks it.
const PIECES: usize = 16;
/// Longest text that says where an archive is from, in bytes.
const FROM_MAX: usize = 4096;
/// What is told of waiting while one archive is loaded; clients of HTTP bear few answers before the last.
const WAITS_MAX: usize = 4;
/// Header field of an archive: the id that its image has in it.
pub const SAVED_ID: &str = "Terrarium-Image-Id";
/// Header field of an answer before the last one: what a loading waits for.
pub const WAITS: &str = "Terrarium-Waits";

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// What it is asked for by.
    pub digest: Digest,
    /// Digest of its configuration.
    pub id: Digest,
    /// Its names in full.
    pub names: Vec<String>,
    /// Its layers in the store, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes in the files of its layers.
    pub bytes: u64,
    /// When it was fetched or last used, in milliseconds since 1970.
    pub used_ms: u64,
    /// Handles of containers that it is in, and `app NAME` for each app of it that has none.
    pub used_by: Vec<String>,
}

/// All images of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesView {
    /// In order of digest.
    pub images: Vec<ImageView>,
    /// Bytes in the files of all their layers, each layer counted once.
    pub bytes: u64,
}

/// What happens while an image is fetched; a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullEvent {
    /// Bytes of layers: so many are here, of so many. Some of these are left out.
    Progress {
        /// Here.
        done: u64,
        /// In all.
        total: u64,
    },
    /// It has to wait.
    Waits {
        /// For what.
        why: String,
    },
    /// It failed; nothing follows.
    Error(ErrorView),
    /// It is here; nothing follows.
    Done(NamedImage),
}

/// An image under the name that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// The name in full; `None`: it has none.
    pub name: Option<String>,
    /// What it means.
    pub digest: Digest,
    /// What the name meant before, when that is another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Digest>,
    /// What a file calls the image, and it is not called, and why; with the first name of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unnamed: Vec<String>,
}

impl NamedImage {
    /// Nothing else is told of it.
    pub fn new(name: Option<String>, digest: Digest) -> NamedImage {
        NamedImage { name, digest, was: None, unnamed: Vec::new() }
    }
}

/// What is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedView {
    /// Names that mean nothing any more.
    pub names: Vec<String>,
    /// The image, when none of its names is left.
    pub digest: Option<Digest>,
}

/// What a collection has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedView {
    /// Images.
    pub images: u64,
    /// Layers.
    pub layers: u64,
    /// Bytes in the files of these layers, and of what has come of downloads.
    pub bytes: u64,
    /// Images that are still there.
    #[serde(default)]
    pub left: Vec<LeftView>,
}

/// An image that a collection has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftView {
    /// What it is asked for by.
    pub digest: Digest,
    /// Its names in full.
    pub names: Vec<String>,
    /// Why it is there.
    pub why: Vec<String>,
}

/// An archive on its way.
pub struct Saved {
    /// The id that its image has in it.
    pub id: Digest,
    /// Its pieces; dropped when the client leaves.
    pub pieces: stream::Boxed<io::Result<Vec<u8>>>,
}

/// An archive that is coming in. An empty piece is its end; without one it has broken off.
pub type Pieces = Receiver<io::Result<Vec<u8>>>;

/// What the dialect needs of images. What a client started goes on when it leaves, but for what it gets
/// images by: a pull ends when its events are dropped, and the loading of an archive with its future.
pub trait ImageService: Send + Sync {
    /// All images.
    fn images(&self) -> impl Future<Output = Served<ImagesView>> + Send;
    /// All about the image of this name, digest, or beginning of a digest, in docker's words.
    fn inspect(&self, image: &str) -> impl Future<Output = Served<serde_json::Value>> + Send;
    /// Fetches an image.
    fn pull(&self, name: ImageRef)
    -> impl Future<Output = Served<stream::Boxed<PullEvent>>> + Send;
    /// Takes the images of an archive; those without a name get `name`. `from` is what errors call
    /// the archive; `waits` hears what it has to wait for.
    fn load(
        &self,
        from: String,
        name: Option<ImageRef>,
        pieces: Pieces,
        waits: Sender<String>,
    ) -> impl Future<Output = Served<Vec<NamedImage>>> + Send;
    /// Gives an image as an archive.
    fn save(&self, image: &str) -> impl Future<Output = Served<Saved>> + Send;
    /// Forgets a name, or an image with all its names.
    fn remove(&self, image: &str) -> impl Future<Output = Served<RemovedView>> + Send;
    /// Removes what nobody can ask for or needs, or with `all` every image that nothing is made of.
    fn collect(&self, all: bool) -> impl Future<Output = Served<CollectedView>> + Send;
}

/// What is asked about one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVerb {
    /// GET.
    Inspect,
    /// DELETE.
    Remove,
    /// POST pull.
    Pull,
    /// GET archive.
    Save,
}

/// Answers what is asked about one image.
pub(super) async fn about(
    service: &impl ImageService,
    image: &str,
    verb: ImageVerb,
) -> Served<Response> {
    match verb {
        ImageVerb::Inspect => Ok(Response::json(200, &service.inspect(image).await?)),
        ImageVerb::Remove => Ok(Response::json(200, &service.remove(image).await?)),
        ImageVerb::Pull => Ok(handle::lines(service.pull(named(image)?).await?)),
        ImageVerb::Save => {
            let saved = service.save(image).await?;
            let response = Response::new(200, Content::Stream(saved.pieces));
            let response = response.with("Content-Type", "application/x-tar");
            Ok(response.with(SAVED_ID, saved.id.to_string()))
        }
    }
}

/// Takes an archive from the body, until the client has gone. What it has to wait for is told by answers
/// before the last one.
pub(super) async fn load(
    service: &impl ImageService,
    from: Option<&str>,
    name: Option<&str>,
    body: &mut Body<'_>,
) -> Served<Response> {
    let name = name.map(named).transpose()?;
    let from = from.unwrap_or("the archive").chars().take(FROM_MAX).collect();
    let (sender, pieces) = bounded(PIECES);
    let (tell, waits) = bounded(WAITS_MAX);
    let loading = async { service.load(from, name, pieces, tell).await.map(Some) };
    let feeding = async {
        let mut told = 0;
        pump(body, sender, &waits, &mut told).await;
        while let Some(why) = future::or(async { waits.recv().await.ok() }, async {
            body.gone().await;
            None
        })
        .await
        {
            interim(body, &why, &mut told).await;
        }
        // Nobody tells any more: the answer is on its way.
        if waits.is_closed() {
            future::pending::<()>().await;
        }
        Ok(None)
    };
    match future::or(loading, feeding).await? {
        Some(loaded) => Ok(Response::json(200, &loaded)),
        None => {
            body.give_up();
            Err(ServiceError::new(ErrorKind::Failed, "the client has gone"))
        }
    }
}

/// Tells what the loading waits for.
async fn interim(body: &mut Body<'_>, why: &str, told: &mut usize) {
    *told += 1;
    if *told <= WAITS_MAX {
        body.interim(WAITS, why).await;
    }
}

/// Hands the body on, until it ends or nobody wants it any more, and tells what it waits for.
async fn pump(
    body: &mut Body<'_>,
    to: Sender<io::Result<Vec<u8>>>,
    waits: &Receiver<String>,
    told: &mut usize,
) {
    let mut left = LOAD_MAX;
    loop {
        let piece = match body.next().await {
            Ok(piece) => Ok(piece.unwrap_or_default()),
            Err(err) => Err(io::Error::other(err)),
        };
        let len = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let piece = match left.checked_sub(len) {
            Some(rest) => {
                left = rest;
                piece
            }
            None => Err(io::Error::other(format!("it is longer than {} GiB", LOAD_MAX >> 30))),
        };
        let mut sending = pin!(to.send(piece));
        loop {
            let sent = async { Ok(sending.as_mut().await.is_ok()) };
            match future::or(sent, async { Err(waits.recv().await) }).await {
                Ok(true) if len > 0 => break,
                Ok(_) => return,
                Err(Ok(why)) => interim(body, &why, told).await,
                // It has ended: it takes no more, or says so at once.
                Err(Err(_)) => return,
            }
        }
    }
}

fn named(text: &str) -> Served<ImageRef> {
    text.parse().map_err(|err| handle::invalid(&format!("{err}")))
}
