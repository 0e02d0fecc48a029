//! Digests of downloads and uploads, computed as the bytes pass.

use crate::model::action::{Checksum, ChecksumAlgorithm};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// One of Diego's three, under way.
pub enum Hasher {
    /// 16 bytes.
    Md5(Md5),
    /// 20 bytes.
    Sha1(Sha1),
    /// 32 bytes.
    Sha256(Sha256),
}

impl Hasher {
    /// For `algorithm`.
    pub fn new(algorithm: ChecksumAlgorithm) -> Hasher {
        match algorithm {
            ChecksumAlgorithm::Md5 => Hasher::Md5(Md5::new()),
            ChecksumAlgorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => Hasher::Sha256(Sha256::new()),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hash) => hash.update(bytes),
            Hasher::Sha1(hash) => hash.update(bytes),
            Hasher::Sha256(hash) => hash.update(bytes),
        }
    }

    /// The digest.
    pub fn finish(self) -> Vec<u8> {
        match self {
            Hasher::Md5(hash) => hash.finalize().to_vec(),
            Hasher::Sha1(hash) => hash.finalize().to_vec(),
            Hasher::Sha256(hash) => hash.finalize().to_vec(),
        }
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses bytes that came to another digest than `wanted`.
pub fn check(wanted: &Checksum, found: &[u8]) -> Result<(), String> {
    let found = hex(found);
    if wanted.value.eq_ignore_ascii_case(&found) {
        return Ok(());
    }
    let name = match wanted.algorithm {
        ChecksumAlgorithm::Md5 => "md5",
        ChecksumAlgorithm::Sha1 => "sha1",
        ChecksumAlgorithm::Sha256 => "sha256",
    };
    Err(format!("its {name} is {found}, not {}: it is damaged or another file", wanted.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_49_each_algorithm_is_checked_over_the_bytes() {
        for (algorithm, value) in [
            (ChecksumAlgorithm::Md5, "900150983CD24FB0D6963F7D28E17F72"),
            (ChecksumAlgorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                ChecksumAlgorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let wanted = Checksum { algorithm, value: value.into() };
            let of = |bytes: &[u8]| {
                let mut hash = Hasher::new(algorithm);
                hash.update(bytes);
                check(&wanted, &hash.finish())
            };
            assert_eq!(of(b"abc"), Ok(()), "{value}");
            assert!(of(b"abd").expect_err("another").contains("damaged"), "{value}");
        }
    }
}
