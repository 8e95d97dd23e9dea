use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Value of `DEVICES` (HASH, key = interface index as u32): the addresses that a flow masqueraded on its way out of
/// this device gets, [`Address::ANY`] where the device has none of the family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    pub address4: Address,
    pub address6: Address,
}
