//! `image`: what the box has of images. Files are opened here, with the rights of who types; the
//! daemon gets and gives bytes.

pub(super) mod archive;

use super::error::CliError;
use super::parse::Image;
use super::remote::Remote;
use super::show;
use super::signals::signals;
use super::text::{clean, size};
use super::ui::{Ui, now_ms};
use crate::api::apps::images::{NamedImage, PullEvent, SAVED_ID};
use crate::api::http::client::{ClientError, Reply};
use crate::sys::signal::Signal;
use crate::unit::ImageRef;
use serde_json::json;
use smol::future;
use smol::stream::StreamExt;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Progress is shown this often at most.
const OFTEN: Duration = Duration::from_secs(1);

/// The verb.
pub async fn image(ui: &mut Ui, remote: &Remote, image: Image) -> Result<u8, CliError> {
    match image {
        Image::List => {
            let images = remote.images().await?;
            match ui.json {
                true => ui.document(&images)?,
                false => ui.print(&show::images::list(&images, now_ms(), ui.color))?,
            }
            Ok(0)
        }
        Image::Pull(name) => pull(ui, remote, &name).await,
        Image::Load { path, name } => load(ui, remote, &path, name.as_ref()).await,
        Image::Save { image, file } => saved(ui, remote, &image, &file).await,
        Image::Remove(images) => remove(ui, remote, &images).await,
        Image::Collect { all } => {
            let gone = remote.collect(all).await?;
            match ui.json {
                true => ui.document(&gone)?,
                false => {
                    ui.note(&show::images::collected(&gone));
                    let left = show::images::left(&gone);
                    left.into_iter().for_each(|line| ui.note(&clean(&line)));
                }
            }
            Ok(0)
        }
        Image::Inspect(image) => {
            let all = remote.inspect_image(&image).await?;
            ui.document(&all).map(|()| 0)
        }
    }
}

async fn pull(ui: &mut Ui, remote: &Remote, name: &ImageRef) -> Result<u8, CliError> {
    let mut reply = remote.pull_image(name).await?;
    let mut shown = None::<Instant>;
    while let Some(event) = reply.next_line::<PullEvent>().await? {
        if ui.json {
            ui.item(&event)?;
        }
        match event {
            PullEvent::Progress { done, total } => {
                if ui.is_watched && shown.is_none_or(|shown| shown.elapsed() >= OFTEN) {
                    shown = Some(Instant::now());
                    ui.note(&format!("{name}: {} of {}", size(done), size(total)));
                }
            }
            PullEvent::Waits { why } if !ui.json => ui.note(&waits(&name.to_string(), &why)),
            PullEvent::Waits { .. } => {}
            PullEvent::Error(view) => return Err(CliError::Refused(view)),
            PullEvent::Done(_) if ui.json => return Ok(0),
            PullEvent::Done(NamedImage { name: Some(name), digest, .. }) => {
                return ui.print(&format!("{}@{digest}\n", clean(&name))).map(|()| 0);
            }
            // It was asked for by its digest.
            PullEvent::Done(_) => return ui.print(&format!("{name}\n")).map(|()| 0),
        }
    }
    let why = "it ended before the image was there".to_owned();
    Err(ClientError::Nonsense(why).into())
}

async fn load(
    ui: &mut Ui,
    remote: &Remote,
    path: &Path,
    name: Option<&ImageRef>,
) -> Result<u8, CliError> {
    let unread = |source| CliError::File { doing: "read", path: path.to_owned(), source };
    let pieces = archive::read(path).map_err(unread)?;
    let from = path.display().to_string();
    let mut told = |why: &str| ui.note(&waits(&from, why));
    let loaded = remote.load_image(&from, name, pieces, &mut told).await;
    let loaded = loaded.map_err(|err| match err {
        CliError::Client(ClientError::Source(source)) => unread(source),
        err => err,
    })?;
    if ui.json {
        return ui.document(&loaded).map(|()| 0);
    }
    for NamedImage { name, digest, was, unnamed } in loaded {
        let shown = name.as_ref().map_or_else(|| digest.to_string(), |it| format!("{it}@{digest}"));
        ui.print(&format!("{}\n", clean(&shown)))?;
        if let (Some(name), Some(was)) = (name, was) {
            ui.note(&clean(&format!("{name}: it was {was} before")));
        }
        for why in unnamed {
            ui.note(&clean(&format!("{digest} is not called {why}")));
        }
    }
    Ok(0)
}

/// What is said of an image that has to wait.
fn waits(image: &str, why: &str) -> String {
    clean(&format!("{image}: it waits: {why}"))
}

/// As [`saved`]; when a signal ends it, nothing of the file is left. One that is written to as it
/// is, such as a pipe, may block: who types ends that as usual.
pub fn save(ui: &mut Ui, remote: &Remote, image: &str, file: &Path) -> Result<u8, CliError> {
    if is_stdout(file) || !archive::Draft::is_apart(file) {
        return smol::block_on(saved(ui, remote, image, file));
    }
    let mut signals = signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let ended = async {
        match signals.next().await {
            Some(number) => Ok(128 + u8::try_from(number).unwrap_or_default()),
            None => future::pending().await,
        }
    };
    smol::block_on(future::or(saved(ui, remote, image, file), ended))
}

/// Whether an archive goes where other programs read it: `-`, as everywhere.
fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

/// The archive to stdout, which has nothing else then.
async fn piped(ui: &mut Ui, remote: &Remote, image: &str) -> Result<u8, CliError> {
    if ui.is_screen {
        let why = "an archive is nothing to read; write `> FILE` or `| PROGRAM` behind it, or name a file";
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        return Err(CliError::File { doing: "write to", path: "the terminal".into(), source });
    }
    let mut reply = remote.save_image(image).await?;
    let id = reply.header(SAVED_ID).unwrap_or_default().to_owned();
    while let Some(piece) = reply.next_piece().await? {
        ui.bytes(&piece)?;
    }
    ui.note(&format!("saved, with the id {}", clean(&id)));
    Ok(0)
}

async fn saved(ui: &mut Ui, remote: &Remote, image: &str, file: &Path) -> Result<u8, CliError> {
    if is_stdout(file) {
        return piped(ui, remote, image).await;
    }
    let mut reply = remote.save_image(image).await?;
    let id = reply.header(SAVED_ID).unwrap_or_default().to_owned();
    let unwritten = |source| CliError::File { doing: "write", path: file.to_owned(), source };
    let mut draft = archive::Draft::new(file).map_err(unwritten)?;
    write(&mut reply, &mut draft, unwritten).await?;
    draft.finish().map_err(unwritten)?;
    match ui.json {
        true => ui.document(&json!({ "file": file, "id": id }))?,
        false => ui.note(&format!("{}: saved, with the id {}", file.display(), clean(&id))),
    }
    Ok(0)
}

async fn write(
    reply: &mut Reply,
    to: &mut impl Write,
    unwritten: impl Fn(std::io::Error) -> CliError,
) -> Result<(), CliError> {
    while let Some(piece) = reply.next_piece().await? {
        to.write_all(&piece).map_err(&unwritten)?;
    }
    Ok(())
}

/// All of `images`, even when one fails; the first failure is returned, the others are shown.
async fn remove(ui: &mut Ui, remote: &Remote, images: &[String]) -> Result<u8, CliError> {
    let mut failed: Option<CliError> = None;
    for image in images {
        match (remote.remove_image(image).await, &failed) {
            (Ok(gone), _) if ui.json => ui.item(&gone)?,
            (Ok(gone), _) => {
                for name in &gone.names {
                    ui.note(&clean(&format!("{name}: forgotten")));
                }
                if let Some(digest) = gone.digest {
                    ui.note(&format!("{digest}: removed; its layers go with `image gc`"));
                }
            }
            (Err(err), None) => failed = Some(err),
            (Err(err), Some(_)) => {
                ui.complain(&format!("terrarium: {}\n", crate::log::chain(&err)));
            }
        }
    }
    failed.map_or(Ok(0), Err)
}
