//! What of the kernel's objects belongs to a pin directory. Other tests make objects at the same time, so counting all
//! of them would say nothing.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::{MapData, loaded_maps};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

use crate::sandbox::{has_tcx, run};

/// Ids of the maps pinned in a pin directory.
pub fn maps(pin_dir: &Path) -> BTreeSet<u32> {
    let directory = pin_dir.join(format!("v{}", proxy_common::wire::LAYOUT)).join("maps");
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| MapData::from_pin(entry.unwrap().path()).unwrap().info().unwrap().id())
        .collect()
}

/// Ids of the programs in the kernel that use one of `maps`.
pub fn programs(maps: &BTreeSet<u32>) -> BTreeSet<u32> {
    loaded_programs()
        .flatten()
        .filter(|program| program.map_ids().ok().flatten().is_some_and(|used| used.iter().any(|id| maps.contains(id))))
        .map(|program| program.id())
        .collect()
}

/// Which of `maps` the kernel still has.
pub fn still_there(maps: &BTreeSet<u32>) -> BTreeSet<u32> {
    loaded_maps().flatten().map(|map| map.id()).filter(|id| maps.contains(id)).collect()
}

/// Id of the link that holds a program.
pub fn link_of(program: u32) -> u32 {
    let links: Vec<serde_json::Value> = serde_json::from_str(&run("bpftool", "-j link show")).unwrap();
    let link = links.iter().find(|link| link["prog_id"] == program).unwrap();
    u32::try_from(link["id"].as_u64().unwrap()).unwrap()
}

/// Names and ids of the TCX programs of a device on its way in and on its way out, in the order in which they run.
/// None where the kernel has no TCX.
pub fn tcx(device: &str) -> [Vec<(String, u32)>; 2] {
    if !has_tcx() {
        return Default::default();
    }
    [TcAttachType::Ingress, TcAttachType::Egress].map(|direction| {
        let (_, programs) = SchedClassifier::query_tcx(device, direction).unwrap();
        programs.iter().map(|program| (program.name_as_str().unwrap_or_default().to_owned(), program.id())).collect()
    })
}

/// Names of the TCX programs of a device.
pub fn tcx_names(device: &str) -> [Vec<String>; 2] {
    tcx(device).map(|programs| programs.into_iter().map(|(name, _)| name).collect())
}

/// The filters of a device as tc prints them.
pub fn filters(device: &str) -> [String; 2] {
    ["ingress", "egress"].map(|direction| run("tc", &format!("filter show dev {device} {direction}")))
}

pub fn has_clsact(device: &str) -> bool {
    run("tc", &format!("qdisc show dev {device}")).contains("clsact")
}
