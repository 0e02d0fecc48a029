//! One image, and what was asked about it.

use super::Fake;
use crate::api::apps::images::*;
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::unit::{Digest, ImageRef};
use smol::channel::Sender;
use smol::stream::{self, StreamExt};
use std::{fmt, io};

/// An image of a registry of the site, of two layers, which the container `one` is made of.
pub fn image() -> ImageView {
    let digest = |text: &str| Digest::of(text.as_bytes());
    ImageView {
        digest: digest("image"),
        id: digest("config"),
        names: vec!["reg.lan/ops/app:1".into(), "reg.lan/ops/app:2".into()],
        layers: vec![digest("one"), digest("two")],
        bytes: 12_900_000,
        used_ms: 1_000,
        used_by: vec!["one".into()],
    }
}

impl ImageService for Fake {
    async fn images(&self) -> Served<ImagesView> {
        match self.0.apps.lock().expect("apps").is_empty() {
            true => Ok(ImagesView::default()),
            false => Ok(ImagesView { images: vec![image()], bytes: 12_900_000 }),
        }
    }

    async fn inspect(&self, name: &str) -> Served<serde_json::Value> {
        match image().names.iter().any(|known| known == name) {
            true => Ok(serde_json::json!({ "Id": image().id })),
            false => Err(ServiceError::new(ErrorKind::NotFound, format!("no image `{name}`"))),
        }
    }

    async fn pull(&self, name: ImageRef) -> Served<stream::Boxed<PullEvent>> {
        self.note(format!("pull {name}"));
        let last = match name.to_string().contains("broken") {
            true => {
                let err = ServiceError::new(ErrorKind::Failed, "cannot fetch the image: why not");
                PullEvent::Error(err.view())
            }
            false => {
                let name = Some(format!("{}:{}", name.repository("reg.lan"), name.tag()));
                PullEvent::Done(NamedImage::new(name, image().digest))
            }
        };
        let first = PullEvent::Progress { done: 5 << 20, total: 10 << 20 };
        Ok(stream::iter([first, last]).boxed())
    }

    async fn load(
        &self,
        from: String,
        name: Option<ImageRef>,
        pieces: Pieces,
        waits: Sender<String>,
    ) -> Served<Vec<NamedImage>> {
        if name.as_ref().is_some_and(|name| name.to_string().contains("late")) {
            waits.send("its turn".into()).await.expect("somebody listens");
        }
        let mut bytes = Vec::new();
        loop {
            let broken = |err: &dyn fmt::Display| {
                ServiceError::new(ErrorKind::Failed, format!("{from}: {err}"))
            };
            let piece = pieces.recv().await.map_err(|err| broken(&err))?;
            match piece.map_err(|err| broken(&err))? {
                piece if piece.is_empty() => break,
                piece => bytes.extend(piece),
            }
            if bytes.starts_with(b"rubbish") {
                return Err(ServiceError::new(ErrorKind::Failed, format!("{from} is no archive")));
            }
        }
        self.note(format!("load {} bytes as {name:?}", bytes.len()));
        let name = name.map(|name| name.to_string());
        let was = name.as_ref().filter(|it| it.contains("moved")).map(|_| image().digest);
        let unnamed = was.map(|_| "`A/B`: it is no name".to_owned()).into_iter().collect();
        Ok(vec![NamedImage { was, unnamed, ..NamedImage::new(name, Digest::of(&bytes)) }])
    }

    async fn save(&self, name: &str) -> Served<Saved> {
        self.inspect(name).await?;
        let lost = || Err(io::Error::other("the layer is gone"));
        let last = if name.ends_with(":2") { lost() } else { Ok(b"ive".to_vec()) };
        let pieces = stream::iter([Ok(b"arch".to_vec()), last]).boxed();
        Ok(Saved { id: image().id, pieces })
    }

    async fn remove(&self, name: &str) -> Served<RemovedView> {
        self.inspect(name).await?;
        self.note(format!("remove {name}"));
        match name.ends_with(":1") {
            true => Ok(RemovedView { names: vec![name.into()], digest: None }),
            false => Err(ServiceError::new(ErrorKind::Conflict, "container one is made of it")),
        }
    }

    async fn collect(&self, all: bool) -> Served<CollectedView> {
        self.note(if all { "collect all" } else { "collect" });
        let ImageView { digest, names, .. } = image();
        let left =
            vec![LeftView { digest, names, why: vec!["container one is made of it".into()] }];
        Ok(CollectedView { images: 0, layers: 2, bytes: 12_900_000, left })
    }
}
