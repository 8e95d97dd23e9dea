use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who sent a packet that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Class {
    /// Local traffic in the sense of kube-proxy's `detectLocalMode`: a pod of this node.
    Pod = 0,
    /// A process in the node's own network namespace.
    Host = 1,
    /// Anything else: other machines, pods of other nodes, machines and containers of this node that are no pods.
    Outside = 2,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Pod, Self::Host, Self::Outside];

    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Host => "host",
            Self::Outside => "outside",
        }
    }
}

/// The endpoints that a class may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reach {
    /// Those of the whole cluster.
    Cluster = 0,
    /// Those of this node.
    Local = 1,
}

/// When the node's address takes the place of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Masquerade {
    /// Where the contract does not ask for it.
    Never = 0,
    /// For backends of other nodes, whose replies would pass this node by.
    Remote = 1,
    Always = 2,
}

/// What a class of clients gets at a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub reach: Reach,
    pub masquerade: Masquerade,
}

/// What kind of address a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    ClusterIp = 0,
    ExternalIp = 1,
    LoadBalancer = 2,
    NodePort = 3,
}

impl Kind {
    /// The word used in output, as Kubernetes writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::ExternalIp => "ExternalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}

/// The traffic policies of Kubernetes, resolved by the agent: four bits for each [`Class`], which hold its [`Rule`], the
/// [`Kind`] of the frontend, and [`Policy::NODE_ADDRESS`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Policy(pub u32);

impl Policy {
    /// A ClusterIP that is an address of this node too (NodeLocal DNSCache): a socket that is bound to exactly this
    /// address gets the flow.
    pub const NODE_ADDRESS: u32 = 1 << 16;
    const KIND: u32 = 20;
    const REACH: u32 = 1;

    pub const fn new(kind: Kind) -> Self {
        Self((kind as u32) << Self::KIND)
    }

    pub const fn with(self, class: Class, rule: Rule) -> Self {
        let shift = class as u32 * 4;
        let bits = rule.reach as u32 | (rule.masquerade as u32) << 1;
        Self(self.0 & !(0xf << shift) | bits << shift)
    }

    pub const fn with_node_address(self) -> Self {
        Self(self.0 | Self::NODE_ADDRESS)
    }

    #[inline(always)]
    pub const fn rule(self, class: Class) -> Rule {
        let bits = self.0 >> (class as u32 * 4);
        Rule {
            reach: if bits & Self::REACH == 0 { Reach::Cluster } else { Reach::Local },
            masquerade: match bits >> 1 & 3 {
                0 => Masquerade::Never,
                1 => Masquerade::Remote,
                _ => Masquerade::Always,
            },
        }
    }

    #[inline(always)]
    pub const fn is_node_address(self) -> bool {
        self.0 & Self::NODE_ADDRESS != 0
    }

    pub const fn kind(self) -> Kind {
        match self.0 >> Self::KIND & 3 {
            0 => Kind::ClusterIp,
            1 => Kind::ExternalIp,
            2 => Kind::LoadBalancer,
            _ => Kind::NodePort,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_every_class_survives_the_round_trip() {
        for kind in [Kind::ClusterIp, Kind::ExternalIp, Kind::LoadBalancer, Kind::NodePort] {
            for class in Class::ALL {
                for reach in [Reach::Cluster, Reach::Local] {
                    for masquerade in [Masquerade::Never, Masquerade::Remote, Masquerade::Always] {
                        let rule = Rule { reach, masquerade };
                        let other = Rule { reach: Reach::Local, masquerade: Masquerade::Remote };
                        let all = Class::ALL.into_iter().fold(Policy::new(kind), |all, class| all.with(class, other));
                        let policy = all.with(class, rule).with_node_address();
                        assert_eq!((policy.kind(), policy.rule(class)), (kind, rule));
                        assert!(policy.is_node_address());
                        for untouched in Class::ALL.into_iter().filter(|&untouched| untouched != class) {
                            assert_eq!(policy.rule(untouched), other);
                        }
                    }
                }
            }
        }
    }
}
