use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use super::{FakeServer, IMPATIENT, Patience, Source, service};

/// A server that is cut off in the middle of a watch. The kernel gives no sign of it by itself, so that this takes a
/// network of its own, whose only device goes down.
#[test]
fn a_dead_peer_is_noticed_within_seconds() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace can be made by root only");
        return;
    }
    // The namespace belongs to this thread and goes with it.
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        set_loopback("up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = FakeServer::default();
            server.apply("services", service("a"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string();
            let running = server.start(&address).await;
            let mut source =
                Source::within(Patience { response: Duration::from_secs(60), ..IMPATIENT }, &[running.url()]);
            source.listed().await;
            set_loopback("down");
            let cut = Instant::now();
            let problem = loop {
                match tokio::time::timeout(Duration::from_secs(120), source.messages.recv()).await {
                    Ok(Some(super::Message::Problem(problem))) => break problem,
                    Ok(Some(_)) => {}
                    other => panic!("{other:?} after {:?}", cut.elapsed()),
                }
            };
            let elapsed = cut.elapsed();
            // Long before the limit for an answer.
            assert!((4..30).contains(&elapsed.as_secs()), "{elapsed:?}: {problem}");
            eprintln!("noticed after {elapsed:?}: {problem}");
        });
    });
    thread.join().unwrap();
}

fn set_loopback(state: &str) {
    assert!(Command::new("ip").args(["link", "set", "lo", state]).status().unwrap().success());
}
