use std::io;
use std::time::{Duration, Instant};

use netlink_packet_netfilter::nftables::{ChainMessage, GenAttribute, GenMessage, NfTablesMessage, TableMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::FastPath;
use super::base_chain::{BaseChain, Table};
use crate::kernel::netlink::Netlink;

/// What was read is read once more after this time: rules that a transaction is about to add or to remove are counted
/// as if they were added or removed already, and it may yet be aborted, which no generation tells.
const SETTLED: Duration = Duration::from_millis(500);

/// And again after this, whatever the generation: a table goes with the process that owned it without a new one
/// (`nft_rcv_nl_event`, net/netfilter/nf_tables_api.c).
const TRUSTED: Duration = Duration::from_secs(10);

/// Who looks by nftables. A node may have some chains for each service, so that they are only read when something has
/// changed.
#[derive(Debug, Default)]
pub struct Nftables {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    generation: u32,
    path: FastPath,
    read: Instant,
    is_settled: bool,
}

impl Nftables {
    /// # Errors
    /// `EINVAL` where the kernel has no nftables.
    pub fn look(&mut self, netlink: &mut Netlink) -> io::Result<FastPath> {
        let generation =
            netlink.get(request(NfTablesMessage::GetGen(GenMessage { attributes: vec![] })), generation)?;
        let known = self.known.as_ref().filter(|known| known.generation == generation);
        let limit = |known: &Known| if known.is_settled { TRUSTED } else { SETTLED };
        if let Some(known) = known
            && known.read.elapsed() < limit(known)
        {
            return Ok(known.path.clone());
        }
        let is_settled = known.is_some();
        let read = Instant::now();
        let path = self::read(netlink)?;
        self.known = Some(Known { generation, path: path.clone(), read, is_settled });
        Ok(path)
    }
}

fn read(netlink: &mut Netlink) -> io::Result<FastPath> {
    let tables = request(NfTablesMessage::GetTable(TableMessage { attributes: vec![] }));
    let chains = request(NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }));
    let dormant = netlink.list(&tables, Table::parse_dormant)?;
    let mut path = FastPath::OPEN;
    for chain in netlink.list(&chains, BaseChain::parse)? {
        chain.judge(&dormant, &mut path);
    }
    Ok(path)
}

/// About all families.
fn request(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), message)
}

/// The number of transactions so far.
fn generation(message: NetfilterMessage) -> Option<u32> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(message)) = message.inner else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        GenAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::captured::answers;
    use super::*;

    #[test]
    fn the_generation_is_read() {
        let [message] = <[NetfilterMessage; 1]>::try_from(answers(include_str!("captured/generation.hex"))).unwrap();
        assert_eq!(generation(message), Some(6));
    }
}
