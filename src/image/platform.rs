//! Which image of an index runs on this box.

/// What an image was made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `windows`...
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `386`...
    pub architecture: String,
    /// `v7`, `v8`... or nothing.
    pub variant: String,
}

/// What the box can run, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs(Vec<(&'static str, &'static str)>);

impl Runs {
    /// What this box runs.
    pub fn here() -> Runs {
        Runs::on(std::env::consts::ARCH, level())
    }

    /// What a box runs with the architecture `arch`, in Rust's words. `level` is that of its
    /// processor: 1 to 4 on x86-64, 5 to 7 on 32-bit ARM.
    pub fn on(arch: &str, level: u8) -> Runs {
        let all: &[(u8, &str, &str)] = match arch {
            "x86_64" => &[
                (4, "amd64", "v4"),
                (3, "amd64", "v3"),
                (2, "amd64", "v2"),
                (1, "amd64", "v1"),
                (1, "amd64", ""),
            ],
            "aarch64" => &[(0, "arm64", "v8"), (0, "arm64", "")],
            "arm" => &[(7, "arm", "v7"), (6, "arm", "v6"), (5, "arm", "v5"), (5, "arm", "")],
            "x86" => &[(0, "386", "")],
            "riscv64" => &[(0, "riscv64", "")],
            "powerpc64" => &[(0, "ppc64le", "")],
            "s390x" => &[(0, "s390x", "")],
            _ => &[],
        };
        Runs(all.iter().filter(|(least, ..)| *least <= level).map(|(_, a, v)| (*a, *v)).collect())
    }

    /// How well it runs here, 0 is best; `None`: not at all.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        let architecture = match platform.architecture.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armhf" | "armel" => "arm",
            other => other,
        };
        let ours = |(a, v): &(&str, &str)| *a == architecture && *v == platform.variant;
        match platform.os.as_str() {
            "linux" | "" => self.0.iter().position(ours),
            _ => None,
        }
    }

    /// The box in the words of images.
    pub fn name(&self) -> String {
        format!("linux/{}", self.0.first().map_or("unknown", |(architecture, _)| architecture))
    }
}

/// The level of the processor, for [`Runs::on`].
#[cfg(target_arch = "x86_64")]
fn level() -> u8 {
    use std::is_x86_feature_detected as has;
    let second = has!("sse4.2") && has!("popcnt") && has!("cmpxchg16b");
    let third = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("movbe");
    let fourth = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (second, second && third, second && third && fourth) {
        (_, _, true) => 4,
        (_, true, _) => 3,
        (true, ..) => 2,
        _ => 1,
    }
}

/// The level of the processor, for [`Runs::on`]: what the program was compiled for at least.
#[cfg(not(target_arch = "x86_64"))]
fn level() -> u8 {
    match (cfg!(target_feature = "v7"), cfg!(target_feature = "v6")) {
        (true, _) => 7,
        (_, true) => 6,
        _ => 5,
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where of the images, `os/architecture/variant`, the best is.
    fn best(runs: &Runs, images: &[&str]) -> Option<usize> {
        let platform = |text: &str| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: next() }
        };
        let ranked = images
            .iter()
            .enumerate()
            .filter_map(|(at, text)| Some((runs.rank(&platform(text))?, at)));
        ranked.min().map(|(_, at)| at)
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        let arm7 = Runs::on("arm", 7);
        let arm6 = Runs::on("arm", 6);
        let images =
            ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/arm"];
        assert_eq!(best(&arm7, &images), Some(2));
        assert_eq!(best(&arm6, &images), Some(1));
        assert_eq!(best(&arm7, &["linux/arm", "linux/arm/v5"]), Some(1));
        assert_eq!(best(&arm6, &["linux/arm/v7"]), None);
        let amd = Runs::on("x86_64", 2);
        assert_eq!(
            best(&amd, &["linux/386", "linux/amd64", "linux/amd64/v3", "linux/amd64/v2"]),
            Some(3)
        );
        assert_eq!(best(&amd, &["windows/amd64", "unknown/unknown", "linux/arm64"]), None);
        assert_eq!(best(&amd, &["linux/x86_64"]), Some(0));
        assert_eq!(best(&Runs::on("aarch64", 0), &["linux/arm64", "linux/arm64/v8"]), Some(1));
        assert_eq!(
            (amd.name(), Runs::on("vax", 9).name()),
            ("linux/amd64".into(), "linux/unknown".into())
        );
    }
}
