use super::specs::Spec;

/// How many elements each map is made for.
///
/// The defaults take 61 MiB of kernel memory when every map is full ([`Capacities::footprint`]), of which 8 MiB are
/// the names of services, allocated as they come; the rest is there from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Service ports.
    pub services: u32,
    pub frontends: u32,
    /// Places in sets of backends; a change of a set needs room for the old and the new one.
    pub slots: u32,
    /// Elements of all Maglev tables together.
    pub maglev: u32,
    pub backends: u32,
    /// Entries of IPv4 flows: two to four for each flow.
    pub flows4: u32,
    pub flows6: u32,
    pub local_addresses: u32,
    pub devices: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: 32_768,
            frontends: 65_536,
            slots: 262_144,
            maglev: 524_288,
            backends: 131_072,
            flows4: 196_608,
            flows6: 65_536,
            local_addresses: 4_096,
            devices: 4_096,
        }
    }
}

impl Capacities {
    /// Services that the defaults have room for, at 1.6 ports, 3.2 frontends and 6.5 endpoints each.
    const DEFAULT_SERVICES: u32 = 20_000;

    /// The defaults, or where there are to be more services, control tables that are larger by the same factor.
    pub fn for_services(services: u32) -> Self {
        let default = Self::default();
        let scaled = |entries: u32| {
            let factor = u64::from(services.max(Self::DEFAULT_SERVICES));
            let entries = (u64::from(entries) * factor).div_ceil(u64::from(Self::DEFAULT_SERVICES));
            u32::try_from(entries).unwrap_or(u32::MAX)
        };
        Self {
            services: scaled(default.services),
            frontends: scaled(default.frontends),
            slots: scaled(default.slots),
            maglev: scaled(default.maglev),
            backends: scaled(default.backends),
            ..default
        }
    }

    /// Bytes of kernel memory that all maps take when full, on a machine with `cpus` possible CPUs.
    pub fn footprint(&self, cpus: u64) -> u64 {
        Spec::all(self).iter().map(|spec| spec.footprint(cpus)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_maps_together_stay_under_64_mib_by_default() {
        let bytes = Capacities::default().footprint(64);
        assert!(bytes < 64 << 20, "{bytes} bytes");
        assert!(bytes > 56 << 20, "{bytes} bytes: the documentation of Capacities says 61 MiB");
    }
}
