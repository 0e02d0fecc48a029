//! What an image says of its processes, without any of its layers: for whoever only stages it.

use super::config::ImageConfig;
use super::manifest::{self, Choice, Kind};
use super::platform::Runs;
use super::pull::{INDEXES_MAX, check};
use super::registry::Http;
use super::registry::credentials::Login;
use super::registry::failure::Failure;
use super::registry::first::First;
use super::registry::repository::{Found, Repository};
use super::registry::settings::Settings;
use super::schema1;
use super::work::Wish;
use crate::unit::{Digest, ImageRef};

/// How often a registry is asked, as by Diego's builder.
const ATTEMPTS: u32 = 4;

/// Fetches an image's manifest and configuration; an image of any schema and of a registry of either
/// version, as nothing of it is kept. Blocking, for some minutes at most.
pub fn look(
    name: &ImageRef,
    settings: Settings,
    login: Option<Login>,
) -> Result<ImageConfig, Failure> {
    let name = name.at(&settings.default);
    let http = Http::new(settings, Wish::default());
    let mut failed = 0;
    loop {
        let failure = match once(&http, &name, login.clone()) {
            Ok(config) => return Ok(config),
            Err(failure) => failure,
        };
        failed += 1;
        let pause = failure.pause(failed);
        let Some(pause) = pause.filter(|_| failed < ATTEMPTS) else { return Err(failure) };
        http.wish.wait(pause);
    }
}

fn once(http: &Http, name: &ImageRef, login: Option<Login>) -> Result<ImageConfig, Failure> {
    let host = name.host().unwrap_or_default();
    let (address, path) = (http.settings.address(host).to_owned(), name.repository(host));
    match Repository::find(http, &address, &path, login.clone())? {
        Found::Second(repository) => second(&repository, name),
        Found::Other(scheme) => {
            first(&First::find(http, (scheme, &address), &path, login.as_ref())?, name.tag())
        }
    }
}

/// Through indexes to the manifest for this box, and to what it names.
fn second(repository: &Repository<'_>, name: &ImageRef) -> Result<ImageConfig, Failure> {
    let runs = Runs::here();
    let mut wanted: Option<Digest> = name.digest().copied();
    for _ in 0..=INDEXES_MAX {
        let reference = wanted.map_or_else(|| name.tag().to_owned(), |digest| digest.to_string());
        let document = repository.manifest(&reference)?;
        let (_, bytes, kind) = check(document, wanted.as_ref())?;
        match kind {
            Kind::Index => {
                let choice = manifest::choose(&bytes, None, &runs).map_err(Failure::wrong)?;
                let (Choice::Index(blob) | Choice::Manifest(blob)) = choice;
                wanted = Some(blob.digest);
            }
            Kind::First => {
                let newest = schema1::read(&bytes).map_err(Failure::wrong)?.newest;
                return read_first(newest.as_bytes());
            }
            _ => {
                let id = manifest::config(&bytes).map_err(Failure::wrong)?;
                let raw = repository.document(&id.digest, id.size)?;
                let image = manifest::image(&bytes, &raw, &runs).map_err(Failure::wrong)?;
                return Ok(image.config);
            }
        }
    }
    Err(Failure::wrong(format!("its index leads to more than {INDEXES_MAX} others")))
}

/// Of a registry that speaks the first version only.
fn first(repository: &First<'_>, tag: &str) -> Result<ImageConfig, Failure> {
    let id = repository.id(tag)?;
    read_first(&repository.about(&id)?.json)
}

fn read_first(json: &[u8]) -> Result<ImageConfig, Failure> {
    ImageConfig::read_first(json).map(|(config, _)| config).map_err(Failure::wrong)
}
