use std::fmt;

/// Where netfilter meets a packet that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Of a device, before the stack.
    Ingress,
    Prerouting,
    Forward,
    Postrouting,
    /// Of a device, behind the stack.
    Egress,
}

impl Hook {
    /// By its number in the families of IP and of bridges (`enum nf_inet_hooks`, linux/netfilter.h, and
    /// linux/netfilter_bridge.h). `None`: forwarded packets do not come there.
    pub(super) const fn of_ip(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Prerouting),
            2 => Some(Self::Forward),
            4 => Some(Self::Postrouting),
            5 => Some(Self::Ingress),
            _ => None,
        }
    }

    /// By its number in the family of devices (`enum nf_dev_hooks`).
    pub(super) const fn of_device(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        })
    }
}

/// What makes a chain look at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Rules,
    /// No rules, but a policy that does not accept.
    Policy,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rules => "has rules",
            Self::Policy => "does not accept by policy",
        })
    }
}

/// Who wants to see packets that are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onlooker {
    /// A base chain of nftables, or of the iptables that is made of nftables.
    Chain {
        family: &'static str,
        table: String,
        chain: String,
        cause: Cause,
    },
    /// A chain of the older iptables, which has tables of its own.
    LegacyChain {
        program: &'static str,
        table: String,
        chain: &'static str,
        cause: Cause,
    },
    /// A function of the kernel that is not known to be harmless. Its name is empty where the kernel tells none.
    Function {
        hook: Hook,
        name: String,
    },
    Ipsec,
    /// The kernel gave no answer.
    Unknown {
        what: &'static str,
        cause: String,
    },
    /// The user wants it so.
    SwitchedOff,
}

impl fmt::Display for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { family, table, chain, cause } => write!(f, "nftables chain {family} {table} {chain} {cause}"),
            Self::LegacyChain { program, table, chain, cause } => write!(f, "{program} chain {table} {chain} {cause}"),
            Self::Function { hook, name } if name.is_empty() => write!(f, "a function without a name is at {hook}"),
            Self::Function { hook, name } => write!(f, "function {name} is at {hook}"),
            Self::Ipsec => f.write_str("there are IPsec policies"),
            Self::Unknown { what, cause } => write!(f, "{what} cannot be asked for: {cause}"),
            Self::SwitchedOff => f.write_str("it is switched off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onlookers_are_named_as_their_tools_name_them() {
        let (table, chain) = ("filter".to_owned(), "forward".to_owned());
        for (onlooker, expected) in [
            (
                Onlooker::Chain { family: "inet", table: table.clone(), chain, cause: Cause::Rules },
                "nftables chain inet filter forward has rules",
            ),
            (
                Onlooker::LegacyChain { program: "iptables-legacy", table, chain: "FORWARD", cause: Cause::Policy },
                "iptables-legacy chain filter FORWARD does not accept by policy",
            ),
            (
                Onlooker::Function { hook: Hook::Forward, name: "selinux_ip_forward".into() },
                "function selinux_ip_forward is at forward",
            ),
            (
                Onlooker::Unknown { what: "nftables chains", cause: "Operation not permitted".into() },
                "nftables chains cannot be asked for: Operation not permitted",
            ),
        ] {
            assert_eq!(onlooker.to_string(), expected);
        }
    }
}
