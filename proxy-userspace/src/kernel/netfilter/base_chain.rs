use netlink_packet_netfilter::nftables::{
    ChainAttribute, Hook as HookAttribute, NfTablesMessage, TableAttribute, TableFlags,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::{Cause, FastPath, Hook, Onlooker};
use crate::model::Family;

/// `NF_ACCEPT` of linux/netfilter.h.
const ACCEPT: u32 = 1;

/// A chain of nftables that hangs at a hook.
#[derive(Debug)]
pub struct BaseChain {
    family: NetfilterProtoFamily,
    table: String,
    name: String,
    hook: u32,
    kind: String,
    policy: u32,
    rules: u32,
}

impl BaseChain {
    /// `None` for a chain that others jump to, and for a message that is about no chain.
    pub fn parse(message: NetfilterMessage) -> Option<Self> {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = message.inner else { return None };
        let mut hook = None;
        let mut found = Self {
            family: message.header.family,
            table: String::new(),
            name: String::new(),
            hook: 0,
            kind: String::new(),
            policy: ACCEPT,
            // Nothing jumps to a base chain, so that its references are its rules. The kernel always counts them; where
            // it did not, there might be some.
            rules: 1,
        };
        for attribute in chain.attributes {
            match attribute {
                ChainAttribute::Table(table) => found.table = table,
                ChainAttribute::Name(name) => found.name = name,
                ChainAttribute::Hook(attributes) => {
                    hook = attributes.iter().find_map(|attribute| match attribute {
                        HookAttribute::Number(number) => Some(u32::from(*number)),
                        _ => None,
                    });
                }
                ChainAttribute::Type(kind) => found.kind = kind,
                ChainAttribute::Policy(policy) => found.policy = policy,
                ChainAttribute::Use(rules) => found.rules = rules,
                _ => {}
            }
        }
        found.hook = hook?;
        Some(found)
    }

    /// Notes in `path` the packets that it looks at.
    pub fn judge(&self, dormant: &[Table], path: &mut FastPath) {
        let is_dormant = dormant.iter().any(|table| table.family == self.family && table.name == self.table);
        if let Some(cause) = self.cause()
            && !is_dormant
        {
            let (table, chain) = (self.table.clone(), self.name.clone());
            path.add(self.families(), &Onlooker::Chain { family: word(self.family), table, chain, cause });
        }
    }

    fn cause(&self) -> Option<Cause> {
        let hook = match self.family {
            NetfilterProtoFamily::NetDev => Hook::of_device(self.hook),
            _ => Hook::of_ip(self.hook),
        };
        let counts = self.rules > 0 && !(hook == Some(Hook::Postrouting) && self.kind == "nat");
        match hook {
            None => None,
            Some(_) if counts => Some(Cause::Rules),
            Some(_) => (self.policy != ACCEPT).then_some(Cause::Policy),
        }
    }

    /// Those of the packets that it is shown.
    fn families(&self) -> &'static [Family] {
        match self.family {
            NetfilterProtoFamily::IPv4 => &[Family::V4],
            NetfilterProtoFamily::IPv6 => &[Family::V6],
            NetfilterProtoFamily::ARP => &[],
            _ => &Family::ALL,
        }
    }
}

/// A table of nftables.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    family: NetfilterProtoFamily,
    name: String,
}

impl Table {
    /// One that is dormant: its chains are at no hook.
    pub fn parse_dormant(message: NetfilterMessage) -> Option<Self> {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner else { return None };
        let is_dormant = table
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant)));
        let name = table.attributes.into_iter().find_map(|attribute| match attribute {
            TableAttribute::Name(name) => Some(name),
            _ => None,
        });
        Some(Self { family: message.header.family, name: name? }).filter(|_| is_dormant)
    }
}

/// As `nft` writes it.
fn word(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::ARP => "arp",
        NetfilterProtoFamily::NetDev => "netdev",
        NetfilterProtoFamily::Bridge => "bridge",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::captured::answers;
    use super::*;

    fn chains() -> Vec<BaseChain> {
        answers(include_str!("captured/chains.hex")).into_iter().filter_map(BaseChain::parse).collect()
    }

    fn dormant() -> Vec<Table> {
        answers(include_str!("captured/tables.hex")).into_iter().filter_map(Table::parse_dormant).collect()
    }

    fn onlookers(chain: &BaseChain, dormant: &[Table]) -> [String; 2] {
        let mut path = FastPath::OPEN;
        chain.judge(dormant, &mut path);
        Family::ALL.map(|family| path.onlooker(family).map(ToString::to_string).unwrap_or_default())
    }

    #[test]
    fn only_base_chains_are_taken() {
        let names: Vec<String> = chains().into_iter().map(|chain| format!("{} {}", chain.table, chain.name)).collect();
        assert_eq!(names, ["fw forward", "one pre", "dev in", "dev empty", "nat post", "asleep forward"]);
    }

    #[test]
    fn chains_are_judged_by_hook_type_rules_and_table() {
        let dormant = dormant();
        assert_eq!(dormant, [Table { family: NetfilterProtoFamily::Inet, name: "asleep".into() }]);
        let judged: Vec<[String; 2]> = chains().iter().map(|chain| onlookers(chain, &dormant)).collect();
        let expected = [
            ["nftables chain inet fw forward has rules"; 2],
            ["", "nftables chain ip6 one pre has rules"],
            ["nftables chain netdev dev in has rules"; 2],
            ["", ""],
            ["", ""],
            ["", ""],
        ];
        assert_eq!(judged, expected);
        assert_eq!(onlookers(&chains()[5], &[]), ["nftables chain inet asleep forward has rules"; 2]);
    }

    #[test]
    fn a_policy_counts_where_rules_do_not() {
        let without_rules = |at: usize, policy| BaseChain { rules: 0, policy, ..chains().swap_remove(at) };
        const POLICY: &str = "nftables chain inet fw forward does not accept by policy";
        assert_eq!(onlookers(&without_rules(0, 0), &[]), [POLICY; 2]);
        assert_eq!(onlookers(&without_rules(0, 1), &[]), ["", ""]);
        let masquerading = BaseChain { policy: 0, ..chains().swap_remove(4) };
        assert_eq!(onlookers(&masquerading, &[]), ["nftables chain ip nat post does not accept by policy", ""]);
    }
}
