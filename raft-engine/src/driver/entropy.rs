//! What a server makes of its random bytes, beyond what storage takes of them.

/// The seed of a server's election timeouts. Every one of the bytes counts: servers that drew the same timeouts would
/// split every vote, again and again (§5.2).
pub(super) fn timeout_seed(entropy: [u8; 32]) -> u64 {
    let (words, _) = entropy.as_chunks::<8>();
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |seed: u64, &word| {
        (seed.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_differ_in_any_random_byte_draw_other_timeouts() {
        let first = timeout_seed([7; 32]);
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert_ne!(timeout_seed(other), first, "byte {at} does not count");
        }
    }
}
