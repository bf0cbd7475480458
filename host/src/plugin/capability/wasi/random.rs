//! Randomness as a plugin has it: it follows from the event's key, so that the same event gives the same webhooks.

use crate::event::EventKey;

/// SplitMix64, as what stands for WASI 0.1 has it: good enough to spread, and no secret.
#[derive(Clone, Debug)]
pub(in crate::plugin) struct EventRandom(u64);

impl EventRandom {
    /// The randomness of the event of that key: seeded with the FNV-1a of it, as the SDKs do.
    pub(in crate::plugin) fn of(key: &EventKey) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        Self(key.as_str().bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count.next_multiple_of(8));
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_from_the_key_alone() {
        let bytes = |value: &str| EventRandom::of(&EventKey::new("bus", "id", value)).bytes(13);
        assert_eq!(bytes("1"), bytes("1"));
        assert_ne!(bytes("1"), bytes("2"));
        assert_eq!(bytes("1").len(), 13);
    }

    #[test]
    fn the_numbers_are_splitmix_s() {
        let mut random = EventRandom(0);
        assert_eq!([random.next(), random.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }
}
