use std::{
    error::Error,
    time::{Duration, Instant},
};

use http::StatusCode;
use kube::runtime::watcher;

use crate::{model::Problem, source::SourceError};

/// What went wrong with a list or a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    verb: &'static str,
    cause: Cause,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The server answered with this status.
    Refused(u16),
    /// No answer, or none that can be read.
    Unreachable,
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

    /// The credentials cannot be read.
    pub(super) fn of_credentials(error: &SourceError) -> Self {
        Self::unreachable("watch", chain(error))
    }

    fn of_request(verb: &'static str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::refused(verb, status),
            other => Self::unreachable(verb, chain(other)),
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

    /// The server does not know who asks: the token is over, or its account was deleted and made again.
    pub(super) fn is_about_credentials(&self) -> bool {
        self.cause == Cause::Refused(StatusCode::UNAUTHORIZED.as_u16())
    }

    /// The server does not understand the question, or cannot answer it: a streamed list is an internal error where
    /// etcd is too old to report the progress of a watch (before 3.4.31 and 3.5.13).
    pub(super) fn is_about_the_question(&self) -> bool {
        matches!(self.cause, Cause::Refused(400 | 422 | 500))
    }

    fn is_refusal(&self) -> bool {
        matches!(self.cause, Cause::Refused(_))
    }

    /// Whether another server may do better.
    pub(super) fn is_the_servers_own(&self) -> bool {
        matches!(self.cause, Cause::Unreachable | Cause::Refused(429 | 500..))
    }
}

/// The trouble that a watch is in, and what to do about it: whom to tell, and how long to wait.
#[derive(Debug)]
pub(super) struct Trouble {
    resource: String,
    server: String,
    now: Option<Ongoing>,
}

#[derive(Debug)]
struct Ongoing {
    failure: Failure,
    since: Instant,
    attempts: u32,
    /// The last so many of the attempts were refused by a server that answered.
    refusals: u32,
    told_at: Instant,
    tell_again: Duration,
}

impl Trouble {
    const FIRST_DELAY: Duration = Duration::from_millis(100);
    /// Short, since a node that learns late of a change sends traffic astray: what changes right after the server's
    /// return is to be in force within two seconds.
    const LONGEST_DELAY: Duration = Duration::from_millis(1000);
    /// A server that answers but refuses is not to be hammered. It refuses for a while whenever it starts, though, so
    /// that this many attempts come at the short pace.
    const PATIENT_ATTEMPTS: u32 = 30;
    const LONGEST_REFUSED_DELAY: Duration = Duration::from_secs(10);
    const FIRST_REMINDER: Duration = Duration::from_secs(10);
    const LAST_REMINDER: Duration = Duration::from_secs(600);

    pub(super) fn new(resource: &str, server: String) -> Self {
        Self { resource: resource.to_owned(), server, now: None }
    }

    pub(super) fn is_ongoing(&self) -> bool {
        self.now.is_some()
    }

    /// Notes a failure. Returns what to tell, if it is new or has lasted long enough to be told again.
    pub(super) fn begin(&mut self, failure: Failure, now: Instant) -> Option<Problem> {
        let told = match &mut self.now {
            Some(ongoing) => {
                ongoing.attempts = ongoing.attempts.saturating_add(1);
                ongoing.refusals = if failure.is_refusal() { ongoing.refusals.saturating_add(1) } else { 0 };
                let is_new = ongoing.failure.cause != failure.cause || ongoing.failure.verb != failure.verb;
                ongoing.failure = failure;
                let is_due = now.saturating_duration_since(ongoing.told_at) >= ongoing.tell_again;
                if is_new {
                    ongoing.tell_again = Self::FIRST_REMINDER;
                } else if is_due {
                    ongoing.tell_again = (ongoing.tell_again * 3).min(Self::LAST_REMINDER);
                } else {
                    return None;
                }
                ongoing
            }
            none => none.insert(Ongoing {
                refusals: u32::from(failure.is_refusal()),
                failure,
                since: now,
                attempts: 1,
                told_at: now,
                tell_again: Self::FIRST_REMINDER,
            }),
        };
        told.told_at = now;
        let Failure { verb, text, .. } = &told.failure;
        let lasting = now.saturating_duration_since(told.since).as_secs();
        let lasting = if lasting == 0 { String::new() } else { format!(", for {lasting} s now") };
        let message =
            format!("cannot {verb} {}: {text}; trying again{lasting}; the last state stays in force", self.resource);
        Some(self.problem(message))
    }

    /// Notes that a watch works. Returns what to tell if it did not before.
    pub(super) fn end(&mut self, now: Instant) -> Option<Problem> {
        let ongoing = self.now.take()?;
        let lasted = now.saturating_duration_since(ongoing.since).as_secs_f64();
        Some(self.problem(format!("watches {} again, after {lasted:.1} s", self.resource)))
    }

    /// How long to wait before the next attempt; varied by a quarter, so that a cluster does not ask in step.
    pub(super) fn delay(&self) -> Duration {
        let Some(Ongoing { attempts, refusals, .. }) = &self.now else {
            return Duration::ZERO;
        };
        let doubled = Self::FIRST_DELAY * 2_u32.saturating_pow(attempts.saturating_sub(1).min(10));
        let delay = match refusals.saturating_sub(Self::PATIENT_ATTEMPTS) {
            0 => doubled.min(Self::LONGEST_DELAY),
            tiresome => (Self::LONGEST_DELAY * tiresome).min(Self::LONGEST_REFUSED_DELAY),
        };
        delay.mul_f64(1.0 - fastrand::f64() / 4.0)
    }

    fn problem(&self, message: String) -> Problem {
        Problem { object: format!("API server {}", self.server), message }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: Cause) -> Failure {
        Failure { verb: "list", cause, text: "text".into() }
    }

    #[test]
    fn lasting_trouble_is_told_at_growing_intervals() {
        let mut trouble = Trouble::new("services", "https://a".into());
        let start = Instant::now();
        let told: Vec<u64> = (0..600)
            .filter(|&second| trouble.begin(failure(Cause::Unreachable), start + Duration::from_secs(second)).is_some())
            .collect();
        assert_eq!(told, [0, 10, 40, 130, 400]);
        let at = start + Duration::from_secs(601);
        let told = trouble.begin(failure(Cause::Refused(403)), at).unwrap();
        assert_eq!(
            told.to_string(),
            "API server https://a: cannot list services: text; trying again, for 601 s now; the last state stays in force"
        );
        assert_eq!(
            trouble.end(at + Duration::from_millis(500)).unwrap().message,
            "watches services again, after 601.5 s"
        );
        assert!(trouble.end(at).is_none());
    }

    #[test]
    fn the_next_attempt_is_never_far_while_a_server_is_away() {
        let mut trouble = Trouble::new("services", "https://a".into());
        for _ in 0..1000 {
            trouble.begin(failure(Cause::Unreachable), Instant::now());
            assert!(trouble.delay() <= Duration::from_secs(1));
        }
        assert!(trouble.delay() >= Duration::from_millis(750));
        // It is back, and refuses everything until it has read its rules.
        trouble.begin(failure(Cause::Refused(403)), Instant::now());
        assert!(trouble.delay() <= Duration::from_secs(1));
        for _ in 0..100 {
            trouble.begin(failure(Cause::Refused(403)), Instant::now());
        }
        assert!(trouble.delay() >= Duration::from_millis(7500));
    }
}
