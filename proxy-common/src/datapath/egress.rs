use super::{
    Link, Packet, Record, V4, V6,
    icmp_redirect::{IcmpRedirect, is_redirect_about_a_flow},
    ingress::{At, count_drop, is_reply},
    over::since,
    parse::{Parse, Parsed, UDP, locate},
    part::{Code, Part, Work},
    reject::Reject,
    stranger::{may_be_own, may_be_stray},
};
use crate::{
    reason::{Hook, Reason},
    tcp::Seen,
    verdict::Verdict,
    wire::{FlowFlags, Side},
};

/// The way of a packet that goes out through `hook`.
#[inline(always)]
pub fn egress<P: Packet, T: Record>(packet: &mut P, tables: &T, hook: Hook, link: Link) -> Verdict {
    if packet.is_of_vlan() {
        return Verdict::Pass;
    }
    let verdict = match locate(packet, link) {
        Some((false, l3)) => family::<V4, P, T>(packet, tables, At { hook, link, l3 }),
        Some((true, l3)) => family::<V6, P, T>(packet, tables, At { hook, link, l3 }),
        None => Verdict::Pass,
    };
    count_drop(tables, hook, verdict)
}

#[inline(always)]
fn family<F: Parse + IcmpRedirect + Reject, P: Packet, T: Record>(packet: &mut P, tables: &T, at: At) -> Verdict {
    let Some(row) = tables.row::<F>() else { return Verdict::Pass };
    match F::parse(packet, at.l3, Side::EGRESS, &mut row.headers) {
        Parsed::Ports => {}
        Parsed::Other => {
            return if row.headers.protocol() == F::ICMP
                && is_redirect_about_a_flow::<F, P, T>(packet, tables, row.headers.l4)
            {
                Verdict::Drop(Reason::IcmpRedirect)
            } else {
                Verdict::Pass
            };
        }
        // Counted where it came in.
        Parsed::LeftAlone(_) => return Verdict::Pass,
    }
    let now = tables.now();
    let udp = row.headers.protocol() == UDP;
    if !tables.find::<F>(&row.headers.key, now, row.headers.seen(), &mut row.flow) {
        if at.hook == Hook::PodEgress {
            return Verdict::Pass;
        }
        if udp && may_be_own::<F, T>(tables, &row.headers) {
            row.at(at.hook, at.link, packet.device());
            let _ = tables.work::<{ Work::OWN }, F>();
        } else if !udp && may_be_stray::<F, P, T>(packet, tables, &row.headers) {
            row.at(at.hook, at.link, packet.device());
            return match tables.apart::<{ Part::STRAY }, F, P>(packet) {
                Code::REPLY => Verdict::Inward,
                Code::PASS => Verdict::Pass,
                code => Verdict::Drop(Code::reason(code)),
            };
        }
        return Verdict::Pass;
    }
    let state = F::state(&row.flow);
    let mut detour = false;
    if is_reply(&state) {
        row.at(at.hook, at.link, packet.device());
        if udp && state.flags & FlowFlags::PROVEN == 0 && state.seen & Seen::ACK != 0 && since(state.last_seen, now) > 0
        {
            // A server that goes on sending is as good as a client that asks again.
            row.reply_key = row.headers.key;
            F::make_reverse_key(&mut row.client_key, &row.flow, row.headers.protocol(), Side::INGRESS);
            let _ = tables.work::<{ Work::PROVE }, F>();
        }
        if at.hook == Hook::UplinkEgress && packet.device() != state.subject {
            detour = tables.apart::<{ Part::DETOUR }, F, P>(packet) == Code::REPLY;
        }
    }
    let detour = packet.conceal(usize::from(detour)) != 0;
    // The parts have had it meanwhile.
    let Some(row) = tables.row::<F>() else { return Verdict::Pass };
    if !tables.rewrite::<F, P>(packet, row) {
        return Verdict::Drop(Reason::RewriteFailed);
    }
    if !detour {
        return Verdict::Translate;
    }
    packet.send_by(&row.route);
    tables.count(at.hook, Reason::Detour);
    Verdict::Forward
}
