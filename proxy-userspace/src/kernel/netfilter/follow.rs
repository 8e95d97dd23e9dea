use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use tokio::sync::watch;

use super::part::{NO_PROTOCOL, Part};
use super::{FastPath, FastPathMode, Inquiry, Onlooker};
use crate::kernel::KernelError;
use crate::model::Family;

/// How often everything is asked for that the kernel does not tell by itself: the older iptables, functions, policies.
const PERIOD: Duration = Duration::from_millis(500);

/// For each second that an inquiry takes, at least so many pass until the next one begins: a firewall that changes all
/// the time costs a tenth of a processor at most.
const REST: u32 = 9;

/// Finds out who looks, and follows it in a thread of its own from now on: nothing that the agent is busy with delays
/// it. A change is told within [`PERIOD`], one of nftables at once; the thread ends soon after the last receiver is
/// dropped.
///
/// # Errors
/// [`KernelError::Thread`] where no thread can be started.
pub fn follow(mode: FastPathMode) -> Result<watch::Receiver<FastPath>, KernelError> {
    let fixed = match mode {
        FastPathMode::Auto => None,
        FastPathMode::Always => Some(FastPath::OPEN),
        FastPathMode::Never => Some(FastPath::closed(&Onlooker::SwitchedOff)),
    };
    if let Some(path) = fixed {
        tell(None, &path);
        return Ok(watch::channel(path).1);
    }
    let follower = Follower::new();
    if !follower.inquiry.lists_functions() {
        tracing::info!(
            "this kernel does not list the functions at its netfilter hooks: rules are all that is looked for"
        );
    }
    tell(None, &follower.path.borrow());
    let receiver = follower.path.subscribe();
    std::thread::Builder::new().name("netfilter".into()).spawn(move || follower.run()).map_err(KernelError::Thread)?;
    Ok(receiver)
}

struct Follower {
    inquiry: Inquiry,
    netfilter: Part,
    /// Changes of nftables. Only that there was one counts.
    events: Option<Socket>,
    path: watch::Sender<FastPath>,
}

impl Follower {
    /// Subscribes before it asks, so that no change is missed in between.
    fn new() -> Self {
        let mut netfilter = Part::new("nfnetlink");
        let events = subscribe(&mut netfilter);
        let mut inquiry = Inquiry::new();
        let path = watch::Sender::new(inquiry.look());
        Self { inquiry, netfilter, events, path }
    }

    fn run(mut self) {
        while !self.path.is_closed() {
            self.wait();
            let before = self.path.borrow().clone();
            let started = Instant::now();
            self.look();
            tell(Some(&before), &self.path.borrow());
            std::thread::sleep((started.elapsed() * REST).min(PERIOD));
        }
    }

    fn look(&mut self) {
        let found = self.inquiry.look();
        self.path.send_if_modified(|path| {
            let is_new = *path != found;
            *path = found;
            is_new
        });
    }

    /// Until there is a reason to look.
    fn wait(&mut self) {
        let Some(events) = &self.events else {
            std::thread::sleep(PERIOD);
            self.events = subscribe(&mut self.netfilter);
            return;
        };
        let mut descriptors = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PERIOD).unwrap_or(PollTimeout::MAX);
        // Interrupted or not, now is a time to look.
        let _ = poll(&mut descriptors, timeout);
        if let Err(cause) = drain(events) {
            tracing::debug!(%cause, "changes of nftables are not told; subscribing again");
            self.events = None;
        }
    }
}

/// `None`: changes are noticed when it is time to look, then.
fn subscribe(netfilter: &mut Part) -> Option<Socket> {
    let socket = netfilter.ask(NO_PROTOCOL, || {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(libc::NFNLGRP_NFTABLES.cast_unsigned())?;
        socket.set_non_blocking(true)?;
        Ok(socket)
    });
    socket.unwrap_or_else(|cause| {
        tracing::debug!(%cause, "changes of nftables are not told by the kernel");
        None
    })
}

/// Takes all that has been told, unread: a transaction may tell thousands of rules.
fn drain(events: &Socket) -> io::Result<()> {
    let mut buffer = [0_u8; 16];
    loop {
        match events.recv(&mut &mut buffer[..], 0) {
            // ENOBUFS: there was more than fits, which is a change as well.
            Err(cause) if cause.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => drop(result?),
        }
    }
}

/// Logs each change once.
fn tell(before: Option<&FastPath>, now: &FastPath) {
    for family in Family::ALL {
        let was_open = before.map(|before| before.onlooker(family).is_none());
        match now.onlooker(family) {
            None if was_open == Some(true) => {}
            None => tracing::info!("fast path on for {family}"),
            Some(onlooker) if was_open == Some(false) => {
                if before.is_some_and(|before| before.onlooker(family) != Some(onlooker)) {
                    tracing::debug!("fast path stays off for {family}: {onlooker}");
                }
            }
            Some(onlooker) => tracing::info!("fast path off for {family}: {onlooker}"),
        }
    }
}

impl Drop for Follower {
    /// Nobody follows it any more: what was open once does not stay open.
    fn drop(&mut self) {
        let cause = "the thread that asks has ended".to_owned();
        self.path.send_replace(FastPath::closed(&Onlooker::Unknown { what: "netfilter", cause }));
    }
}
