//! What a packet goes through, written once for every host: a kernel program or a test.
//!
//! Every hook asks the flow table one question: is this tuple known on this side of the stack? An entry holds the
//! whole tuple that takes its place. Only a packet that no entry knows, at ingress, goes further: to the frontends.
//!
//! ```text
//! ingress: parse -> flow? -> current? -> rewrite                             (established)
//!                   flow? -> review ------> rewrite                          (what turns a flow; admit.rs)
//!                   flow? -> frontend? -> decide -> enter -> rewrite         (new; admit.rs, decide.rs, enter.rs)
//!                            target? ---------> enter                        (not ours; stranger.rs)
//! egress:  parse -> flow? -> rewrite
//! ```
//!
//! The client's tuple is translated to the backend at the first ingress hook and translated back at the last egress
//! hook. A masqueraded flow has a second pair of entries, so that the stack and its netfilter hooks see the real client
//! and the real backend in every case:
//!
//! ```text
//!              ingress                        stack                      egress
//! forward      client:p  -> frontend    =>    client:p' -> backend  =>   node:q -> backend   (if masqueraded)
//! reply        backend -> node:q        =>    backend -> client:p'  =>   frontend -> client:p
//! ```
//!
//! The fast path applies both entries of a direction at once and redirects. [`crate::wire::Role`] has a table of all
//! entries.
//!
//! A flow is bound to a seat in one of two rings. Until both ends have answered each other it has one among the
//! *opening*: each new flow takes the next and ends its last holder, so that a flood displaces only its like, and no more
//! than there are seats. Then it gets one among the *proven*, which is free only where its last holder has ended. So the
//! table neither fills up nor needs an agent to be emptied.

mod admit;
mod claim;
mod class;
pub mod decide;
mod egress;
mod enter;
mod family;
mod hash;
mod icmp_redirect;
mod ingress;
mod judge;
pub mod over;
mod packet;
pub mod parse;
pub mod part;
mod reject;
pub mod rewrite;
mod row;
pub mod socket;
mod stranger;
mod tables;

pub use class::classify;
pub use egress::egress;
pub use family::{Family, State, Tuple, V4, V6};
pub use hash::flow_hash;
pub use ingress::ingress;
pub use judge::{client_key, is_clients, life, reply_key};
pub use packet::{ChecksumChange, Link, Packet, Route, RouteQuery, SocketQuery};
pub use parse::Parse;
pub use reject::Reject;
pub use row::Row;
pub use tables::{Inserted, Lookup, OpeningSeat, Record, Seat, Seats};
