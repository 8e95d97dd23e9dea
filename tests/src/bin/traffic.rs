//! Servers and clients for the inside of network namespaces; see `proxy_tests::traffic`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};
use proxy_tests::traffic::{
    AskOptions, BesideOptions, CallOptions, FloodOptions, HttpOptions, LatencyOptions, OPEN, OpenOptions, Opened,
    ResolveOptions, SessionsOptions, Stop, StreamOptions, UdpOptions, ask, beside, call, flood, http, latency, open,
    resolve, server, sessions, stream, udp,
};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Servers that say who they are, and clients that count who answered")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer HTTP and UDP on a port, and echo TCP on the next.
    Serve {
        #[arg(long)]
        name: String,
        #[arg(long, default_value_t = server::PORT)]
        port: u16,
    },
    /// Answer HTTP and UDP at one address alone.
    ServeAt {
        #[arg(long)]
        name: String,
        #[arg(long)]
        address: SocketAddr,
    },
    /// Send HTTP requests.
    Http {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: HttpOptions,
    },
    /// Send datagrams.
    Udp {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: UdpOptions,
    },
    /// Send streams to an echo port and compare what comes back.
    Stream {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: StreamOptions,
    },
    /// Open connections until standard input ends, and print for each when it began and who answered.
    Open {
        #[arg(long)]
        to: SocketAddr,
        #[command(flatten)]
        options: OpenOptions,
    },
    /// Hold connections to an echo port until standard input ends, and ask on each again and again.
    Sessions {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: SessionsOptions,
    },
    /// Make connections, in turns beside others to another address and without.
    Beside {
        #[arg(long)]
        to: SocketAddr,
        #[command(flatten)]
        options: BesideOptions,
    },
    /// Send first packets of flows that never go on. Needs root.
    Flood {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: FloodOptions,
    },
    /// Send one request.
    Ask {
        #[arg(long)]
        to: SocketAddr,
        #[command(flatten)]
        options: AskOptions,
    },
    /// Ask by sockets that are used in one of the ways that there are.
    Call {
        #[arg(long)]
        to: SocketAddr,
        #[command(flatten)]
        options: CallOptions,
    },
    /// Ask by datagrams on a connected socket until standard input ends.
    Resolve {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: ResolveOptions,
    },
    /// Time exchanges.
    Latency {
        #[arg(long)]
        to: SocketAddr,
        #[command(flatten)]
        options: LatencyOptions,
    },
}

#[derive(clap::Args)]
struct Target {
    #[arg(long)]
    to: SocketAddr,
    /// Go on until standard input ends, in place of a number.
    #[arg(long)]
    until_stdin_closes: bool,
}

impl Target {
    fn stop(&self) -> Option<Stop> {
        self.until_stdin_closes.then(Stop::when_stdin_closes)
    }
}

fn main() -> Result<()> {
    match Command::parse().verb {
        Verb::Serve { name, port } => {
            // The first process of a container ends by no signal that it does not handle.
            ctrlc::set_handler(|| std::process::exit(0))?;
            Ok(server::serve(&name, port)?)
        }
        Verb::ServeAt { name, address } => Ok(server::serve_at(&name, address)?),
        Verb::Http { target, options } => print(&http(target.to, &options, target.stop().as_ref())),
        Verb::Udp { target, options } => print(&udp(target.to, &options, target.stop().as_ref())?),
        Verb::Stream { target, options } => print(&stream(target.to, &options, target.stop().as_ref())),
        Verb::Open { to, options } => {
            // Whole lines, since a reader follows them while threads write.
            let tell = |opened: &Opened| drop(print(opened));
            open(to, &options, &Stop::when_stdin_closes(), tell);
            Ok(())
        }
        Verb::Sessions { target, options } => {
            print(&sessions(target.to, &options, &target.stop().unwrap_or_default(), || println!("{OPEN}")))
        }
        Verb::Beside { to, options } => print(&beside(to, &options)),
        Verb::Flood { target, options } => print(&flood(target.to, &options, target.stop().as_ref())?),
        Verb::Ask { to, options } => print(&ask(to, &options)),
        Verb::Call { to, options } => print(&call(to, &options)),
        Verb::Resolve { target, options } => {
            let stop = target.stop().unwrap_or_else(Stop::when_stdin_closes);
            print(&resolve(target.to, &options, &stop))
        }
        Verb::Latency { to, options } => print(&latency(to, &options)),
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
