use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use rtnetlink::sys::{Socket, SocketAddr};

/// The kernel answers within the system call that asks; nobody is to wait for ever where it does not.
const PATIENCE: TimeVal = TimeVal::new(5, 0);

/// How often a listing that changed while it was read is read again.
const ATTEMPTS: usize = 8;

/// The kernel fills as much in one go (`netlink_dump`, net/netlink/af_netlink.c).
const BUFFER: usize = 32 * 1024;

/// A netlink socket that asks one question at a time and waits for the answer.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// In the network namespace of the calling thread.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` for an answer that makes no sense.
    pub fn get<I, T>(&mut self, request: I, mut parse: impl FnMut(I) -> Option<T>) -> io::Result<T>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut found = None;
        self.ask(request, NLM_F_REQUEST, &mut |answer| found = parse(answer))?;
        found.ok_or_else(|| invalid("an answer without what was asked for"))
    }

    /// Asks for a list, of which `parse` takes what it wants.
    ///
    /// # Errors
    /// As [`Self::get`]; `Interrupted` for a list that changed whenever it was read.
    pub fn list<I, T>(&mut self, request: &I, mut parse: impl FnMut(I) -> Option<T>) -> io::Result<Vec<T>>
    where
        I: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        let mut result = Err(io::ErrorKind::Interrupted.into());
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            result = self
                .ask(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, &mut |answer| found.extend(parse(answer)))
                .map(|()| found);
            if !matches!(&result, Err(cause) if cause.kind() == io::ErrorKind::Interrupted) {
                break;
            }
        }
        result
    }

    /// Asks for something to be done, and waits until it is.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn tell<I>(&mut self, request: I) -> io::Result<()>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.ask(request, NLM_F_REQUEST | NLM_F_ACK, &mut drop)
    }

    fn ask<I>(&mut self, request: I, flags: u16, take: &mut impl FnMut(I)) -> io::Result<()>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        self.buffer.resize(message.buffer_len(), 0);
        message.serialize(&mut self.buffer);
        self.socket.send(&self.buffer, 0)?;
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            self.buffer.reserve(BUFFER);
            if self.socket.recv(&mut self.buffer, 0)? > self.buffer.capacity() {
                return Err(invalid("a message larger than any should be"));
            }
            for message in messages(&self.buffer) {
                let message = message?;
                // What is left of an answer that nobody waited for.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                let is_part = message.header.flags & NLM_F_MULTIPART != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        take(answer);
                        if !is_part {
                            return Ok(());
                        }
                    }
                    NetlinkPayload::Error(cause) if cause.raw_code() != 0 => return Err(cause.to_io()),
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_abs()));
                    }
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => {
                        return if interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Takes a datagram apart.
pub fn messages<I: NetlinkDeserializable>(datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<I>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<I>::deserialize(rest);
        let length = message.as_ref().map_or(rest.len(), |message| message.header.length as usize);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message.map_err(invalid))
    })
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}
