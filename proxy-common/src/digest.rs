//! Numbers made of other numbers, alike in the agent and in the kernel: for checks and filters, never against somebody
//! who chooses the input to collide.

/// Takes in words of 64 bits by multiplication, as wyhash does, in four instructions each.
#[derive(Clone, Copy)]
pub struct Digest(u64);

impl Digest {
    #[inline(always)]
    pub const fn new(seed: u32) -> Self {
        Self(seed as u64 ^ 0x9e37_79b9_7f4a_7c15)
    }

    #[inline(always)]
    pub const fn pair(self, low: u32, high: u32) -> Self {
        let mixed = (self.0 ^ (low as u64 | (high as u64) << 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(mixed ^ mixed >> 32)
    }

    #[inline(always)]
    pub const fn words(self, words: &[u32; 4]) -> Self {
        self.pair(words[0], words[1]).pair(words[2], words[3])
    }

    #[inline(always)]
    pub const fn value(self) -> u32 {
        let mixed = self.0.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as u32
    }
}
