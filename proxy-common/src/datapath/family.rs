use crate::{
    checksum,
    header::{Ipv4, Ipv6},
    wire::{Address, Flow4, Flow6, FlowKey4, FlowKey6, Scope, Wire},
};

/// The addresses and ports that name a flow. Ports are in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
}

impl<A: Copy> Tuple<A> {
    /// The tuple of the replies.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// Both ports as they lie in a TCP or UDP header.
    #[inline(always)]
    pub fn ports(&self) -> [u16; 2] {
        [self.source_port, self.destination_port]
    }
}

/// What differs between IPv4 and IPv6.
pub trait Family: Sized {
    type Address: Wire + PartialEq;
    type Key: Wire;
    type Flow: Wire;

    const V6: bool;
    /// The scope of NodePort frontends.
    const NODE_PORT: u8;
    /// Offset of the two addresses in the IP header.
    const ADDRESSES: usize;

    fn wide(address: Self::Address) -> Address;
    fn narrow(address: &Address) -> Self::Address;
    /// Ones' complement sum of an address.
    fn sum(address: Self::Address) -> u32;
    fn key(tuple: &Tuple<Self::Address>, side: u8) -> Self::Key;
    /// The side of a key.
    fn side(key: &Self::Key) -> u8;
    /// The tuple of a key.
    fn parts(key: &Self::Key) -> Tuple<Self::Address>;
    /// The tuple that an entry puts in the place of its key.
    fn tuple(flow: &Self::Flow, protocol: u8) -> Tuple<Self::Address>;
    fn flow(tuple: &Tuple<Self::Address>, state: State) -> Self::Flow;
    fn state(flow: &Self::Flow) -> State;
}

/// The fields of a flow entry that do not depend on the family; see [`Flow4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub subject: u32,
    pub generation: u32,
    pub stamp: u32,
    pub last_seen: u32,
    pub role: u8,
    pub flags: u8,
    pub seen: u8,
}

macro_rules! family {
    ($name:ident, $address:ty, $key:ident, $flow:ident, $v6:literal, $scope:expr, $addresses:expr,
     $wide:expr, $narrow:expr, $sum:expr) => {
        /// A type for a family, never a value.
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Family for $name {
            type Address = $address;
            type Key = $key;
            type Flow = $flow;

            const V6: bool = $v6;
            const NODE_PORT: u8 = $scope;
            const ADDRESSES: usize = $addresses;

            #[inline(always)]
            fn wide(address: $address) -> Address {
                $wide(address)
            }

            #[inline(always)]
            fn narrow(address: &Address) -> $address {
                $narrow(address)
            }

            #[inline(always)]
            fn sum(address: $address) -> u32 {
                $sum(address)
            }

            #[inline(always)]
            fn key(tuple: &Tuple<$address>, side: u8) -> $key {
                $key {
                    source: tuple.source,
                    destination: tuple.destination,
                    source_port: tuple.source_port,
                    destination_port: tuple.destination_port,
                    protocol: tuple.protocol,
                    side,
                    pad: [0; 2],
                }
            }

            #[inline(always)]
            fn side(key: &$key) -> u8 {
                key.side
            }

            #[inline(always)]
            fn parts(key: &$key) -> Tuple<$address> {
                Tuple {
                    source: key.source,
                    destination: key.destination,
                    source_port: key.source_port,
                    destination_port: key.destination_port,
                    protocol: key.protocol,
                }
            }

            #[inline(always)]
            fn tuple(flow: &$flow, protocol: u8) -> Tuple<$address> {
                Tuple {
                    source: flow.source,
                    destination: flow.destination,
                    source_port: flow.source_port,
                    destination_port: flow.destination_port,
                    protocol,
                }
            }

            #[inline(always)]
            fn flow(tuple: &Tuple<$address>, state: State) -> $flow {
                $flow {
                    source: tuple.source,
                    destination: tuple.destination,
                    source_port: tuple.source_port,
                    destination_port: tuple.destination_port,
                    subject: state.subject,
                    generation: state.generation,
                    stamp: state.stamp,
                    last_seen: state.last_seen,
                    role: state.role,
                    flags: state.flags,
                    seen: state.seen,
                    pad: 0,
                }
            }

            #[inline(always)]
            fn state(flow: &$flow) -> State {
                State {
                    subject: flow.subject,
                    generation: flow.generation,
                    stamp: flow.stamp,
                    last_seen: flow.last_seen,
                    role: flow.role,
                    flags: flow.flags,
                    seen: flow.seen,
                }
            }
        }
    };
}

family!(
    V4,
    u32,
    FlowKey4,
    Flow4,
    false,
    Scope::NODE_PORT4,
    Ipv4::ADDRESSES,
    Address::from_v4,
    |address: &Address| address.0[3],
    |address: u32| address
);
family!(
    V6,
    [u32; 4],
    FlowKey6,
    Flow6,
    true,
    Scope::NODE_PORT6,
    Ipv6::ADDRESSES,
    Address,
    |address: &Address| address.0,
    |a: [u32; 4]| checksum::add(checksum::add(a[0], a[1]), checksum::add(a[2], a[3]))
);
