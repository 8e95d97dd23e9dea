use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use super::failure::Failure;

/// Short, since a node that learns late of a change sends traffic astray: what changes right after the server's return
/// is to be in force within two seconds. Every delay is up to twice as long by chance, so that a cluster does not ask in
/// step.
const SHORT: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_millis(500))
    .without_max_times()
    .with_jitter();

/// A server that answers but refuses is not to be hammered. It refuses for a while whenever it starts, though, so that
/// [`PATIENCE`] attempts come at the short pace.
const LONG: ExponentialBuilder = SHORT.with_min_delay(Duration::from_secs(1)).with_max_delay(Duration::from_secs(5));
const PATIENCE: usize = 30;

/// When trouble that lasts is told again.
const REMINDERS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(10))
    .with_factor(3.0)
    .with_max_delay(Duration::from_secs(600))
    .without_max_times();

/// The trouble that a watch is in, and what to do about it: what to tell, and how long to wait.
pub(super) struct Trouble {
    resource: String,
    now: Option<Ongoing>,
}

struct Ongoing {
    failure: Failure,
    since: Instant,
    delays: Delays,
    /// While every attempt is refused.
    refused_delays: Option<Delays>,
    delay: Duration,
    told_at: Instant,
    reminders: Delays,
    tell_again: Duration,
}

type Delays = Box<dyn Iterator<Item = Duration> + Send>;

impl Trouble {
    pub(super) fn new(resource: &str) -> Self {
        Self { resource: resource.to_owned(), now: None }
    }

    pub(super) fn is_ongoing(&self) -> bool {
        self.now.is_some()
    }

    /// Notes a failure. Returns what to tell, if it is new or has lasted long enough to be told again.
    pub(super) fn begin(&mut self, failure: Failure, now: Instant) -> Option<String> {
        let is_new = self
            .now
            .as_ref()
            .is_none_or(|before| (before.failure.cause, before.failure.verb) != (failure.cause, failure.verb));
        let ongoing = self.now.get_or_insert_with(|| Ongoing {
            failure: failure.clone(),
            since: now,
            delays: Box::new(SHORT.build()),
            refused_delays: None,
            delay: Duration::ZERO,
            told_at: now,
            reminders: Box::new(REMINDERS.build()),
            tell_again: Duration::ZERO,
        });
        ongoing.failure = failure;
        ongoing.pause();
        if is_new {
            ongoing.reminders = Box::new(REMINDERS.build());
        } else if now.saturating_duration_since(ongoing.told_at) < ongoing.tell_again {
            return None;
        }
        ongoing.told_at = now;
        ongoing.tell_again = ongoing.reminders.next().unwrap_or(Duration::MAX);
        let Failure { verb, text, .. } = &ongoing.failure;
        let lasting = match now.saturating_duration_since(ongoing.since).as_secs() {
            0 => String::new(),
            seconds => format!(", for {seconds} s now"),
        };
        Some(format!("cannot {verb} {}: {text}; trying again{lasting}; the last state stays in force", self.resource))
    }

    /// Notes that a watch works. Returns what to tell if it did not before.
    pub(super) fn end(&mut self, now: Instant) -> Option<String> {
        let lasted = now.saturating_duration_since(self.now.take()?.since).as_secs_f64();
        Some(format!("watches {} again, after {lasted:.1} s", self.resource))
    }

    /// How long to wait before the next attempt.
    pub(super) fn delay(&self) -> Duration {
        self.now.as_ref().map_or(Duration::ZERO, |ongoing| ongoing.delay)
    }
}

impl Ongoing {
    fn pause(&mut self) {
        let delays = if self.failure.is_tiresome() {
            self.refused_delays.get_or_insert_with(|| Box::new(SHORT.build().take(PATIENCE).chain(LONG.build())))
        } else {
            self.refused_delays = None;
            &mut self.delays
        };
        // They have no end.
        self.delay = delays.next().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::failure::Cause, *};

    fn failure(cause: Cause) -> Failure {
        Failure { verb: "list", cause, text: "text".into() }
    }

    #[test]
    fn lasting_trouble_is_told_at_growing_intervals() {
        let mut trouble = Trouble::new("services");
        let start = Instant::now();
        let told: Vec<u64> = (0..600)
            .filter(|&second| trouble.begin(failure(Cause::Unreachable), start + Duration::from_secs(second)).is_some())
            .collect();
        assert_eq!(told, [0, 10, 40, 130, 400]);
        let at = start + Duration::from_secs(601);
        let told = trouble.begin(failure(Cause::Refused(403)), at).unwrap();
        assert_eq!(told, "cannot list services: text; trying again, for 601 s now; the last state stays in force");
        assert_eq!(trouble.end(at + Duration::from_millis(500)).unwrap(), "watches services again, after 601.5 s");
        assert!(trouble.end(at).is_none());
    }

    #[test]
    fn the_next_attempt_is_never_far_while_a_server_is_away() {
        let mut trouble = Trouble::new("services");
        for _ in 0..1000 {
            trouble.begin(failure(Cause::Unreachable), Instant::now());
            assert!(trouble.delay() <= Duration::from_secs(1));
        }
        assert!(trouble.delay() >= Duration::from_millis(500));
        // It is back, and refuses everything until it has read its rules.
        trouble.begin(failure(Cause::Refused(403)), Instant::now());
        assert!(trouble.delay() <= Duration::from_secs(1));
        for _ in 0..100 {
            trouble.begin(failure(Cause::Refused(403)), Instant::now());
        }
        assert!((5..=10).contains(&trouble.delay().as_secs()));
    }
}
