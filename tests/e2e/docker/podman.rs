//! An app whose image podman has built, as a person does it: with a Containerfile.

use super::super::server::{Registry, Setup};
use super::{answer, fill, lab, manifest, text};
use crate::podman::Podman;
use std::fs;

const CONTAINERFILE: &str = "FROM scratch\nCOPY root /\nARG NAME=argument\n\
    ENV GREETING=hello NAME=$NAME\nLABEL org.example=x\nEXPOSE 9000/tcp 7000/udp\nVOLUME /data/here\n\
    USER ann:more\nWORKDIR /srv/work\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"/bin/serve\"]\nCMD [\"a b\"]\n";

#[test]
fn an_image_that_podman_has_built_and_pushed_or_saved_runs() {
    let (lab, dir) = lab("podman");
    let context = dir.join("context");
    fill(&context.join("root"));
    fs::write(context.join("Containerfile"), CONTAINERFILE).expect("write");
    let podman = Podman::new(dir.join("podman"));
    let name = "127.0.0.1:5000/ops/built:1";
    podman.build(&context, name);
    let registry = Registry::start(&dir, Setup::Plain);
    podman.push(name, "oci", name);
    let rest = format!("image.ref = \"{name}\"\nport = [{{ publish = 8000 }}]");
    lab.ok(&["apply", &manifest(&lab, "pushed", &rest)]);
    lab.until_state("pushed", "running");
    let serves = "1000\n60\n/srv/work\nhello argument 9000 1a b\n";
    assert_eq!(answer(&lab, 8000), serves);
    let said = lab.inside("pushed", "stat -c '%F %u' /data/here /srv/work").out;
    assert_eq!(said, "directory 0\ndirectory 1000\n");
    registry.stop();
    let archive = dir.join("saved.tar");
    podman.run(&["save", "--quiet", "--output", text(&archive), name]);
    let rest = format!("image.archive = \"{}\"\nport = [{{ publish = 8001 }}]", text(&archive));
    lab.ok(&["apply", &manifest(&lab, "saved", &rest)]);
    lab.until_state("saved", "running");
    assert_eq!(answer(&lab, 8001), serves);
    lab.finish();
}
