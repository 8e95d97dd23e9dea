use zerocopy::FromZeros as _;

use super::{
    Link, Packet, Tables, V4, V6,
    icmp_redirect::{IcmpRedirect, misleads},
    ingress::{At, count_drop},
    parse::{Headers, Parse, Parsed, locate},
    rewrite::translate,
};
use crate::{
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::Side,
};

/// The way of a packet that goes out through `hook`.
#[inline(always)]
pub fn egress<P: Packet, T: Tables>(packet: &mut P, tables: &T, hook: Hook, link: Link) -> Verdict {
    let verdict = match locate(packet, link) {
        Some((false, l3)) => family::<V4, P, T>(packet, tables, At { hook, link, l3 }),
        Some((true, l3)) => family::<V6, P, T>(packet, tables, At { hook, link, l3 }),
        None => Verdict::Pass,
    };
    count_drop(tables, hook, verdict)
}

#[inline(always)]
fn family<F: Parse + IcmpRedirect, P: Packet, T: Tables>(packet: &mut P, tables: &T, at: At) -> Verdict {
    let mut headers = Headers::<F>::empty();
    match F::parse(packet, at.l3, Side::EGRESS, &mut headers) {
        Parsed::Ports => {}
        Parsed::Other => {
            return if headers.protocol() == F::ICMP && misleads::<F, P, T>(packet, tables, headers.l4) {
                Verdict::Drop(Reason::IcmpRedirect)
            } else {
                Verdict::Pass
            };
        }
        // Counted where it came in.
        Parsed::LeftAlone(_) => return Verdict::Pass,
    }
    let mut flow = F::Flow::new_zeroed();
    if !tables.find::<F>(&headers.key, tables.now(), headers.seen(), &mut flow) {
        return Verdict::Pass;
    }
    if translate::<F, P>(packet, &headers, &flow) { Verdict::Translate } else { Verdict::Drop(Reason::RewriteFailed) }
}
