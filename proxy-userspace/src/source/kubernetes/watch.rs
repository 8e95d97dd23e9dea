use std::{collections::HashSet, time::Instant};

use futures::StreamExt;
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::watcher::{self, watcher},
};

use super::{
    connection::Connection,
    failure::Failure,
    resource::{Watched, object_name},
    trouble::Trouble,
};
use crate::{
    model::{Delta, ObjectName, Problem},
    source::{Closed, Message, Outlet, reported::Reported},
};

/// Seconds after which the server ends a watch, chosen between these so that a cluster does not ask in step. What went
/// wrong with a watch without a sign of it, in spite of all pings, lasts no longer.
const WATCH_SECONDS: std::ops::Range<u32> = 120..180;

/// How the complete state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// As the beginning of the watch (KEP-3157), which spares the server from building a list: on by default in
    /// Kubernetes 1.32, and from 1.34 on.
    Streamed,
    /// Page by page, then a watch from there.
    Paged,
}

/// Why a watcher has to be made anew.
enum Restart {
    /// The server refused what it was asked for, or does not finish.
    Strategy,
    /// The state that the watch is to continue from is too old.
    Expired,
}

/// Lists and watches a kind for as long as anybody listens.
pub(super) async fn watch<K: Watched>(connection: Connection, node_name: &str, outlet: Outlet) -> Closed {
    let plural = K::Object::plural(&());
    let mut watch =
        Watch::<K> { trouble: Trouble::new(&plural), connection, outlet, reported: Reported::default(), listing: None };
    let mut strategy = Strategy::Streamed;
    loop {
        match watch.follow(node_name, strategy).await {
            Err(closed) => return closed,
            Ok(Restart::Strategy) if strategy == Strategy::Streamed => {
                tracing::info!("the API server does not stream lists; {plural} are listed page by page");
                strategy = Strategy::Paged;
            }
            Ok(Restart::Strategy | Restart::Expired) => {}
        }
    }
}

struct Watch<K: Watched> {
    connection: Connection,
    outlet: Outlet,
    trouble: Trouble,
    reported: Reported,
    /// What a list has brought so far.
    listing: Option<Listing<K>>,
}

struct Listing<K> {
    objects: Vec<K>,
    names: HashSet<ObjectName>,
}

impl<K: Watched> Watch<K> {
    async fn follow(&mut self, node_name: &str, strategy: Strategy) -> Result<Restart, Closed> {
        let api: Api<DeserializeGuard<K::Object>> = Api::all(self.connection.client.clone());
        let config = K::selection(node_name).timeout(fastrand::u32(WATCH_SECONDS));
        let config = match strategy {
            Strategy::Streamed => config.streaming_lists(),
            Strategy::Paged => config,
        };
        let mut events = std::pin::pin!(watcher(api, config));
        let list_stall = self.connection.patience.list_stall;
        let mut is_complete = false;
        loop {
            let stall = tokio::time::sleep(list_stall);
            let event = tokio::select! {
                // What arrived is taken in before the good news that the watch has begun is told.
                biased;
                event = events.next() => event,
                // A watch that has yet to bring the list may still break off with an error.
                _ = self.connection.watching.changed(), if is_complete && self.trouble.is_ongoing() => {
                    let told = self.trouble.end(Instant::now());
                    self.recovered(told).await?;
                    continue;
                }
                () = stall, if !is_complete => {
                    self.failed(Failure::stalled(list_stall)).await?;
                    return Ok(Restart::Strategy);
                }
                () = self.outlet.closed() => return Err(Closed),
            };
            match event {
                // The stream of a watcher has no end.
                None => return Ok(Restart::Expired),
                Some(Ok(event)) => {
                    is_complete = match event {
                        watcher::Event::Init | watcher::Event::InitApply(_) => false,
                        watcher::Event::InitDone => true,
                        watcher::Event::Apply(_) | watcher::Event::Delete(_) => is_complete,
                    };
                    self.take_in(event).await?;
                }
                Some(Err(error)) => {
                    let failure = Failure::new(&error);
                    // A list has no state to continue from; a server that calls one too old again and again needs a pause.
                    if failure.is_expired() && is_complete {
                        tracing::info!("the watch of {} expired; listing anew", K::Object::plural(&()));
                        // The server says so in the stream or, which the watcher would repeat for ever, by the status.
                        return Ok(Restart::Expired);
                    }
                    if failure.is_about_the_question() && strategy == Strategy::Streamed && !is_complete {
                        return Ok(Restart::Strategy);
                    }
                    self.failed(failure).await?;
                }
            }
        }
    }

    async fn take_in(&mut self, event: watcher::Event<DeserializeGuard<K::Object>>) -> Result<(), Closed> {
        let at = Instant::now();
        let delta = match event {
            watcher::Event::Init => {
                self.listing = Some(Listing { objects: Vec::new(), names: HashSet::new() });
                return Ok(());
            }
            watcher::Event::InitApply(object) => {
                let (name, object) = self.convert(object).await?;
                if let Some(listing) = &mut self.listing {
                    listing.objects.extend(object);
                    listing.names.insert(name);
                }
                return Ok(());
            }
            watcher::Event::InitDone => {
                let Some(Listing { objects, names }) = self.listing.take() else {
                    return Ok(());
                };
                self.reported.retain(&names);
                Delta::Replace(objects)
            }
            watcher::Event::Apply(object) => match self.convert(object).await? {
                (_, Some(object)) => Delta::Apply(object),
                (name, None) => Delta::Delete(name),
            },
            watcher::Event::Delete(object) => {
                let name = object_name(&object);
                self.reported.update(&name, Vec::new());
                Delta::Delete(name)
            }
        };
        self.outlet.arrival(K::event(delta), at).await
    }

    /// Converts an object and tells what is wrong with it.
    async fn convert(&mut self, object: DeserializeGuard<K::Object>) -> Result<(ObjectName, Option<K>), Closed> {
        let name = object_name(&object);
        let (converted, problems) = match object.0 {
            Ok(object) => K::convert(&object),
            Err(error) => {
                let kind = K::Object::kind(&());
                let problem = Problem::new(&kind, &name, format!("cannot be decoded: {error}; it is left out"));
                (None, vec![problem])
            }
        };
        let problems = self.reported.update(&name, problems);
        self.outlet.problems(problems).await?;
        Ok((name, converted))
    }

    async fn failed(&mut self, failure: Failure) -> Result<(), Closed> {
        if failure.is_the_servers_own() {
            self.connection.advance();
        }
        // A watch that began before now says nothing about what comes after.
        self.connection.watching.mark_unchanged();
        let told = self.trouble.begin(failure, Instant::now());
        self.outlet.problems(told.map(|message| self.problem(message))).await?;
        tokio::time::sleep(self.trouble.delay()).await;
        Ok(())
    }

    async fn recovered(&mut self, told: Option<String>) -> Result<(), Closed> {
        match told {
            Some(message) => self.outlet.send(Message::Recovered(self.problem(message))).await,
            None => Ok(()),
        }
    }

    fn problem(&self, message: String) -> Problem {
        Problem { object: self.connection.to_string(), message }
    }
}
