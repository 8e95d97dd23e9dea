use std::collections::BTreeMap;
use std::io;

use proxy_common::datapath::Link;
use proxy_common::reason::Hook;
use rtnetlink::Handle;

use super::clsact::Clsact;
use super::device::Device;
use super::role::Role;
use super::tcx::Tcx;
use super::{Attached, Attachments, Failed};
use crate::kernel::pins::Direction;
use crate::kernel::{AttachMode, KernelError, Programs, preconditions};

/// Puts programs on devices and remembers what it has put where.
pub struct Attacher {
    tcx: Tcx,
    clsact: Clsact,
    use_tcx: bool,
    /// What runs on each device, by index. Absent: whatever is there was left by an earlier agent.
    done: BTreeMap<u32, Attached>,
    /// What an earlier agent left in the other mode is taken off once, after ours is in place.
    other_mode_checked: bool,
}

impl Attacher {
    pub fn new(netlink: Handle, programs: &Programs, mode: AttachMode) -> Result<Self, KernelError> {
        let pins = programs.pins();
        let (layout, namespace) = (pins.layout(), pins.namespace());
        let use_tcx = match mode {
            AttachMode::Auto => preconditions::has_tcx(),
            AttachMode::Tcx => true,
            AttachMode::Clsact => false,
        };
        Ok(Self {
            tcx: Tcx::open(layout.clone(), namespace)?,
            clsact: Clsact::new(netlink, layout, namespace),
            use_tcx,
            done: BTreeMap::new(),
            other_mode_checked: false,
        })
    }

    /// Makes the devices carry the programs of their roles, and all others none. A device that vanishes meanwhile is
    /// no failure.
    pub async fn apply(&mut self, programs: &mut Programs, wanted: &[(&Device, Role, &'static str)]) -> Attachments {
        let mut failed = Vec::new();
        self.done.retain(|index, _| wanted.iter().any(|(device, ..)| device.index == *index));
        for (device, role, reason) in wanted {
            // Devices without a known header have no role.
            let Some(link) = device.link else { continue };
            let attached = Attached {
                index: device.index,
                name: device.name.clone(),
                role: *role,
                ethernet: link == Link::Ethernet,
                reason,
            };
            if self.is_done(&attached) {
                continue;
            }
            self.done.remove(&device.index);
            match self.attach(programs, device, *role, link).await {
                Ok(()) => {
                    tracing::info!(device = device.name, index = device.index, role = role.word(), "attached");
                    self.done.insert(device.index, attached);
                }
                Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => {
                    tracing::info!(device = device.name, index = device.index, "vanished while it was being attached");
                }
                Err(cause) => failed.push(Failed { name: device.name.clone(), cause: cause.to_string() }),
            }
        }
        if let Err(cause) = self.leave_others(wanted).await {
            failed.push(Failed { name: "devices without a role".into(), cause: cause.to_string() });
        }
        Attachments { attached: self.done.values().cloned().collect(), failed }
    }

    fn is_done(&self, attached: &Attached) -> bool {
        let holds = |direction| !self.use_tcx || self.tcx.holds(attached.index, direction);
        self.done.get(&attached.index) == Some(attached) && Direction::ALL.into_iter().all(holds)
    }

    async fn attach(&mut self, programs: &mut Programs, device: &Device, role: Role, link: Link) -> io::Result<()> {
        for direction in Direction::ALL {
            let (program, name) = programs.get(hook(role, direction), link).map_err(io::Error::other)?;
            if self.use_tcx {
                self.tcx.ensure(device.index, &device.name, direction, program)?;
            } else {
                self.clsact.ensure(device.index, &device.name, direction, program, name).await?;
            }
        }
        Ok(())
    }

    async fn leave_others(&mut self, wanted: &[(&Device, Role, &'static str)]) -> Result<(), KernelError> {
        let keep = |index| wanted.iter().any(|(device, ..)| device.index == index);
        let failed =
            |cause: io::Error| KernelError::Netlink { operation: "taking a program off", cause: cause.to_string() };
        let (keep_tcx, keep_clsact) = (self.use_tcx, !self.use_tcx);
        self.tcx.retain(|index| keep_tcx && keep(index)).map_err(failed)?;
        if keep_clsact || !self.other_mode_checked {
            self.clsact.retain(|index| keep_clsact && keep(index)).await?;
            self.other_mode_checked = true;
        }
        Ok(())
    }
}

const fn hook(role: Role, direction: Direction) -> Hook {
    match (role, direction) {
        (Role::PodLink, Direction::Ingress) => Hook::PodIngress,
        (Role::PodLink, Direction::Egress) => Hook::PodEgress,
        (Role::Uplink, Direction::Ingress) => Hook::UplinkIngress,
        (Role::Uplink, Direction::Egress) => Hook::UplinkEgress,
        (Role::Overlay, Direction::Ingress) => Hook::OverlayIngress,
        (Role::Overlay, Direction::Egress) => Hook::OverlayEgress,
    }
}
