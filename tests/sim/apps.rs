//! What apps there may be: their manifests as text, and what staging makes of them.

use crate::world::{Bad, Wanted, World};
use std::path::Path;
use terrarium::cell::record::Release;
use terrarium::config::manifest;
use terrarium::model::manifest::Manifest;
use terrarium::model::task::StagingResult;
use terrarium::unit::{AppName, Digest};

/// Names in the order in which one may need another.
pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Reads what the script wrote; it writes nothing that is refused.
pub fn parse(wanted: &Wanted) -> Manifest {
    manifest::parse(&wanted.text, "app.toml", Path::new("/x"))
        .unwrap_or_else(|bad| panic!("{}\n{}", wanted.text, bad.render(false)))
}

/// What staging makes of a manifest and its bits.
pub fn release(manifest: &Manifest, bits: u64) -> Release {
    let bits = Digest::of(format!("{}-{bits}", manifest.name).as_bytes());
    let command = |name: &str| (name.to_owned(), "./run".to_owned());
    Release {
        manifest: manifest.clone(),
        fingerprint: bits,
        result: StagingResult {
            process_types: [command("web"), command("worker")].into(),
            ..StagingResult::default()
        },
        stack: Digest::of(b"stack"),
        droplet: bits,
        image: None,
        container: None,
    }
}

/// Which bits these are.
pub fn bits_of(env: &[(String, String)]) -> u64 {
    let bits = env.iter().find(|(name, _)| name == "BITS");
    bits.and_then(|(_, bits)| bits.parse().ok()).unwrap_or_default()
}

impl World {
    /// A manifest for this app, good or bad.
    pub fn invent(&mut self, index: usize) -> Wanted {
        self.bits += 1;
        let (name, bits) = (NAMES[index], self.bits);
        let has_readiness = self.rng.once_in(3);
        if self.rng.once_in(4) {
            let app: AppName = name.parse().expect("name");
            let bad = match self.rng.below(3) {
                0 => Bad::EndsAtOnce,
                1 if has_readiness => Bad::NeverReady,
                _ => Bad::NeverHealthy,
            };
            self.bad.insert((app, bits), bad);
        }
        let ends_early = self.aim.is_some_and(|aim| aim.is_early_end());
        let rng = &mut self.rng;
        let mut text = format!("name = \"{name}\"\n");
        let others: Vec<String> = NAMES[..index].iter().map(|it| format!("\"{it}\"")).collect();
        if !others.is_empty() && rng.once_in(3) {
            let other = rng.pick(&others).expect("one");
            text += &match rng.once_in(2) {
                true => format!("needs = [{other}]\n"),
                false => format!("after = [{other}]\n"),
            };
        }
        let memory = 64 << rng.below(3);
        text += "source.path = \".\"\n[run]\n";
        text += &format!("instances = {}\nmemory = \"{memory}MiB\"\n", rng.between(0, 3));
        text += "[process.web]\n";
        text += &format!("[process.worker]\ninstances = {}\n", rng.below(6).saturating_sub(3));
        let policy = rng.pick(&["always", "always", "on-failure", "never"]).expect("one");
        text += &format!("[restart]\npolicy = \"{policy}\"\n");
        text += &format!("[rollout]\nmax_in_flight = {}\n", rng.between(1, 2));
        if rng.once_in(4) {
            text += "strategy = \"recreate\"\n";
        }
        if rng.once_in(4) {
            text += "rollback = false\n";
        }
        if has_readiness {
            text += "[readiness]\ntype = \"exec\"\ncommand = \"true\"\n";
        }
        if rng.once_in(2) {
            text += &format!("[[port]]\ncontainer = 8080\npublish = {}\n", 8000 + index);
        }
        if rng.once_in(6) || ends_early {
            text += "[sidecar.beside]\ncommand = \"./beside\"\n";
        }
        // By this the world knows them again.
        text += &format!("[env]\nBITS = \"{bits}\"\n");
        Wanted { text, bits }
    }
}
