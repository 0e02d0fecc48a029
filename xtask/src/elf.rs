//! One question about a program file: does it run without anything else in its root?

use anyhow::{Context, Result, bail};
use std::path::Path;

/// Fails when the program asks for a dynamic loader: in a container's root there is none for it.
pub fn need_static(program: &Path) -> Result<()> {
    let bytes =
        std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    match interpreter(&bytes) {
        None => bail!("{} is no 64-bit ELF program", program.display()),
        Some(true) => bail!(
            "{} needs a dynamic loader; build it with `--target {}`",
            program.display(),
            crate::host::target()
        ),
        Some(false) => Ok(()),
    }
}

/// Whether a 64-bit little-endian ELF file has a `PT_INTERP` program header; `None`: it is none.
///
/// | bytes  | field of the file header | | bytes of a program header | field |
/// |--------|--------------------------|-|---------------------------|-------|
/// | 0..6   | magic, class 2, data 1   | | 0..4                      | type, 3 = interpreter |
/// | 32..40 | place of program headers | |                           | |
/// | 54..56, 56..58 | size and number of them | |                    | |
fn interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, len: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(len)?)?;
        Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (place, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = usize::try_from(place.checked_add(index * size)?).ok()?;
        if number(at, 4)? == u64::from(PT_INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = kinds.len() as u8;
        for kind in kinds {
            let at = bytes.len();
            bytes.resize(at + 56, 0);
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn only_an_interpreter_makes_a_program_dynamic() {
        assert_eq!(interpreter(&program(&[6, 1, 1])), Some(false));
        assert_eq!(interpreter(&program(&[6, 3, 1])), Some(true));
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        assert_eq!(interpreter(&program(&[6, 3])[..80]), None);
    }
}
