use std::{error::Error, time::Duration};

use http::StatusCode;
use kube::runtime::watcher;

use super::access::AccessError;

/// What went wrong with a list or a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) verb: &'static str,
    pub(super) cause: Cause,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server answered with this status.
    Refused(u16),
    /// No answer, or none that can be read.
    Unreachable,
    /// Nobody was asked: there is nothing to be known by, or no address.
    Access,
}

impl Failure {
    pub(super) fn new(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error) => Self::of_request("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                Self::of_request("watch", error)
            }
            watcher::Error::WatchError(status) => Self::refused("watch", status),
            watcher::Error::NoResourceVersion => Self::unreachable("watch", error.to_string()),
        }
    }

    /// No progress with a list for `time`.
    pub(super) fn stalled(time: Duration) -> Self {
        Self::unreachable("list", format!("the list stopped half-way, {} s ago", time.as_secs()))
    }

    fn of_request(verb: &'static str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::refused(verb, status),
            other => match cause_of(other) {
                Some(access) => Self { verb, cause: Cause::Access, text: access.to_string() },
                None => Self::unreachable(verb, chain(other)),
            },
        }
    }

    fn refused(verb: &'static str, status: &kube::core::Status) -> Self {
        let code = StatusCode::from_u16(status.code).map(|code| code.to_string());
        let code = code.unwrap_or_else(|_| status.code.to_string());
        Self { verb, cause: Cause::Refused(status.code), text: format!("{code}: {}", status.message.trim()) }
    }

    fn unreachable(verb: &'static str, text: String) -> Self {
        Self { verb, cause: Cause::Unreachable, text }
    }

    /// What the watch knew is too old for the server; it has to list anew. This happens after a pause and is no trouble.
    pub(super) fn is_expired(&self) -> bool {
        self.cause == Cause::Refused(StatusCode::GONE.as_u16())
    }

    /// The server does not understand the question, or cannot answer it: a streamed list is an internal error where
    /// etcd is too old to report the progress of a watch (before 3.4.31 and 3.5.13).
    pub(super) fn is_about_the_question(&self) -> bool {
        matches!(self.cause, Cause::Refused(400 | 422 | 500))
    }

    /// Whether trying again soon is of little use, and a burden to somebody: a server, or a plugin.
    pub(super) fn is_tiresome(&self) -> bool {
        matches!(self.cause, Cause::Refused(_) | Cause::Access)
    }

    /// Whether another server may do better.
    pub(super) fn is_the_servers_own(&self) -> bool {
        matches!(self.cause, Cause::Unreachable | Cause::Refused(429 | 500..))
    }
}

fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a AccessError> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
        .find_map(|error| error.downcast_ref())
}

/// An error with its causes, each said once: many errors repeat their cause in their own words.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
