use proxy_common::wire::{Class, Kind, Masquerade, Policy, Reach, Rule};

use crate::model;

const fn rule(reach: Reach, masquerade: Masquerade) -> Rule {
    Rule { reach, masquerade }
}

/// Pod, host and outside, in this order.
fn policy(kind: Kind, rules: [Rule; 3]) -> Policy {
    Class::ALL.into_iter().zip(rules).fold(Policy::new(kind), |policy, (class, rule)| policy.with(class, rule))
}

/// What clients get at a ClusterIP.
///
/// Where kube-proxy masquerades everybody from outside, we do so only towards backends of other nodes: replies of the
/// others pass this node anyhow (docs/decisions/0002). A process of the node itself sends from an address of the node.
pub fn of_cluster_ip(internal: model::Policy, masquerade_all: bool) -> Policy {
    let reach = match internal {
        model::Policy::Cluster => Reach::Cluster,
        model::Policy::Local => Reach::Local,
    };
    let masquerades = if masquerade_all {
        [Masquerade::Always; 3]
    } else {
        [Masquerade::Never, Masquerade::Never, Masquerade::Remote]
    };
    policy(Kind::ClusterIp, masquerades.map(|masquerade| rule(reach, masquerade)))
}

/// What clients get at an external IP, an address of a load balancer or a NodePort. `detects_pods`: pods of the
/// frontend's family can be told from other clients.
pub fn of_external(kind: Kind, external: model::Policy, detects_pods: bool) -> Policy {
    let to_all = rule(Reach::Cluster, Masquerade::Always);
    let rules = match external {
        // The answer must come from the address that was dialled, whichever way it takes to a pod.
        model::Policy::Cluster => [to_all, to_all, rule(Reach::Cluster, Masquerade::Remote)],
        // Who is in the cluster already reaches all of its endpoints: the policy is about traffic that comes from outside.
        model::Policy::Local => {
            let pods = if detects_pods { Reach::Cluster } else { Reach::Local };
            [rule(pods, Masquerade::Never), to_all, rule(Reach::Local, Masquerade::Never)]
        }
    };
    policy(kind, rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Policy::{Cluster, Local};

    const ALL: Rule = rule(Reach::Cluster, Masquerade::Never);
    const ALL_REMOTE: Rule = rule(Reach::Cluster, Masquerade::Remote);
    const ALL_ALWAYS: Rule = rule(Reach::Cluster, Masquerade::Always);
    const OWN: Rule = rule(Reach::Local, Masquerade::Never);
    const OWN_REMOTE: Rule = rule(Reach::Local, Masquerade::Remote);
    const OWN_ALWAYS: Rule = rule(Reach::Local, Masquerade::Always);

    fn rules(policy: Policy) -> [Rule; 3] {
        Class::ALL.map(|class| policy.rule(class))
    }

    #[test]
    fn row_22_a_cluster_ip() {
        for (row, internal, masquerade_all, [pod, host, outside]) in [
            ("22: pods keep their address", Cluster, false, [ALL, ALL, ALL_REMOTE]),
            ("22: iTP Local", Local, false, [OWN, OWN, OWN_REMOTE]),
            ("22: masqueradeAll is always, for everybody", Cluster, true, [ALL_ALWAYS; 3]),
            ("22: the same under iTP Local", Local, true, [OWN_ALWAYS; 3]),
        ] {
            let policy = of_cluster_ip(internal, masquerade_all);
            assert_eq!(rules(policy), [pod, host, outside], "{row}");
            assert_eq!((policy.kind(), policy.is_node_address()), (Kind::ClusterIp, false));
        }
    }

    #[test]
    fn rows_23_to_29_external_frontends() {
        for (row, kind) in [("23", Kind::ExternalIp), ("24", Kind::LoadBalancer), ("25", Kind::NodePort)] {
            for (what, external, detects_pods, [pod, host, outside]) in [
                ("eTP Cluster", Cluster, true, [ALL_ALWAYS, ALL_ALWAYS, ALL_REMOTE]),
                ("eTP Cluster, pods unknown", Cluster, false, [ALL_ALWAYS, ALL_ALWAYS, ALL_REMOTE]),
                ("26, 27, 28: eTP Local", Local, true, [ALL, ALL_ALWAYS, OWN]),
                ("27, 28, 29: eTP Local, pods unknown", Local, false, [OWN, ALL_ALWAYS, OWN]),
            ] {
                let policy = of_external(kind, external, detects_pods);
                assert_eq!(rules(policy), [pod, host, outside], "{row}: {what}");
                assert_eq!(policy.kind(), kind);
            }
        }
    }
}
