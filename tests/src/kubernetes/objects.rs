use anyhow::Result;
use serde_json::{Value, json};

use super::ControlPlane;
use crate::cluster::{Endpoint, Family, Node, Place, Pod, Service};

/// What a pod's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Unready,
}

/// A Node object; its status is for [`ControlPlane::register_node`] to patch.
pub fn node(node: &Node) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name()}, "spec": {"podCIDRs": node.pod_cidrs()}})
}

/// A Pod object with the label `app`, bound to its node as by a scheduler.
pub fn pod(pod: &Pod, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name(), "labels": {"app": app}},
        "spec": {
            "nodeName": pod.node(),
            "containers": [{"name": "server", "image": "none"}],
            "terminationGracePeriodSeconds": 0,
        },
    })
}

/// A Service object of the pods with the label `app`, whose EndpointSlices the controller is to make.
pub fn selecting(service: &Service, app: &str) -> Value {
    let mut object = service.object();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("selector".to_owned(), json!({"app": app}));
    }
    object
}

impl ControlPlane<'_> {
    /// Makes the Node object of a node, with its addresses, as its kubelet would.
    pub fn register_node(&self, of: &Node) -> Result<()> {
        self.apply(&node(of))?;
        let addresses: Vec<Value> =
            Family::BOTH.iter().map(|&family| json!({"type": "InternalIP", "address": of.ip(family)})).collect();
        let status = json!({"status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }});
        self.patch_status("node", of.name(), &status)
    }

    /// Makes the Pod object of a pod and says that it is ready.
    pub fn run_pod(&self, of: &Pod, app: &str) -> Result<()> {
        self.apply(&pod(of, app))?;
        self.set_readiness(of, Readiness::Ready)
    }

    /// Applies a Service without selector with EndpointSlices of our own, which no controller touches.
    pub fn apply_unmanaged(&self, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
        self.apply(&service.object())?;
        self.apply_slices(service, endpoints)
    }

    /// The EndpointSlices of [`Self::apply_unmanaged`].
    pub fn apply_slices(&self, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
        let slices = Family::BOTH.map(|family| service.slice(family, endpoints));
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices}))
    }

    /// Waits until the controller's EndpointSlices of a service have so many ready endpoints in each family.
    pub fn wait_endpoints(&self, service: &Service, count: usize) -> Result<()> {
        let selector = format!("--selector=kubernetes.io/service-name={}", service.name);
        let path = "--output=jsonpath={range .items[*]}{.addressType}{range .endpoints[?(@.conditions.ready==true)]} {.addresses[0]}{end};{end}";
        let ready = |family: &str, text: &str| -> usize {
            let slices = text.split(';').filter(|slice| slice.starts_with(family));
            slices.map(|slice| slice.split_whitespace().count() - 1).sum()
        };
        self.wait(&format!("{count} ready endpoints of {}", service.name), || {
            let text = self.kubectl(&["get", "endpointslices", &selector, path]).unwrap_or_default();
            ready("IPv4", &text) == count && ready("IPv6", &text) == count
        })
    }

    /// Patches a pod's status as its kubelet would.
    pub fn set_readiness(&self, of: &Pod, readiness: Readiness) -> Result<()> {
        self.patch_status("pod", of.name(), &pod_status(of, readiness))
    }

    fn patch_status(&self, kind: &str, name: &str, status: &Value) -> Result<()> {
        let patch = format!("--patch={status}");
        self.kubectl(&["patch", kind, name, "--subresource=status", "--type=strategic", &patch]).map(drop)
    }
}

/// As a kubelet reports it.
pub(super) fn pod_status(of: &Pod, readiness: Readiness) -> Value {
    let [v4, v6] = Family::BOTH.map(|family| of.ip(family).to_string());
    let ready = match readiness {
        Readiness::Ready => "True",
        Readiness::Unready => "False",
    };
    json!({"status": {
        "phase": "Running",
        "podIP": v4,
        "podIPs": [{"ip": v4}, {"ip": v6}],
        "conditions": [{"type": "Ready", "status": ready}],
    }})
}
