use std::fmt;

use super::{EndpointSlice, Node, ObjectName, Service};

/// A change of one kind of object.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta<T> {
    /// The complete list: whatever is not in it does not exist.
    Replace(Vec<T>),
    Apply(T),
    /// Also what a source sends for an object whose conversion answered `None`.
    Delete(ObjectName),
}

/// What a source reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Services(Delta<Service>),
    EndpointSlices(Delta<EndpointSlice>),
    Nodes(Delta<Node>),
}

/// Something in an object that cannot be honoured. The rest of the object is in use unless the message says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Kind and name, as in "Service default/web".
    pub object: String,
    pub message: String,
}

impl Problem {
    pub fn new(kind: &str, name: &ObjectName, message: impl Into<String>) -> Self {
        Self { object: format!("{kind} {name}"), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}
