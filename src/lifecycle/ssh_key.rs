//! Private keys of SSH: made of a seed, or read as OpenSSH and Go write them; and what the server in
//! containers reads.
//!
//! | form | who writes it |
//! |---|---|
//! | `BEGIN RSA PRIVATE KEY` | Diego's nsync: PKCS#1, DER in base64 |
//! | `BEGIN PRIVATE KEY` | PKCS#8 around the same |
//! | `BEGIN OPENSSH PRIVATE KEY` | ssh-keygen and [`SshKey::pem`]: `openssh-key-v1`, without a passphrase |
//!
//! In OpenSSH's form and on the wire a text is its length in four bytes, the highest first, and its
//! bytes; a number is such a text, with a zero in front if its highest bit is set.

mod der;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use md5::{Digest as _, Md5};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;

/// What an `openssh-key-v1` begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";
const ED25519: &[u8] = b"ssh-ed25519";
const RSA: &[u8] = b"ssh-rsa";
/// Longest text of a key that is read, in bytes: RSA of 16384 bits.
const PEM_MAX: usize = 32 << 10;

/// A private key with its public half.
#[derive(Clone, PartialEq, Eq)]
pub enum SshKey {
    /// What [`SshKey::from_seed`] makes.
    Ed25519 {
        /// The secret, 32 bytes.
        seed: [u8; 32],
        /// The public half.
        public: [u8; 32],
    },
    /// What Diego's records have. Numbers, the highest byte first, without leading zeros.
    Rsa {
        /// Modulus, public exponent, private exponent, the two primes p and q, the inverse of q.
        numbers: [Vec<u8>; 6],
    },
}

impl SshKey {
    /// One that nobody has had. The error: the kernel gives no random numbers.
    pub fn fresh() -> Result<SshKey, String> {
        Ok(SshKey::from_seed(random_seed()?))
    }

    /// The one Ed25519 key of this secret.
    pub fn from_seed(seed: [u8; 32]) -> SshKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every seed makes a key");
        let public = pair.public_key().as_ref().try_into().expect("32 bytes, RFC 8032");
        SshKey::Ed25519 { seed, public }
    }

    /// Reads one of the forms of the table above. The error says what is wrong, and the cure.
    pub fn read(pem: &str) -> Result<SshKey, String> {
        let (label, bytes) = unarmour(pem)?;
        let key = match label {
            "OPENSSH PRIVATE KEY" => return read_openssh(&bytes),
            "RSA PRIVATE KEY" => der::pkcs1(&bytes),
            "PRIVATE KEY" => der::pkcs8(&bytes).and_then(der::pkcs1),
            _ => {
                return Err(format!(
                    "a {label} cannot be used; make one with ssh-keygen -t ed25519 -N ''"
                ));
            }
        };
        let numbers = key.ok_or("the key is damaged: it is not the RSA key that it says it is")?;
        Ok(SshKey::Rsa { numbers })
    }

    /// OpenSSH's text of it, for the client's side and for records.
    pub fn pem(&self) -> String {
        let public = self.public();
        let mut secret = Vec::new();
        // Two equal numbers, by which a passphrase would be checked.
        secret.extend([0; 8]);
        match self {
            SshKey::Ed25519 { seed, public } => {
                text(&mut secret, ED25519);
                text(&mut secret, public);
                text(&mut secret, &[seed.as_slice(), public].concat());
            }
            SshKey::Rsa { numbers: [n, e, d, p, q, inverse] } => {
                text(&mut secret, RSA);
                for part in [n, e, d, inverse, p, q] {
                    number(&mut secret, part);
                }
            }
        }
        text(&mut secret, b"");
        let pad = (8 - secret.len() % 8) % 8;
        secret.extend((1..=pad).map(|at| at as u8));
        let mut all = MAGIC.to_vec();
        for part in [&b"none"[..], b"none", b""] {
            text(&mut all, part);
        }
        all.extend(1u32.to_be_bytes());
        text(&mut all, &public);
        text(&mut all, &secret);
        let body = STANDARD.encode(all);
        let lines = body.as_bytes().chunks(70).map(|line| String::from_utf8_lossy(line));
        let body = lines.collect::<Vec<_>>().join("\n");
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    /// Its public half as clients keep it: `TYPE BASE64`.
    pub fn public_line(&self) -> String {
        let kind = match self {
            SshKey::Ed25519 { .. } => ED25519,
            SshKey::Rsa { .. } => RSA,
        };
        format!("{} {}", String::from_utf8_lossy(kind), STANDARD.encode(self.public()))
    }

    /// The fingerprint as OpenSSH shows it: `SHA256:` and base64.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(self.public())))
    }

    /// The fingerprint as Diego's records have it: MD5, pairs of hexadecimal digits and colons.
    pub fn md5_fingerprint(&self) -> String {
        let digest = Md5::digest(self.public());
        let pairs = digest.iter().map(|byte| format!("{byte:02x}"));
        pairs.collect::<Vec<_>>().join(":")
    }

    /// The file that dropbear reads as its host key.
    pub(super) fn dropbear(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            SshKey::Ed25519 { seed, public } => {
                text(&mut out, ED25519);
                text(&mut out, &[seed.as_slice(), public].concat());
            }
            SshKey::Rsa { numbers: [n, e, d, p, q, _] } => {
                text(&mut out, RSA);
                for part in [e, n, d, p, q] {
                    number(&mut out, part);
                }
            }
        }
        out
    }

    /// The public half on the wire.
    fn public(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            SshKey::Ed25519 { public, .. } => {
                text(&mut out, ED25519);
                text(&mut out, public);
            }
            SshKey::Rsa { numbers: [n, e, ..] } => {
                text(&mut out, RSA);
                number(&mut out, e);
                number(&mut out, n);
            }
        }
        out
    }
}

/// Thirty-two bytes that nobody can guess.
pub fn random_seed() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| "cannot make a key: the kernel gives no random numbers".to_owned())?;
    Ok(seed)
}

/// The name between the dashes, and the bytes in between.
fn unarmour(pem: &str) -> Result<(&str, Vec<u8>), String> {
    let none = "the key is no text from -----BEGIN to -----END";
    if pem.len() > PEM_MAX {
        return Err(format!("the key is longer than {PEM_MAX} bytes"));
    }
    let rest = pem.trim_start().strip_prefix("-----BEGIN ").ok_or(none)?;
    let (label, rest) = rest.split_once("-----").ok_or(none)?;
    let (body, _) = rest.split_once("-----END ").ok_or(none)?;
    if body.contains(':') {
        return Err("the key has a passphrase; take it off with ssh-keygen -p -N ''".into());
    }
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).map_err(|_| "the key is damaged: it is no base64")?;
    Ok((label, bytes))
}

fn read_openssh(bytes: &[u8]) -> Result<SshKey, String> {
    let damaged = || "the key is damaged: it ends too early".to_owned();
    let mut from = Cursor(bytes.strip_prefix(MAGIC).ok_or_else(damaged)?);
    let cipher = from.text().ok_or_else(damaged)?;
    if cipher != b"none" {
        return Err("the key has a passphrase; take it off with ssh-keygen -p -N ''".into());
    }
    let secret = (|| {
        let (_kdf, _options) = (from.text()?, from.text()?);
        let (_count, _public) = (from.u32()?, from.text()?);
        from.text()
    })();
    let mut from = Cursor(secret.ok_or_else(damaged)?);
    let kind = (|| {
        let _checks = (from.u32()?, from.u32()?);
        from.text()
    })();
    match kind.ok_or_else(damaged)? {
        ED25519 => {
            let _public = from.text().ok_or_else(damaged)?;
            let pair = from.text().filter(|pair| pair.len() == 64).ok_or_else(damaged)?;
            Ok(SshKey::from_seed(pair[..32].try_into().expect("it is cut so")))
        }
        RSA => {
            let mut next = || from.text().map(plain).ok_or_else(damaged);
            let [n, e, d, inverse, p, q] = [next()?, next()?, next()?, next()?, next()?, next()?];
            Ok(SshKey::Rsa { numbers: [n, e, d, p, q, inverse] })
        }
        kind => Err(format!(
            "a key of type {} cannot be used; make one with ssh-keygen -t ed25519 -N ''",
            String::from_utf8_lossy(kind)
        )),
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn number(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.first() {
        Some(first) if *first >= 0x80 => text(out, &[&[0], bytes].concat()),
        _ => text(out, bytes),
    }
}

/// A number without the zeros in front.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

/// What is left to read; trusts no length.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first key of RFC 8032, 7.1.
    fn known() -> SshKey {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&seed[2 * at..2 * at + 2], 16).expect("digits"))
            .collect();
        SshKey::from_seed(bytes.try_into().expect("32 bytes"))
    }

    #[test]
    fn a_seed_makes_the_key_that_openssh_reads_and_we_read_again() {
        let key = known();
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
        assert_eq!(key.public_line(), line);
        assert!(SshKey::read(&key.pem()).expect("our own") == key);
        assert_eq!(key.fingerprint().len(), 50);
        assert_eq!(key.md5_fingerprint().len(), 47);
        assert_eq!(key.dropbear().len(), 4 + 11 + 4 + 64);
    }

    #[test]
    fn what_is_no_key_says_so() {
        let locked = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END RSA";
        let pem = known().pem();
        let cut = pem.replace("AAAA", "");
        for (text, why) in [
            ("", "no text from"),
            ("-----BEGIN X", "no text from"),
            (locked, "passphrase"),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC", "cannot be used"),
            ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA", "damaged"),
            ("-----BEGIN RSA PRIVATE KEY-----\n*\n-----END RSA", "no base64"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END O", "too early"),
            (&cut, "damaged"),
        ] {
            let err = SshKey::read(text).err().unwrap_or_else(|| panic!("{text} was read"));
            assert!(err.contains(why), "{text}: {err}");
        }
    }
}
