//! How the program is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
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
