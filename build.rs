//! How the program is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A list of 190 KiB that the loader reads at each start becomes a bitmap of 2 KiB. Understood by
    // our C library, musl 1.2.4 and later, and by binutils 2.38 and lld; an older binutils warns.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
