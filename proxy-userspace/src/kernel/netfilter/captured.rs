//! What kernels answered, for tests.

use netlink_packet_core::{NetlinkDeserializable, NetlinkPayload};

use crate::kernel::netlink::messages;

/// The bytes of a file of hexadecimal numbers, in which lines that begin with # say where it comes from.
pub fn bytes(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The messages in such a file.
pub fn answers<I: NetlinkDeserializable>(text: &str) -> Vec<I> {
    let answer = |payload| match payload {
        NetlinkPayload::InnerMessage(answer) => answer,
        _ => panic!("neither an end nor an error was captured"),
    };
    messages(&bytes(text)).map(|message| answer(message.unwrap().payload)).collect()
}
