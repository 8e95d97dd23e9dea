use crate::wire::Address;

/// What a Maglev table is asked with: the client and the port it dialled, so that every node that gets the flow
/// answers alike.
#[inline(always)]
pub fn flow_hash(client: &Address, client_port: u16, port: u16, protocol: u8) -> u32 {
    let [a, b, c, d] = client.0;
    let ports = u32::from(client_port) | u32::from(port) << 16;
    mix(mix(mix(mix(mix(u32::from(protocol), a), b), c), d), ports)
}

/// One round and the finalizer of MurmurHash3's 32-bit variant: full avalanche in a dozen instructions.
#[inline(always)]
fn mix(state: u32, word: u32) -> u32 {
    let mut h = state ^ word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^ h >> 13
}
