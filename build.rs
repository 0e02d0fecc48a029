//! How the program is linked, and when it was written.

/// 2026-11-01, for who builds without saying when that is.
const WRITTEN: u64 = 1_793_491_200;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Not when it is compiled: the same source gives the same program.
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    println!("cargo::rustc-env=TERRARIUM_WRITTEN={}", said.unwrap_or(WRITTEN).max(WRITTEN));
    // A list of 190 KiB that the loader reads at each start becomes a bitmap of 2 KiB. Understood by
    // our C library, musl 1.2.4 and later, and by binutils 2.38 and lld; an older binutils warns.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Only what is shipped ends where it panics; what is tested unwinds.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says it");
        println!("cargo::rerun-if-changed=no-unwind.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{dir}/no-unwind.ld");
    }
}
