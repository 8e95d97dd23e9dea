//! What kind is asked for.

use super::state::CLUSTER;

/// Kubernetes 1.35 and later ask for version 2 of control groups, and go on with version 1 if told to.
const KUBELET: &str = "kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
";

/// The file for `kind create cluster --config`: dual stack, and no proxy. With the node image of ours there is no pod network
/// either, which `up` makes; another image has kind's.
pub fn text(nodes: u32, own_image: bool) -> String {
    let mut text = format!(
        "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: {CLUSTER}
networking:
  ipFamily: dual
  kubeProxyMode: none
  disableDefaultCNI: {own_image}
"
    );
    if own_image {
        text += KUBELET;
    }
    text += "nodes:\n- role: control-plane\n";
    for _ in 1..nodes {
        text += "- role: worker\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_is_the_control_plane() {
        let text = text(3, true);
        assert_eq!((text.matches("- role: control-plane").count(), text.matches("- role: worker").count()), (1, 2));
        assert!(text.contains("disableDefaultCNI: true"));
    }
}
