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
    fn set_state(flow: &mut Self::Flow, state: State);

    // In place: two IPv6 tuples by value are a quarter of a kernel stack.

    /// Makes a key of an entry's tuple.
    fn make_key(key: &mut Self::Key, flow: &Self::Flow, protocol: u8, side: u8);
    /// Makes a key of an entry's tuple turned round.
    fn make_reverse_key(key: &mut Self::Key, flow: &Self::Flow, protocol: u8, side: u8);
    /// Makes a key of another, turned round.
    fn turn_key(key: &mut Self::Key, other: &Self::Key, side: u8);
    /// Gives an entry the tuple of a key.
    fn set_tuple(flow: &mut Self::Flow, key: &Self::Key);
    /// Gives an entry the tuple of a key, turned round.
    fn set_reverse_tuple(flow: &mut Self::Flow, key: &Self::Key);
    /// Whether an entry's tuple is that of a key, turned round.
    fn is_reverse(flow: &Self::Flow, key: &Self::Key) -> bool;
    fn protocol(key: &Self::Key) -> u8;
    /// In network order.
    fn source_port(key: &Self::Key) -> u16;
    /// In network order.
    fn destination_port(key: &Self::Key) -> u16;
    fn source(key: &Self::Key) -> Address;
    fn destination(key: &Self::Key) -> Address;
    fn set_destination(key: &mut Self::Key, address: &Address);
    /// Gives an entry the address that its client dialled as its source.
    fn shadow(flow: &mut Self::Flow, client: &Self::Key);
    /// Gives an entry its destination; `port` is in network order.
    fn aim(flow: &mut Self::Flow, address: &Address, port: u16);
    /// `port` is in network order.
    fn set_destination_port(key: &mut Self::Key, port: u16);
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
            fn set_state(flow: &mut $flow, state: State) {
                flow.subject = state.subject;
                flow.generation = state.generation;
                flow.stamp = state.stamp;
                flow.last_seen = state.last_seen;
                flow.role = state.role;
                flow.flags = state.flags;
                flow.seen = state.seen;
            }

            #[inline(always)]
            fn make_key(key: &mut $key, flow: &$flow, protocol: u8, side: u8) {
                key.source = flow.source;
                key.destination = flow.destination;
                key.source_port = flow.source_port;
                key.destination_port = flow.destination_port;
                key.protocol = protocol;
                key.side = side;
                key.pad = [0; 2];
            }

            #[inline(always)]
            fn make_reverse_key(key: &mut $key, flow: &$flow, protocol: u8, side: u8) {
                key.source = flow.destination;
                key.destination = flow.source;
                key.source_port = flow.destination_port;
                key.destination_port = flow.source_port;
                key.protocol = protocol;
                key.side = side;
                key.pad = [0; 2];
            }

            #[inline(always)]
            fn turn_key(key: &mut $key, other: &$key, side: u8) {
                key.source = other.destination;
                key.destination = other.source;
                key.source_port = other.destination_port;
                key.destination_port = other.source_port;
                key.protocol = other.protocol;
                key.side = side;
                key.pad = [0; 2];
            }

            #[inline(always)]
            fn set_tuple(flow: &mut $flow, key: &$key) {
                flow.source = key.source;
                flow.destination = key.destination;
                flow.source_port = key.source_port;
                flow.destination_port = key.destination_port;
            }

            #[inline(always)]
            fn set_reverse_tuple(flow: &mut $flow, key: &$key) {
                flow.source = key.destination;
                flow.destination = key.source;
                flow.source_port = key.destination_port;
                flow.destination_port = key.source_port;
            }

            #[inline(always)]
            fn is_reverse(flow: &$flow, key: &$key) -> bool {
                flow.source == key.destination
                    && flow.destination == key.source
                    && flow.source_port == key.destination_port
                    && flow.destination_port == key.source_port
            }

            #[inline(always)]
            fn protocol(key: &$key) -> u8 {
                key.protocol
            }

            #[inline(always)]
            fn source_port(key: &$key) -> u16 {
                key.source_port
            }

            #[inline(always)]
            fn destination_port(key: &$key) -> u16 {
                key.destination_port
            }

            #[inline(always)]
            fn source(key: &$key) -> Address {
                Self::wide(key.source)
            }

            #[inline(always)]
            fn destination(key: &$key) -> Address {
                Self::wide(key.destination)
            }

            #[inline(always)]
            fn set_destination(key: &mut $key, address: &Address) {
                key.destination = Self::narrow(address);
            }

            #[inline(always)]
            fn shadow(flow: &mut $flow, client: &$key) {
                flow.source = client.destination;
            }

            #[inline(always)]
            fn aim(flow: &mut $flow, address: &Address, port: u16) {
                flow.destination = Self::narrow(address);
                flow.destination_port = port;
            }

            #[inline(always)]
            fn set_destination_port(key: &mut $key, port: u16) {
                key.destination_port = port;
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
