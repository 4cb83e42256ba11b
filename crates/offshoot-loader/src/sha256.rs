//! SHA-256 (FIPS 180-4) of one slice: small before fast.

const ROUND: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// How many bytes [`sha256`] needs for a message of `len` bytes: whole blocks, with room for the padding.
pub const fn padded(len: usize) -> usize {
    (len / 64 + 2) * 64
}

/// The SHA-256 of the first `len` bytes of `message`, as big-endian words.
///
/// The bytes behind them must be zero; the padding is written there. `message` must have at least [`padded`] bytes:
/// with fewer the result is no hash.
pub fn sha256(message: &mut [u8], len: usize) -> [u32; 8] {
    let mut state = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    if let Some(mark) = message.get_mut(len) {
        *mark = 0x80;
    }
    // The padding ends, with the length in bits, where a block does.
    let last = (len + 8) / 64;
    for (at, block) in message.chunks_exact(64).take(last + 1).enumerate() {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            for byte in bytes {
                *word = *word << 8 | u32::from(*byte);
            }
        }
        if at == last {
            words[14] = (len as u64 >> 29) as u32;
            words[15] = (len as u32) << 3;
        }
        rounds(&mut state, &mut words);
    }
    state
}

fn rounds(state: &mut [u32; 8], words: &mut [u32; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (at, round) in ROUND.iter().enumerate() {
        let word = words[at & 15];
        let t1 = h
            .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
            .wrapping_add(e & f ^ !e & g)
            .wrapping_add(*round)
            .wrapping_add(word);
        let t2 = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22)).wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        // The word of sixteen rounds later takes the place of this one.
        let w1 = words[(at + 1) & 15];
        let w14 = words[(at + 14) & 15];
        words[at & 15] = word
            .wrapping_add(w1.rotate_right(7) ^ w1.rotate_right(18) ^ w1 >> 3)
            .wrapping_add(words[(at + 9) & 15])
            .wrapping_add(w14.rotate_right(17) ^ w14.rotate_right(19) ^ w14 >> 10);
    }
    for (sum, word) in state.iter_mut().zip(&[a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(*word);
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn it_is_the_hash_of_every_length_around_a_block() {
        for len in (0..300).chain([1000, 4095, 4096, 65_537]) {
            let data: Vec<u8> = (0..len).map(|n| (n * 7 + len) as u8).collect();
            let mut message = data.clone();
            message.resize(padded(len), 0);
            let hash: Vec<u8> = sha256(&mut message, len).iter().flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!(hash, Sha256::digest(&data)[..], "{len} bytes");
        }
    }

    #[test]
    fn too_little_room_is_no_panic() {
        for room in 0..130 {
            sha256(&mut vec![0; room], 100);
        }
    }
}
