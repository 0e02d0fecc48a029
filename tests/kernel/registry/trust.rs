//! Whose certificates are believed, at what time, and which of ours are shown.

use super::server::{self, Registry, Setup, tool};
use super::{Bed, image, push, text};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use terrarium::image::registry::settings::Settings;

const NAME: &str = "127.0.0.1:5000/ops/app:1";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock")
}

/// A registry with an image, and its issuer where it is looked for.
fn trusted(bed: &Bed, days: &str) -> (Registry, Settings) {
    let dir = bed.dir("server");
    server::certificates_for(&dir, days);
    let registry = Registry::start(&dir, Setup::Tls);
    let client = dir.join("client");
    push(&image(bed), NAME, &["--dest-cert-dir", text(&client)]);
    let settings = bed.settings();
    let own = settings.certs.join("127.0.0.1:5000");
    fs::create_dir_all(&own).expect("directory");
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(client.join(name), own.join(name)).expect("copy");
    }
    (registry, settings)
}

fn forget(bed: &Bed, digest: &terrarium::unit::Digest) {
    let name = NAME.parse().expect("name");
    terrarium::image::catalog::forget(&bed.store, &name).expect("forget");
    terrarium::image::catalog::remove(&bed.store, digest).expect("remove");
}

/// The certificate was made after this program, and the box's clock begins at each boot.
#[test]
fn a_box_in_1970_believes_a_certificate_of_today_and_none_that_was_too_old_before() {
    let bed = Bed::new("trust1970");
    let (registry, settings) = trusted(&bed, "365");
    let noted = bed.store.dir().join("clock");
    let written = || fs::metadata(&noted).and_then(|it| it.modified()).ok();
    let in_1970 = Settings { clock: || Duration::from_secs(7), ..settings.clone() };
    let digest = bed.pull(&in_1970, NAME).expect("pulled").image.digest;
    forget(&bed, &digest);
    // A clock that is right is noted once a day, as somebody vouches for it.
    let yesterday = SystemTime::now() - YEAR / 365;
    bed.pull(&settings, NAME).expect("pulled");
    assert!(written().is_some_and(|at| at > yesterday), "{:?}", written());
    forget(&bed, &digest);
    // It was later before: the certificate has ended meanwhile.
    let later = SystemTime::now() + 2 * YEAR;
    File::open(&noted).and_then(|file| file.set_modified(later)).expect("set");
    let said = bed.refused(&in_1970, NAME);
    assert!(said.contains("is the clock of this box right?"), "{said}");
    registry.stop();
    bed.close();
}

/// As docker's documentation has it: one command, and the very file given to those who pull.
#[test]
fn a_certificate_that_calls_itself_an_issuer_is_believed_where_it_stands() {
    let bed = Bed::new("trustself");
    let dir = bed.dir("server");
    let [crt, key] = ["server.crt", "server.key"].map(|name| dir.join(name));
    let made = ["req", "-newkey", "rsa:2048", "-nodes", "-sha256", "-x509", "-days", "365"];
    let subject = ["-subj", "/CN=test", "-addext", "subjectAltName = IP:127.0.0.1"];
    let to = ["-keyout", text(&key), "-out", text(&crt)];
    tool("openssl", &[&made[..], &subject, &to].concat());
    assert!(tool("openssl", &["x509", "-in", text(&crt), "-noout", "-text"]).contains("CA:TRUE"));
    let registry = Registry::start(&dir, Setup::Own);
    push(&image(&bed), NAME, &[]);
    let settings = bed.settings();
    let own = |authority: &str, from: &Path| {
        let own = settings.certs.join(authority);
        fs::create_dir_all(&own).expect("directory");
        fs::copy(from, own.join("ca.crt")).expect("copy");
    };
    let said = bed.refused(&settings, NAME);
    assert!(said.contains("put that or its issuer's into [registry] certs as"), "{said}");
    own("127.0.0.1:5000", &crt);
    own("localhost:5000", &crt);
    // All that is not what it is counts as ever: its name, and its time.
    let said = bed.refused(&settings, "localhost:5000/ops/app:1");
    assert!(said.contains("as a subjectAltName"), "{said}");
    let late = Settings { clock: || since_1970() + 2 * YEAR, ..settings.clone() };
    let said = bed.refused(&late, NAME);
    assert!(said.contains("is the clock of this box right?"), "{said}");
    bed.pull(&settings, NAME).expect("pulled");
    // Another one of the same name is none of ours.
    registry.stop();
    tool("openssl", &[&made[..], &subject, &to].concat());
    let registry = Registry::start(&dir, Setup::Own);
    let said = bed.refused(&settings, "127.0.0.1:5000/ops/other:1");
    assert!(said.contains("127.0.0.1:5000: "), "{said}");
    registry.stop();
    bed.close();
}

#[test]
fn any_pair_of_ours_is_shown_to_who_wants_it() {
    let bed = Bed::new("trustpairs");
    let (registry, settings) = trusted(&bed, "365");
    let own = settings.certs.join("127.0.0.1:5000");
    for end in ["cert", "key"] {
        fs::rename(own.join(format!("client.{end}")), own.join(format!("zoo.{end}")))
            .expect("move");
    }
    // Another one comes first, which this server does not know.
    let [cert, key] = ["cert", "key"].map(|end| own.join(format!("a.{end}")));
    let made = ["req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "365", "-subj", "/CN=b"];
    tool("openssl", &[&made[..], &["-keyout", text(&key), "-out", text(&cert)]].concat());
    bed.pull(&settings, NAME).expect("pulled");
    fs::remove_file(&key).expect("remove");
    let said = bed.refused(&settings, "127.0.0.1:5000/ops/other:1");
    assert!(said.contains("a.cert: there is no a.key beside it"), "{said}");
    fs::rename(&cert, &key).expect("move");
    let said = bed.refused(&settings, "127.0.0.1:5000/ops/other:1");
    assert!(said.contains("a.key: there is no a.cert beside it"), "{said}");
    registry.stop();
    bed.close();
}
