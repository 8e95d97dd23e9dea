//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4): a lookup table in which every backend has an
//! equal share, that every node builds alike, and in which a backend that comes or goes moves few entries of others.
//! The element for a flow is its hash modulo the size of the table (see [`crate::datapath`]).

use crate::wire::Address;

/// Sizes of tables. Each is a prime, so that every step walks over the whole table. They are far apart because a change
/// of size moves most flows.
const SIZES: [u32; 6] = [251, 1021, 4093, 16381, 65521, 262_139];

/// Elements per backend: shares then differ by at most a hundredth.
const ELEMENTS_PER_BACKEND: usize = 100;

/// A backend in the making of a table.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What the elements of this backend hold; not 0.
    id: u32,
    identity: u64,
    /// Where in its own permutation of the table the backend is.
    position: u32,
    step: u32,
}

impl Member {
    /// `port` in any byte order that all nodes use. Ids differ from node to node, so the place in the table comes from
    /// the address and the port alone.
    pub const fn new(id: u32, address: &Address, port: u16) -> Self {
        let [a, b, c, d] = address.0;
        let high = scramble((a as u64) << 32 | b as u64);
        let low = scramble(high ^ ((c as u64) << 32 | d as u64));
        Self { id, identity: scramble(low ^ port as u64), position: 0, step: 0 }
    }
}

/// The size of the table for so many backends: at least a hundred elements each, up to 2,621 backends.
pub fn table_size(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(ELEMENTS_PER_BACKEND);
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|&size| size as usize >= wanted).unwrap_or(largest)
}

/// Fills `table`, whose length is a [`table_size`], with the ids of `members`, whose order does not matter and is
/// changed. Without members the table is all zeros.
pub fn fill(table: &mut [u32], members: &mut [Member]) {
    table.fill(0);
    let size = table.len() as u64;
    if size < 2 || members.is_empty() {
        return;
    }
    members.sort_unstable_by_key(|member| (member.identity, member.id));
    for member in &mut *members {
        member.position = (member.identity % size) as u32;
        member.step = (scramble(member.identity) % (size - 1)) as u32 + 1;
    }
    let mut free = table.len();
    loop {
        for member in &mut *members {
            if free == 0 {
                return;
            }
            // A free element exists and the size is a prime, so the walk ends.
            let mut claimed = false;
            while !claimed {
                if let Some(element) = table.get_mut(member.position as usize)
                    && *element == 0
                {
                    *element = member.id;
                    claimed = true;
                }
                member.position = ((u64::from(member.position) + u64::from(member.step)) % size) as u32;
            }
            free -= 1;
        }
    }
}

/// The finalizer of SplitMix64, which flips half of the bits for each one that differs.
const fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::{collections::BTreeMap, vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    type Backend = (IpAddr, u16);

    /// A table of positions in `backends`, whatever ids a node gives.
    fn table(backends: &[Backend], size: u32, first_id: u32) -> Vec<u32> {
        let mut members: Vec<Member> = (first_id..)
            .zip(backends)
            .map(|(id, &(ip, port))| Member::new(id, &Address::from(ip), port.to_be()))
            .collect();
        let mut table = vec![0; size as usize];
        fill(&mut table, &mut members);
        table.iter_mut().for_each(|element| *element -= first_id);
        table
    }

    fn backends(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Backend>> {
        let ip = prop_oneof![
            (0..2000_u32).prop_map(|host| IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + host))),
            (0..2000_u128).prop_map(|host| IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + host))),
        ];
        proptest::collection::btree_set((ip, 8000..8003_u16), count).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_backend_has_its_fair_share(backends in backends(1..300)) {
            let size = table_size(backends.len());
            let mut shares = BTreeMap::new();
            for index in table(&backends, size, 1) {
                *shares.entry(index).or_insert(0) += 1;
            }
            prop_assert_eq!(shares.len(), backends.len());
            let fair = f64::from(size) / backends.len() as f64;
            for share in shares.into_values() {
                let error = (f64::from(share) - fair).abs() / fair;
                prop_assert!(error <= 0.01, "{share} of {fair}");
            }
        }

        #[test]
        fn nodes_agree_whatever_their_ids_and_order(backends in backends(1..100), seed in any::<u64>(), id in 1..9999_u32) {
            let size = table_size(backends.len());
            let mut shuffled: Vec<usize> = (0..backends.len()).collect();
            shuffled.sort_by_key(|&index| scramble(seed ^ index as u64));
            let there: Vec<Backend> = shuffled.iter().map(|&index| backends[index]).collect();
            let here = table(&backends, size, 1);
            let there: Vec<u32> =
                table(&there, size, id).into_iter().map(|index| shuffled[index as usize] as u32).collect();
            prop_assert_eq!(here, there);
        }

        #[test]
        fn a_removed_backend_moves_few_others(backends in backends(11..41), gone in any::<prop::sample::Index>()) {
            let size = table_size(backends.len());
            let gone = gone.index(backends.len());
            let mut left = backends.clone();
            left.remove(gone);
            let before = table(&backends, size, 1);
            let after = table(&left, size, 1);
            let moved = before.iter().zip(&after).filter(|&(&before, &after)| {
                before as usize != gone && backends[before as usize] != left[after as usize]
            });
            let share = moved.count() as f64 / f64::from(size);
            // A permutation that meets others at every turn moves more than its share; of 100,000 cases none moved a tenth.
            prop_assert!(share < 0.1, "{share} of the table moved");
        }
    }

    #[test]
    fn sizes_are_primes_of_a_hundred_elements_per_backend() {
        for size in SIZES {
            assert!((2..).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
        for (backends, size) in [(0, 251), (1, 251), (2, 251), (3, 1021), (10, 1021), (11, 4093), (2621, 262_139)] {
            assert_eq!(table_size(backends), size, "{backends}");
        }
        assert_eq!(table_size(usize::MAX), 262_139);
    }

    #[test]
    fn degenerate_tables_are_filled_too() {
        let one = Member::new(7, &Address::ANY, 0);
        for size in [0, 1] {
            let mut table = vec![9; size];
            fill(&mut table, &mut [one]);
            assert_eq!(table, vec![0; size]);
        }
        let mut table = vec![9; 251];
        fill(&mut table, &mut []);
        assert_eq!(table, vec![0; 251]);
        fill(&mut table, &mut [one]);
        assert_eq!(table, vec![7; 251]);
    }

    #[test]
    fn more_backends_than_elements_do_not_hang() {
        let mut members: Vec<Member> = (1..=300).map(|id| Member::new(id, &Address::from_v4(id), 80)).collect();
        let mut table = vec![0; 251];
        fill(&mut table, &mut members);
        assert!(table.iter().all(|&id| id != 0));
    }
}
