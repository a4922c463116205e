//! A checksum of what is kept, and the error where it does not fit.

use std::io::{Error, ErrorKind};

/// A 64-bit checksum against damage, not against malice: four lanes, so that it is no slower than
/// memory. A change within any one word always shows.
pub fn checksum(bytes: &[u8]) -> u64 {
    let step =
        |sum: u64, word: u64| ((sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(29);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let mut lanes = [1, 2, 3, 4];
    let blocks = bytes.chunks_exact(32);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = step(*lane, u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        }
    }
    let sum = rest.chunks(8).map(word).fold(bytes.len() as u64, step);
    lanes.into_iter().fold(sum, step)
}

/// The error for a kept file that is not as it was written.
pub fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_every_bit_and_the_order() {
        for len in [0, 1, 7, 8, 31, 32, 33, 75] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 251) as u8).collect();
            let sum = checksum(&bytes);
            for bit in 0..8 * len {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(checksum(&other), sum, "bit {bit} of {len} bytes");
            }
            assert_ne!(checksum(&[&bytes[..], &[0]].concat()), sum);
        }
        let words: Vec<u8> = (0..64).collect();
        let swapped = [&words[32..], &words[..32]].concat();
        assert_ne!(checksum(&swapped), checksum(&words));
    }
}
