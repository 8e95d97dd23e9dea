use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Cause, Hook, Onlooker};
use crate::model::Family;

/// `struct ipt_getinfo` (linux/netfilter_ipv4/ip_tables.h), which equals `struct ip6t_getinfo`. Offsets and sizes in
/// bytes.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Info {
    /// Ends with a zero; what the kernel is asked for.
    pub name: [u8; Self::NAME],
    pub valid_hooks: u32,
    /// Where the chain of each hook begins.
    pub hook_entry: [u32; 5],
    /// Where its policy is.
    pub underflow: [u32; 5],
    pub num_entries: u32,
    /// Of all entries.
    pub size: u32,
}

impl Info {
    pub const NAME: usize = 32;

    /// What the kernel is asked with. `None`: no table has such a name.
    pub fn request(table: &str) -> Option<Self> {
        let mut name = [0; Self::NAME];
        let bytes = table.as_bytes();
        if bytes.len() >= Self::NAME {
            return None;
        }
        name[..bytes.len()].copy_from_slice(bytes);
        Some(Self { name, valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], num_entries: 0, size: 0 })
    }
}

/// The chains that forwarded packets meet.
const CHAINS: [(u32, &str); 3] = [(0, "PREROUTING"), (2, "FORWARD"), (4, "POSTROUTING")];

/// A table of iptables-legacy or ip6tables-legacy.
pub struct LegacyTable<'a> {
    pub family: Family,
    pub name: &'a str,
    pub info: &'a Info,
}

impl LegacyTable<'_> {
    /// The first chain with rules. A chain without has nothing but its policy.
    pub fn chain_with_rules(&self) -> Option<Onlooker> {
        let has_rules = |number: usize| self.info.hook_entry[number] != self.info.underflow[number];
        self.find(Cause::Rules, |number, hook| has_rules(number) && !(hook == Hook::Postrouting && self.name == "nat"))
    }

    /// The first chain that does not accept by policy; `entries` are those of the table.
    pub fn chain_with_policy(&self, entries: &[u8]) -> Option<Onlooker> {
        let accepts = |number: usize| verdict(self.family, entries, self.info.underflow[number]) == Some(ACCEPT);
        self.find(Cause::Policy, |number, _| !accepts(number))
    }

    fn find(&self, cause: Cause, mut looks: impl FnMut(usize, Hook) -> bool) -> Option<Onlooker> {
        let (_, chain) = CHAINS.into_iter().find(|&(number, _)| {
            let is_valid = self.info.valid_hooks & (1 << number) != 0;
            Hook::of_ip(number).is_some_and(|hook| is_valid && looks(number as usize, hook))
        })?;
        let program = match self.family {
            Family::V4 => "iptables-legacy",
            Family::V6 => "ip6tables-legacy",
        };
        Some(Onlooker::LegacyChain { program, table: self.name.to_owned(), chain, cause })
    }
}

/// `-NF_ACCEPT - 1`: how the standard target says so.
const ACCEPT: i32 = -2;

/// The verdict of the rule at an offset. `None`: its target is no verdict, or there is no such rule.
fn verdict(family: Family, entries: &[u8], at: u32) -> Option<i32> {
    // `target_offset` of struct ipt_entry and of struct ip6t_entry.
    let offset = match family {
        Family::V4 => 88,
        Family::V6 => 140,
    };
    let entry = entries.get(at as usize..)?;
    let (target_offset, _) = u16::read_from_prefix(entry.get(offset..)?).ok()?;
    let target = entry.get(usize::from(target_offset)..)?;
    // struct xt_standard_target: size, name (empty for the standard target), revision, verdict.
    let (name, verdict) = (target.get(2..31)?, target.get(32..36)?);
    if name[0] != 0 {
        return None;
    }
    i32::read_from_bytes(verdict).ok()
}

#[cfg(test)]
mod tests {
    use super::super::captured::bytes;
    use super::*;

    /// What rules and, without them, policies say.
    fn judged(family: Family, name: &str, info: &str, entries: &str) -> [String; 2] {
        let info = Info::read_from_bytes(&bytes(info)).unwrap();
        let table = LegacyTable { family, name, info: &info };
        [table.chain_with_rules(), table.chain_with_policy(&bytes(entries))]
            .map(|onlooker| onlooker.map(|it| it.to_string()).unwrap_or_default())
    }

    const FILTER: [&str; 2] =
        [include_str!("captured/iptables-filter-info.hex"), include_str!("captured/iptables-filter-entries.hex")];

    #[test]
    fn a_policy_is_read_from_the_last_rule_of_a_chain() {
        let found = judged(Family::V4, "filter", FILTER[0], FILTER[1]);
        assert_eq!(found, ["", "iptables-legacy chain filter FORWARD does not accept by policy"]);
    }

    #[test]
    fn rules_are_seen_in_where_chains_begin_and_end() {
        let info = include_str!("captured/ip6tables-filter-info.hex");
        let found = judged(Family::V6, "filter", info, include_str!("captured/ip6tables-filter-entries.hex"));
        assert_eq!(found, ["ip6tables-legacy chain filter FORWARD has rules", ""]);
    }

    #[test]
    fn rules_that_masquerade_do_not_count() {
        let info = include_str!("captured/iptables-nat-info.hex");
        let entries = include_str!("captured/iptables-nat-entries.hex");
        assert_eq!(judged(Family::V4, "nat", info, entries), ["", ""]);
        assert_eq!(
            judged(Family::V4, "mangle", info, entries)[0],
            "iptables-legacy chain mangle POSTROUTING has rules"
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_verdict_that_accepts() {
        let entries = bytes(FILTER[1]);
        for length in 0..entries.len() {
            let text: String = entries[..length].iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!judged(Family::V4, "filter", FILTER[0], &text)[1].is_empty(), "{length}");
        }
        assert_eq!(verdict(Family::V4, &entries, u32::MAX), None);
        assert_eq!(verdict(Family::V4, &[0xff; 200], 0), None);
    }

    #[test]
    fn names_are_as_long_as_the_kernel_takes_them() {
        assert_eq!(Info::request(&"x".repeat(31)).unwrap().name[31], 0);
        assert!(Info::request(&"x".repeat(32)).is_none());
    }
}
