//! As much of DER as an RSA key is made of: X.690 8.1, RFC 8017 A.1.2, RFC 5208 5.

/// `INTEGER`, `OCTET STRING`, `SEQUENCE`.
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `rsaEncryption`, with its tag and length.
const OID_RSA: [u8; 11] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// Modulus, public and private exponent, the primes and the coefficient of `RSAPrivateKey`; `None`: it
/// is none.
pub(super) fn pkcs1(bytes: &[u8]) -> Option<[Vec<u8>; 6]> {
    let (inside, _) = take(bytes, SEQUENCE)?;
    let (_version, mut rest) = take(inside, INTEGER)?;
    let mut next = || {
        let (number, left) = take(rest, INTEGER)?;
        rest = left;
        Some(super::plain(number)).filter(|number| !number.is_empty())
    };
    let [n, e, d, p, q] = [next()?, next()?, next()?, next()?, next()?];
    // The private exponent for each prime is in between.
    let (_, _, inverse) = (next()?, next()?, next()?);
    Some([n, e, d, p, q, inverse])
}

/// The `RSAPrivateKey` in a `PrivateKeyInfo`; `None`: it is of another kind.
pub(super) fn pkcs8(bytes: &[u8]) -> Option<&[u8]> {
    let (inside, _) = take(bytes, SEQUENCE)?;
    let (_version, rest) = take(inside, INTEGER)?;
    let (algorithm, rest) = take(rest, SEQUENCE)?;
    let (key, _) = take(rest, OCTETS)?;
    algorithm.starts_with(&OID_RSA).then_some(key)
}

/// The content of the first element, which has this tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    if head[0] != tag {
        return None;
    }
    let (length, rest) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        // So many bytes of length; a key needs two of them.
        long @ 0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_lengths_are_not_trusted() {
        let mut key = vec![0x30, 28, 2, 1, 0, 2, 2, 0, 0x81];
        key.extend([3, 5, 7, 9, 11, 13, 15].iter().flat_map(|number| [2, 1, *number]));
        let numbers = pkcs1(&key).expect("a key");
        assert_eq!(numbers, [vec![0x81], vec![3], vec![5], vec![7], vec![9], vec![15]]);
        for end in 0..key.len() {
            assert_eq!(pkcs1(&key[..end]), None, "{end}");
        }
        assert_eq!(take(&[0x30, 0x84, 0, 0, 0, 0], SEQUENCE), None);
        assert_eq!(take(&[0x30, 0x81], SEQUENCE), None);
        let mut info = vec![0x30, 50, 2, 1, 0, 0x30, 13];
        info.extend(OID_RSA);
        info.extend([5, 0, 4, 30]);
        info.extend(&key);
        assert_eq!(pkcs8(&info), Some(key.as_slice()));
        info[10] = 0x2b;
        assert_eq!(pkcs8(&info), None, "another algorithm");
    }
}
