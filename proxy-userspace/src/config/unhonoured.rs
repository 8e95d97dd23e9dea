use std::time::Duration;

use serde_json::Value;

/// What becomes of a field of `KubeProxyConfiguration`.
enum Treatment {
    Honoured,
    /// Honoured if `mode` is one of these.
    HonouredIn(&'static [&'static str]),
    /// Without effect; nothing is said if its value is one of these, which is what happens anyhow.
    Silent(&'static [&'static str]),
    /// Without effect, and named whatever its value is.
    Named,
}

use Treatment::{Honoured, HonouredIn, Named, Silent};

/// Every field of v1alpha1 up to Kubernetes 1.36, by path; a path stands for everything below it. `null` and values
/// that are empty or zero are what an absent field is, and need no entry.
const FIELDS: &[(&str, Treatment)] = &[
    ("apiVersion", Honoured),
    ("kind", Honoured),
    ("mode", Honoured),
    ("bindAddress", Honoured),
    ("bindAddressHardFail", Silent(&[])),
    ("clientConnection.kubeconfig", Honoured),
    ("clientConnection.acceptContentTypes", Silent(&["application/json"])),
    // Objects are read as JSON, but both encodings say the same.
    ("clientConnection.contentType", Silent(&["application/json", "application/vnd.kubernetes.protobuf"])),
    ("clientConnection.qps", Silent(&["5"])),
    ("clientConnection.burst", Silent(&["10"])),
    ("clusterCIDR", Honoured),
    ("configSyncPeriod", Silent(&["15m"])),
    ("conntrack.maxPerCore", Silent(&["32768"])),
    ("conntrack.min", Silent(&["131072"])),
    ("conntrack.tcpBeLiberal", Silent(&[])),
    ("conntrack.tcpCloseWaitTimeout", Honoured),
    ("conntrack.tcpEstablishedTimeout", Honoured),
    ("conntrack.udpStreamTimeout", Honoured),
    ("conntrack.udpTimeout", Honoured),
    ("detectLocal.bridgeInterface", Honoured),
    ("detectLocal.interfaceNamePrefix", Honoured),
    ("detectLocalMode", Honoured),
    ("enableProfiling", Silent(&[])),
    ("featureGates", Named),
    ("healthzBindAddress", Honoured),
    ("hostnameOverride", Honoured),
    // NodePorts do not answer on loopback addresses, so that `false` describes what is.
    ("iptables.localhostNodePorts", Silent(&[])),
    ("iptables.masqueradeAll", HonouredIn(&["", "iptables", "ipvs"])),
    ("iptables.masqueradeBit", Silent(&["14"])),
    ("iptables.minSyncPeriod", Silent(&["1s"])),
    ("iptables.syncPeriod", Silent(&["30s"])),
    ("ipvs.excludeCIDRs", Silent(&[])),
    ("ipvs.minSyncPeriod", Silent(&[])),
    ("ipvs.scheduler", Silent(&["rr"])),
    ("ipvs.strictARP", Silent(&[])),
    ("ipvs.syncPeriod", Silent(&["30s"])),
    ("ipvs.tcpFinTimeout", Silent(&[])),
    ("ipvs.tcpTimeout", Silent(&[])),
    ("ipvs.udpTimeout", Silent(&[])),
    ("logging.flushFrequency", Silent(&["5s", "5000000000"])),
    ("logging.format", Silent(&["text"])),
    ("logging.options", Silent(&[])),
    ("logging.verbosity", Silent(&[])),
    ("logging.vmodule", Silent(&[])),
    ("metricsBindAddress", Silent(&[])),
    ("nftables.masqueradeAll", HonouredIn(&["nftables"])),
    ("nftables.masqueradeBit", Silent(&["14"])),
    ("nftables.minSyncPeriod", Silent(&["1s"])),
    ("nftables.syncPeriod", Silent(&["30s"])),
    ("nodePortAddresses", Honoured),
    ("oomScoreAdj", Silent(&["-999"])),
    ("portRange", Silent(&[])),
    ("showHiddenMetricsForVersion", Silent(&[])),
    ("windowsRunAsService", Silent(&[])),
    ("winkernel", Silent(&[])),
];

/// Names the fields of a file that are set and have no effect: those that are known, and those that are not.
pub(super) fn warnings(file: &Value, mode: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut unknown = Vec::new();
    visit(file, String::new(), &mut |path, value| {
        let known = FIELDS.iter().find(|(field, _)| covers(field, path));
        match known.map(|(_, treatment)| treatment) {
            None => unknown.push(path.to_owned()),
            Some(Honoured) => {}
            Some(HonouredIn(modes)) if modes.contains(&mode) => {}
            Some(HonouredIn(_)) if is_empty(value) => {}
            Some(Named) if value.is_null() || *value == Value::Object(serde_json::Map::new()) => {}
            Some(Silent(values)) if is_empty(value) || values.iter().any(|silent| same(silent, value)) => {}
            Some(HonouredIn(_) | Silent(_) | Named) => fields.push(path.to_owned()),
        }
    });
    let mut warnings = Vec::new();
    for (what, mut paths) in [("have no effect here", fields), ("are unknown and ignored", unknown)] {
        paths.dedup();
        if !paths.is_empty() {
            warnings.push(format!("these fields {what}: {}", paths.join(", ")));
        }
    }
    warnings
}

/// Calls back for every leaf. A list is a leaf, and so is an empty map.
fn visit(value: &Value, path: String, leaf: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                visit(value, path, leaf);
            }
        }
        _ => leaf(&path, value),
    }
}

/// Whether the entry `field` is about `path`: the field itself, one that it contains, or one that contains it (which
/// the file then leaves empty).
fn covers(field: &str, path: &str) -> bool {
    let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    field == path || inside(field, path) || inside(path, field)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0" || duration(text) == Some(Duration::ZERO),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[expect(clippy::cmp_owned, reason = "the number 5 is meant by the text 5, but as JSON values the two differ")]
fn same(expected: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => {
            text == expected || duration(text).is_some_and(|found| Some(found) == duration(expected))
        }
        other => other.to_string() == expected,
    }
}

/// A duration as Go writes it, "1h0m0s". `None`: not one, or a negative one.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let parsed: kube::core::Duration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}
