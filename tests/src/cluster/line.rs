use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::Place;
use crate::patience::patience;
use crate::traffic::{Dialled, dial, server::Answer};

/// A connection to an echo port from a port of the caller's choice, held by the test itself: it shows at any moment
/// whether it still goes on.
pub struct Line {
    reader: BufReader<TcpStream>,
    /// Who answers, and whom he sees.
    pub answer: Answer,
    /// How often its SYN was sent again.
    pub repeats: u32,
    said: u64,
    what: String,
}

impl Line {
    /// Connects from `port` (0 = any) of a place, whatever else has that port.
    ///
    /// # Errors
    /// No connection, or not from there.
    pub fn open(from: &impl Place, port: u16, to: SocketAddr) -> Result<Self> {
        let what = format!("{} port {port} to {to}", from.name());
        let Dialled { result, repeats } = from.namespace().enter(|| dial(to, port, patience(Duration::ZERO)))?;
        let stream = result.with_context(|| format!("{what}: SYN repeated {repeats} times"))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).with_context(|| format!("{what}: who answers"))?;
        let answer = Answer::parse(line.as_bytes()).with_context(|| what.clone())?;
        Ok(Self { reader, answer, repeats, said: 0, what })
    }

    /// Says something new and wants to hear the same.
    ///
    /// # Errors
    /// It does not come back.
    pub fn exchange(&mut self) -> Result<()> {
        self.said += 1;
        let question = self.said.to_be_bytes();
        let mut answer = [0; 8];
        let exchanged = self.reader.get_mut().write_all(&question).and_then(|()| self.reader.read_exact(&mut answer));
        exchanged.with_context(|| format!("{}: exchange {}", self.what, self.said))?;
        ensure!(answer == question, "{}: {answer:?} came back for {question:?}", self.what);
        Ok(())
    }

    /// Its own address and port.
    ///
    /// # Errors
    /// Of the system call.
    pub fn source(&self) -> Result<SocketAddr> {
        Ok(self.reader.get_ref().local_addr()?)
    }

    /// Ends it by a reset in place of a FIN.
    ///
    /// # Errors
    /// Of the system call.
    pub fn reset(self) -> Result<()> {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(setsockopt(self.reader.get_ref(), sockopt::Linger, &now)?)
    }
}
