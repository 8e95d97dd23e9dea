use super::{
    Link, Packet, Tables, V4, V6,
    icmp_redirect::{IcmpRedirect, misleads},
    ingress::{At, settle},
    parse::{Parse, Unparsed, locate},
    rewrite::rewrite,
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
        None => Ok(Verdict::Pass),
    };
    settle(tables, hook, verdict)
}

#[inline(always)]
fn family<F: Parse + IcmpRedirect, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    at: At,
) -> Result<Verdict, Reason> {
    let headers = match F::parse(packet, at.l3) {
        Ok(headers) => headers,
        Err(Unparsed::Other(protocol, l4)) => {
            return if protocol == F::ICMP && misleads::<F, P, T>(packet, tables, l4) {
                Err(Reason::IcmpRedirect)
            } else {
                Ok(Verdict::Pass)
            };
        }
        // Counted where it came in.
        Err(Unparsed::LeftAlone(_)) => return Ok(Verdict::Pass),
    };
    let Some(flow) = tables.find::<F>(&F::key(&headers.tuple, Side::EGRESS), tables.now(), headers.seen()) else {
        return Ok(Verdict::Pass);
    };
    rewrite::<F, P>(packet, &headers, &F::tuple(&flow, headers.tuple.protocol))?;
    Ok(Verdict::Translate)
}
