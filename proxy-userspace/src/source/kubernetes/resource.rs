use std::fmt;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    serde::de::DeserializeOwned,
};
use kube::{Resource, runtime::watcher};

use crate::model::{Delta, EndpointSlice, Event, Node, ObjectName, Problem, Service};

/// A kind that is watched, and what becomes of its objects.
pub(super) trait Watched: Sized {
    type Object: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + 'static;

    /// Which objects the API server is to send.
    fn selection(node_name: &str) -> watcher::Config;

    fn convert(object: &Self::Object) -> (Option<Self>, Vec<Problem>);

    fn event(delta: Delta<Self>) -> Event;
}

impl Watched for Service {
    type Object = core::Service;

    fn selection(_: &str) -> watcher::Config {
        watcher::Config::default().fields("spec.clusterIP!=None").labels("!service.kubernetes.io/service-proxy-name")
    }

    fn convert(object: &Self::Object) -> (Option<Self>, Vec<Problem>) {
        Self::from_object(object)
    }

    fn event(delta: Delta<Self>) -> Event {
        Event::Services(delta)
    }
}

impl Watched for EndpointSlice {
    type Object = discovery::EndpointSlice;

    fn selection(_: &str) -> watcher::Config {
        watcher::Config::default().labels("!service.kubernetes.io/headless")
    }

    fn convert(object: &Self::Object) -> (Option<Self>, Vec<Problem>) {
        Self::from_object(object)
    }

    fn event(delta: Delta<Self>) -> Event {
        Event::EndpointSlices(delta)
    }
}

impl Watched for Node {
    type Object = core::Node;

    fn selection(node_name: &str) -> watcher::Config {
        watcher::Config::default().fields(&format!("metadata.name={node_name}"))
    }

    fn convert(object: &Self::Object) -> (Option<Self>, Vec<Problem>) {
        Self::from_object(object)
    }

    fn event(delta: Delta<Self>) -> Event {
        Event::Nodes(delta)
    }
}

/// Namespace and name of an object of the API.
pub(super) fn object_name(object: &impl Resource) -> ObjectName {
    let metadata = object.meta();
    ObjectName::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}
