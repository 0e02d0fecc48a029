//! The recipe of an app's buildpacks: which ones, and how each gets to where the builder looks for it.

use super::StageError;
use super::recipe::copy_in;
use crate::model::action::{Action, Checksum, ChecksumAlgorithm, DownloadAction};
use crate::model::manifest::Manifest;
use crate::unit::{Digest, xxh64_hex};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a buildpack comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackFrom {
    /// A directory of the box, or an archive.
    Box(PathBuf),
    /// Its URL; the box fetches what has this digest, and keeps it.
    Checked(Digest),
    /// Its URL; the builder fetches it.
    Url,
}

/// The buildpacks that the manifest wants, in its order, out of those that the box has.
pub fn choose_buildpacks(
    manifest: &Manifest,
    available: &BTreeMap<String, PathBuf>,
) -> Result<Vec<(String, PackFrom)>, StageError> {
    let wanted = &manifest.build.buildpacks;
    if available.is_empty() && !wanted.iter().any(|name| is_url(name)) {
        return Err(StageError::NoBuildpacks);
    }
    let boxed = |path: &PathBuf| PackFrom::Box(path.clone());
    if wanted.is_empty() {
        return Ok(available.iter().map(|(name, path)| (name.clone(), boxed(path))).collect());
    }
    let find = |name: &String| match available.get(name) {
        Some(path) => Ok((name.clone(), boxed(path))),
        None if is_url(name) => {
            let sum = manifest.build.checksums.get(name);
            Ok((name.clone(), sum.map_or(PackFrom::Url, |sum| PackFrom::Checked(*sum))))
        }
        None => {
            let known = available.keys().cloned().collect();
            Err(StageError::UnknownBuildpack { name: name.clone(), known })
        }
    };
    wanted.iter().map(find).collect()
}

/// No name has that in it.
fn is_url(name: &str) -> bool {
    name.contains("://")
}

/// How a buildpack gets to where the builder looks for it; `None`: the builder gets it itself.
pub(super) fn bring(name: &str, from: &PackFrom, user: &str) -> Option<Action> {
    let hash = xxh64_hex(name);
    match from {
        PackFrom::Box(path) => {
            let to = format!("/tmp/buildpacks/{hash}");
            Some(copy_in(path, &to, &format!("buildpack {name}"), &[]))
        }
        PackFrom::Checked(sum) => Some(Action::Download(DownloadAction {
            from: name.to_owned(),
            to: format!("/tmp/buildpackdownloads/{hash}"),
            // Another digest is another thing, which does not take the place of this one.
            cache_key: format!("buildpack {sum}"),
            user: user.into(),
            artifact: "buildpack".into(),
            log_source: "STG".into(),
            checksum: Some(Checksum { algorithm: ChecksumAlgorithm::Sha256, value: sum.hex() }),
        })),
        PackFrom::Url => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn manifest(list: &str) -> Manifest {
        let text = format!("name = \"a\"\nsource.path = \"/a\"\n[build]\nbuildpacks = {list}");
        crate::config::manifest::parse(&text, "a.toml", Path::new("/"))
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    #[test]
    fn buildpacks_come_in_the_order_that_is_asked_for() {
        let names = ["static", "procfile", "python"];
        let available: BTreeMap<String, PathBuf> =
            names.iter().map(|name| (name.to_string(), Path::new("/bp").join(name))).collect();
        let choose = |list: &str| {
            let chosen = choose_buildpacks(&manifest(list), &available);
            chosen.map(|all| all.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(","))
        };
        assert_eq!(choose("[]"), Ok("procfile,python,static".into()));
        assert_eq!(choose("[\"static\", \"procfile\"]"), Ok("static,procfile".into()));
        let error = choose("[\"ruby\"]").expect_err("not on this box").to_string();
        assert_eq!(
            error,
            "this box has no buildpack `ruby`; it has `procfile`, `python`, `static`"
        );
        let none = BTreeMap::new();
        assert_eq!(choose_buildpacks(&manifest("[\"a\"]"), &none), Err(StageError::NoBuildpacks));
        let url = "https://h/p.git#main";
        let chosen = choose_buildpacks(&manifest(&format!("[\"{url}\"]")), &none);
        assert_eq!(chosen, Ok(vec![(url.to_owned(), PackFrom::Url)]));
    }

    #[test]
    fn what_has_a_digest_is_brought_from_what_the_box_keeps() {
        let sum = Digest::of(b"archive");
        let url = "https://h/p.zip";
        let list = format!("[{{ url = \"{url}\", sha256 = \"{}\" }}]", sum.hex());
        let chosen = choose_buildpacks(&manifest(&list), &BTreeMap::new()).expect("chosen");
        assert_eq!(chosen, [(url.to_owned(), PackFrom::Checked(sum))]);
        let Some(Action::Download(download)) = bring(url, &chosen[0].1, "vcap") else {
            panic!("it is downloaded")
        };
        assert_eq!(download.from, url);
        assert_eq!(download.to, format!("/tmp/buildpackdownloads/{}", xxh64_hex(url)));
        assert_eq!(download.checksum.expect("it is checked").value, sum.hex());
        assert_eq!(bring(url, &PackFrom::Url, "vcap"), None);
    }
}
