use super::specs::Spec;

/// How many elements each map is made for.
///
/// The defaults take 63 to 64 MiB of kernel memory when every map is full ([`Capacities::footprint`]), of which 8 MiB are
/// the names of services, allocated as they come; the rest is there from the start. Beyond 64 CPUs each adds 20 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Service ports.
    pub services: u32,
    pub frontends: u32,
    /// Rows of sets: one for each service port and family, and one for each that has just been replaced.
    pub sets: u32,
    /// Places in sets of backends; a change of a set needs room for the old and the new one.
    pub slots: u32,
    /// Elements of all Maglev tables together.
    pub maglev: u32,
    pub backends: u32,
    /// Entries of IPv4 flows: two to four for each flow.
    pub flows4: u32,
    pub flows6: u32,
    /// Flows that have not proved themselves, on all CPUs together; powers of two.
    pub opening4: u32,
    pub opening6: u32,
    /// Flows that have; powers of two.
    pub proven4: u32,
    pub proven6: u32,
    pub local_addresses: u32,
    pub devices: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: 32_768,
            frontends: 65_536,
            sets: 65_536,
            slots: 262_144,
            maglev: 524_288,
            backends: 131_072,
            flows4: 196_608,
            flows6: 64_512,
            opening4: 16_384,
            opening6: 8_192,
            proven4: 65_536,
            proven6: 16_384,
            local_addresses: 1_024,
            devices: 1_024,
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
            sets: scaled(default.sets),
            slots: scaled(default.slots),
            maglev: scaled(default.maglev),
            backends: scaled(default.backends),
            ..default
        }
    }

    /// Of so many seats on all of `cpus` together, those of each: a power of two, and enough for one CPU that gets most
    /// of the packets.
    pub fn seats_per_cpu(seats: u32, cpus: u32) -> u32 {
        const LEAST: u32 = 256;
        floor_to_power_of_two(seats / cpus.max(1)).max(LEAST)
    }

    /// Bytes of kernel memory that all maps take when full, on a machine with `cpus` possible CPUs.
    pub fn footprint(&self, cpus: u32) -> u64 {
        Spec::all(self, cpus).iter().map(|spec| spec.footprint(u64::from(cpus))).sum()
    }
}

/// 0 for 0.
pub(super) fn floor_to_power_of_two(number: u32) -> u32 {
    number.checked_ilog2().map_or(0, |exponent| 1 << exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_maps_together_stay_under_64_mib_by_default() {
        for cpus in [1, 2, 64] {
            let bytes = Capacities::default().footprint(cpus);
            assert!(bytes < 64 << 20, "{cpus} CPUs: {bytes} bytes");
            assert!(bytes > 63 << 20, "{cpus} CPUs: {bytes} bytes: the documentation of Capacities says 63 MiB");
        }
    }

    #[test]
    fn seats_are_a_power_of_two_on_each_cpu() {
        for (seats, cpus, expected) in [(16_384, 1, 16_384), (16_384, 6, 2_048), (8_192, 96, 256), (16_384, 0, 16_384)]
        {
            assert_eq!(Capacities::seats_per_cpu(seats, cpus), expected, "{seats} on {cpus}");
        }
    }
}
