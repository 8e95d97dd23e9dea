//! Rows of a table: what the maps hold, a packet in, the packet out, the verdict and the exact change of the counters.
//! A row may be the life of a packet or a flow in several steps.

mod endpoints;
mod headers;
mod refusals;
mod strangers;
mod walks;
pub mod world;

use anyhow::{Context as _, ensure};
use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
};

use crate::{
    packet::Packet,
    runner::{Action, Counters, Runner},
};
use world::World;

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input {
    Packet(Packet),
    Bytes(Link, Vec<u8>),
    /// What the step before sent.
    Previous,
}

/// Makes the packet that is expected from the bytes that came out.
pub type Foretell = Box<dyn Fn(&[u8]) -> Packet>;

/// What goes out; not looked at where the packet is dropped.
pub enum Expected {
    Unchanged,
    Packet(Box<Packet>),
    Bytes(Vec<u8>),
    /// Computed from what came out, where a random port is in it.
    Given(Foretell),
}

/// One packet at one hook.
pub struct Step {
    pub hook: Hook,
    pub input: Input,
    /// Payload bytes per segment of a GSO packet, 0 for any other.
    pub segment: usize,
    pub expected: Expected,
    pub verdict: Verdict,
    pub counts: Vec<Reason>,
    /// What the maps hold from this step on.
    pub update: Option<World>,
}

/// Which hosts can run a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    All,
    /// All but XDP, which knows no GSO packets and no links without a link layer header.
    NotXdp,
    /// All but tc: the kernel makes no socket buffer for a test from less than an IP header.
    NotTc,
}

pub struct Row {
    pub name: String,
    pub hosts: Hosts,
    pub world: World,
    pub steps: Vec<Step>,
}

impl Row {
    pub fn new(name: impl Into<String>, world: World) -> Self {
        Self { name: name.into(), hosts: Hosts::All, world, steps: Vec::new() }
    }

    pub fn not_xdp(self) -> Self {
        Self { hosts: Hosts::NotXdp, ..self }
    }

    fn step(mut self, hook: Hook, input: Input, expected: Expected, verdict: Verdict, counts: &[Reason]) -> Self {
        self.steps.push(Step { hook, input, segment: 0, expected, verdict, counts: counts.to_vec(), update: None });
        self
    }

    /// A packet that becomes another.
    pub fn becomes(self, hook: Hook, packet: &Packet, then: &Packet, verdict: Verdict, counts: &[Reason]) -> Self {
        let expected = Expected::Packet(Box::new(then.clone()));
        self.step(hook, Input::Packet(packet.clone()), expected, verdict, counts)
    }

    /// The first packet of a flow: it is given a backend and becomes another.
    pub fn opens(self, hook: Hook, packet: &Packet, then: &Packet) -> Self {
        self.becomes(hook, packet, then, Verdict::Translate, &[Reason::NewFlow])
    }

    /// The same, past the stack: it comes in and leaves by the uplink.
    pub fn opens_past_the_stack(self, packet: &Packet, then: &Packet) -> Self {
        self.becomes(Hook::UplinkIngress, packet, then, Verdict::Forward, &[Reason::NewFlow, Reason::FastPath])
    }

    /// A packet straight to what is a backend too: its flow is entered, and it stays as it is.
    pub fn enters(self, hook: Hook, packet: &Packet) -> Self {
        self.becomes(hook, packet, packet, Verdict::Translate, &[Reason::DirectFlow])
    }

    /// A packet of a known flow: it becomes another, and nothing is counted.
    pub fn translates(self, hook: Hook, packet: &Packet, then: &Packet) -> Self {
        self.becomes(hook, packet, then, Verdict::Translate, &[])
    }

    /// What the step before sent goes on and becomes another.
    pub fn then(self, hook: Hook, then: &Packet, verdict: Verdict) -> Self {
        self.step(hook, Input::Previous, Expected::Packet(Box::new(then.clone())), verdict, &[])
    }

    /// A packet that is none of our business.
    pub fn passes(self, hook: Hook, packet: &Packet, counts: &[Reason]) -> Self {
        self.step(hook, Input::Packet(packet.clone()), Expected::Unchanged, Verdict::Pass, counts)
    }

    pub fn drops(self, hook: Hook, packet: &Packet, reason: Reason) -> Self {
        self.step(hook, Input::Packet(packet.clone()), Expected::Unchanged, Verdict::Drop(reason), &[reason])
    }

    /// Changes what the maps hold before the last step.
    pub fn after(mut self, world: World) -> Self {
        if let Some(step) = self.steps.last_mut() {
            step.update = Some(world);
        }
        self
    }

    /// Makes the last step a GSO packet.
    pub fn segments(mut self, segment: usize) -> Self {
        if let Some(step) = self.steps.last_mut() {
            step.segment = segment;
        }
        self.not_xdp()
    }

    /// Runs the row.
    ///
    /// # Errors
    /// Says at which step what was another than expected.
    pub fn check(&self, runner: &mut dyn Runner) -> anyhow::Result<()> {
        runner.install(&self.world)?;
        let mut previous = (Link::Ethernet, Vec::new());
        let mut counters = runner.counters()?;
        for (number, step) in (1..).zip(&self.steps) {
            let place = || format!("step {number} at {}", step.hook.word());
            if let Some(world) = &step.update {
                runner.update(world)?;
            }
            let (link, bytes) = match &step.input {
                Input::Packet(packet) => (packet.link, packet.bytes()),
                Input::Bytes(link, bytes) => (*link, bytes.clone()),
                Input::Previous => previous.clone(),
            };
            let sent = runner.run(step.hook, link, &bytes, step.segment).with_context(place)?;
            let action = Action::from(step.verdict);
            if let Some(verdict) = sent.verdict {
                ensure!(verdict == step.verdict, "{}: verdict {verdict:?}, expected {:?}", place(), step.verdict);
            }
            ensure!(sent.action == action, "{}: action {:?}, expected {action:?}", place(), sent.action);
            if action != Action::Drop {
                let expected = self.expected(runner, step, &bytes, &sent.bytes);
                ensure!(
                    sent.bytes == expected,
                    "{}: packet\n  out      {}\n  expected {}",
                    place(),
                    hex(&sent.bytes),
                    hex(&expected)
                );
            }
            let now = runner.counters()?;
            let mut counts = Counters::new();
            for &reason in &step.counts {
                *counts.entry((runner.hook(step.hook), reason)).or_default() += 1;
            }
            let changes = difference(&counters, &now);
            ensure!(changes == counts, "{}: counted {changes:?}, expected {counts:?}", place());
            (previous, counters) = ((link, sent.bytes), now);
        }
        Ok(())
    }

    fn expected(&self, runner: &dyn Runner, step: &Step, input: &[u8], output: &[u8]) -> Vec<u8> {
        let mut packet = match &step.expected {
            Expected::Unchanged => return input.to_vec(),
            Expected::Bytes(bytes) => return bytes.clone(),
            Expected::Packet(packet) => packet.as_ref().clone(),
            Expected::Given(from) => from(output),
        };
        if step.verdict == Verdict::Forward
            && runner.hook(step.hook) == Hook::Xdp
            && let Some(macs) = runner.forwarded()
        {
            packet.macs = macs;
        }
        packet.bytes()
    }
}

fn difference(before: &Counters, after: &Counters) -> Counters {
    let change = |(&key, &count): (&_, &u64)| {
        let change = count - before.get(&key).copied().unwrap_or_default();
        (change != 0).then_some((key, change))
    };
    after.iter().filter_map(change).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every row.
pub fn all() -> Vec<Row> {
    [walks::rows(), headers::rows(), refusals::rows(), endpoints::rows(), strangers::rows()]
        .into_iter()
        .flatten()
        .collect()
}
