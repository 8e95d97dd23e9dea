use std::net::IpAddr;

use super::{Family, ObjectName, Protocol};

/// A part of the endpoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub name: ObjectName,
    pub service: ObjectName,
    pub family: Family,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// A port that every endpoint of a slice has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Matches [`super::Port::name`].
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// An address behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub node: Option<Box<str>>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Nodes that should prefer this endpoint (KEP-4444).
    pub for_nodes: Box<[Box<str>]>,
    /// Zones that should prefer this endpoint (KEP-2433).
    pub for_zones: Box<[Box<str>]>,
}
