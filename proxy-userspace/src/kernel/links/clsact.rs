use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::{StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::Handle;

use crate::kernel::KernelError;
use crate::kernel::pins::{self, Direction, Layout};

const QDISC: &str = "clsact";
/// What the names of our filters begin with, as `tc filter show` prints them.
const PREFIX: &str = "sheave/";
/// The same in every run, so that a restart replaces what the last one left.
const HANDLE: u32 = 0x5ea5e;
/// `ETH_P_ALL` of linux/if_ether.h, in network order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;

/// Filters run by priority: ours come first on the way in and last on the way out.
const fn priority(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 1,
        Direction::Egress => 0xffff,
    }
}

const fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

/// Filters on clsact qdiscs, for kernels without TCX.
pub struct Clsact {
    netlink: Handle,
    layout: Layout,
    namespace: u64,
}

impl Clsact {
    pub fn new(netlink: Handle, layout: Layout, namespace: u64) -> Self {
        Self { netlink, layout, namespace }
    }

    /// Sees to it that `program` runs on the device, replacing the one that is there at once.
    ///
    /// # Errors
    /// `ENODEV` where the device has vanished.
    pub async fn ensure(
        &self,
        index: u32,
        name: &str,
        direction: Direction,
        program: BorrowedFd<'_>,
        program_name: &str,
    ) -> io::Result<()> {
        self.ensure_qdisc(index, name).await?;
        let mut filter = filter(index, direction);
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{PREFIX}{program_name}"))),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        // Without NLM_F_EXCL the kernel replaces a filter with the same priority and handle.
        request(&self.netlink, RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE).await
    }

    /// The marker comes before the qdisc: a crash in between must not leave a qdisc that nobody removes.
    async fn ensure_qdisc(&self, index: u32, name: &str) -> io::Result<()> {
        let directory = self.layout.clsact(self.namespace);
        fs::create_dir_all(&directory)?;
        let marker = directory.join(pins::device_entry(name, index));
        let marked = match fs::create_dir(&marker) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => false,
            result => result.map(|()| true)?,
        };
        let made =
            request(&self.netlink, RouteNetlinkMessage::NewQueueDiscipline(qdisc(index)), NLM_F_CREATE | NLM_F_EXCL)
                .await;
        if made.is_err() && marked {
            fs::remove_dir(&marker)?;
        }
        match made {
            Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes our filters, and the qdiscs that we made and nobody else uses, off all devices but those that `keep`
    /// names. Returns the numbers of filters and qdiscs removed, and what was left and why.
    pub async fn retain(&self, keep: impl Fn(u32) -> bool) -> Result<(usize, usize, Vec<String>), KernelError> {
        let (mut filters, mut qdiscs, mut left) = (0, 0, Vec::new());
        let present = self.devices_with_clsact().await?;
        for index in present.iter().copied().filter(|index| !keep(*index)) {
            for direction in Direction::ALL {
                let found = self.filters(index, direction).await?;
                for filter in found.iter().filter(|filter| is_ours(filter)) {
                    let mut message = self::filter(index, direction);
                    message.header.info = filter.header.info;
                    gone_is_fine(request(&self.netlink, RouteNetlinkMessage::DelTrafficFilter(message), 0).await)
                        .map_err(failed("removing a filter"))?;
                    filters += 1;
                }
            }
        }
        for (marker, entry) in pins::entries(&self.layout.clsact(self.namespace)) {
            let Some((name, index)) = pins::parse_device(&entry) else { continue };
            if present.contains(&index) {
                if keep(index) {
                    continue;
                }
                let mut foreign = 0;
                for direction in Direction::ALL {
                    foreign += self.filters(index, direction).await?.len();
                }
                if foreign > 0 {
                    left.push(format!("clsact qdisc of {name}: somebody else has filters on it"));
                } else {
                    let qdisc = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index));
                    gone_is_fine(request(&self.netlink, qdisc, 0).await).map_err(failed("removing a qdisc"))?;
                    qdiscs += 1;
                }
            }
            fs::remove_dir(&marker).map_err(KernelError::path("removing", &marker))?;
        }
        Ok((filters, qdiscs, left))
    }

    async fn devices_with_clsact(&self) -> Result<BTreeSet<u32>, KernelError> {
        let is_clsact = |message: &TcMessage| {
            message.attributes.iter().any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == QDISC))
        };
        self.netlink
            .qdisc()
            .get()
            .execute()
            .try_filter_map(async |message| {
                Ok(is_clsact(&message).then_some(message.header.index).and_then(|index| u32::try_from(index).ok()))
            })
            .try_collect()
            .await
            .map_err(KernelError::netlink("listing qdiscs"))
    }

    async fn filters(&self, index: u32, direction: Direction) -> Result<Vec<TcMessage>, KernelError> {
        let mut filters = self.netlink.traffic_filter(index.cast_signed());
        let request = match direction {
            Direction::Ingress => filters.get().ingress(),
            Direction::Egress => filters.get().egress(),
        };
        match request.execute().try_collect().await {
            Err(rtnetlink::Error::NetlinkError(cause)) if cause.raw_code() == -libc::ENODEV => Ok(Vec::new()),
            result => result.map_err(KernelError::netlink("listing filters")),
        }
    }
}

fn qdisc(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind(QDISC.into()));
    message
}

fn filter(index: u32, direction: Direction) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent(direction);
    message.header.handle = HANDLE.into();
    message.header.info = priority(direction) << 16 | ALL_PROTOCOLS;
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    message
}

fn is_ours(message: &TcMessage) -> bool {
    message.header.handle == HANDLE.into()
        && message.attributes.iter().any(|attribute| match attribute {
            TcAttribute::Options(options) => options.iter().any(
                |option| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name.starts_with(PREFIX)),
            ),
            _ => false,
        })
}

/// Sends a request and waits for its acknowledgement. rtnetlink's own requests for qdiscs and filters leave out what
/// we need (the kind clsact, BPF filters, handles).
async fn request(netlink: &Handle, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = netlink.clone().request(message).map_err(io::Error::other)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(cause) = answer.payload
            && cause.raw_code() != 0
        {
            return Err(io::Error::from_raw_os_error(-cause.raw_code()));
        }
    }
    Ok(())
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) => Ok(()),
        result => result,
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    move |cause| KernelError::Netlink { operation, cause: cause.to_string() }
}
