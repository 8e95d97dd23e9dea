//! Incremental Internet checksums (RFC 1071, RFC 1624).
//!
//! Sums here are 32-bit accumulators over words *as they lie in memory*: ones' complement addition gives the same
//! bytes whichever end comes first (RFC 1071, 2.B), so nothing is ever swapped. A *difference* is the sum of the new
//! words and of the complements of the old ones; adding it to a checksum is equation 3 of RFC 1624.

/// Ones' complement addition.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u32)
}

/// What replacing `old` by `new` adds to a sum.
#[inline(always)]
pub const fn difference(old: u32, new: u32) -> u32 {
    add(!old, new)
}

/// The sum folded to 16 bits, not complemented.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum field after the words under it changed by `difference` (RFC 1624, equation 3).
#[inline(always)]
pub const fn update(checksum: u16, difference: u32) -> u16 {
    !fold(add(!checksum as u32, difference))
}

/// What a UDP header carries for a computed sum of zero: zero itself means that there is no checksum (RFC 768).
#[inline(always)]
pub const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(words: &[u32]) -> u16 {
        !fold(words.iter().fold(0, |sum, &word| add(sum, word)))
    }

    proptest! {
        #[test]
        fn updating_equals_computing_anew(mut words in proptest::collection::vec(any::<u32>(), 1..16), at in any::<usize>(), new: u32) {
            // A segment of zeros alone is the one input for which +0 and -0 differ (RFC 1624, section 3).
            words.push(1);
            let at = at % (words.len() - 1);
            let before = of(&words);
            let change = difference(words[at], new);
            words[at] = new;
            prop_assert_eq!(update(before, change), of(&words));
        }
    }
}
