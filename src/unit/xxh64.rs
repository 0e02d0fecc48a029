//! XXH64 with seed 0: not for security, only for names that must agree with Diego's.
//!
//! The builder looks for a buildpack in the directory that is named by this hash of its key.
//! Layout and constants: the xxHash specification, version 0.1.1.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// The hash of `text` as 16 lower-case hex digits.
pub fn xxh64_hex(text: &str) -> String {
    format!("{:016x}", xxh64(text.as_bytes()))
}

/// The hash of `data`: 32-byte stripes in four lanes, then the tail in words, half words, bytes.
fn xxh64(data: &[u8]) -> u64 {
    let (stripes, tail) = data.split_at(data.len() / 32 * 32);
    let mut hash = match stripes.is_empty() {
        true => P5,
        false => lanes(stripes),
    };
    hash = hash.wrapping_add(data.len() as u64);

    let (words, tail) = tail.split_at(tail.len() / 8 * 8);
    for word in words.as_chunks::<8>().0 {
        hash = (hash ^ round(0, little(word))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let (half, tail) = tail.split_at(tail.len() / 4 * 4);
    if !half.is_empty() {
        hash = (hash ^ little(half).wrapping_mul(P1)).rotate_left(23);
        hash = hash.wrapping_mul(P2).wrapping_add(P3);
    }
    for &byte in tail {
        hash = (hash ^ u64::from(byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }

    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// The four lanes over whole 32-byte stripes, folded into one.
fn lanes(stripes: &[u8]) -> u64 {
    let mut lane = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
    for stripe in stripes.as_chunks::<32>().0 {
        for (lane, word) in lane.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = round(*lane, little(word));
        }
    }
    let mixed = lane
        .iter()
        .zip([1, 7, 12, 18])
        .fold(0u64, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
    lane.iter().fold(mixed, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// Up to eight bytes as a little-endian number.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_have_their_published_hash() {
        for (text, hash) in [
            ("", "ef46db3751d8e999"),
            ("a", "d24ec4f1a98c6e5b"),
            ("abc", "44bc2cf5ad770999"),
            ("Nobody inspects the spammish repetition", "fbcea83c8a378bf1"),
        ] {
            assert_eq!(xxh64_hex(text), hash, "{text}");
        }
    }

    #[test]
    fn every_tail_length_agrees_with_the_reference_program() {
        let letters = |n: u8| (0..n).map(|i| char::from(b'a' + i % 26)).collect::<String>();
        let all: String = (0..=100).map(|n| xxh64_hex(&letters(n))).collect();
        // The same 101 texts through `xxhsum -H64` 0.8, joined, and hashed once more.
        assert_eq!(xxh64_hex(&all), "e780794e377eaa48");
    }
}
