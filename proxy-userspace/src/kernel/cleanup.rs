use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::links::clsact::Clsact;
use super::lock::PinDir;
use super::pins::{self, Layout};
use super::{KernelError, bpffs, preconditions, raw, sockets};

/// What [`cleanup`] has removed. Programs go with the links and filters that hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// TCX links, one for each device and direction.
    pub links: usize,
    /// Links at control groups, one for each call on a socket.
    pub sockets: usize,
    /// Filters on clsact qdiscs.
    pub filters: usize,
    pub qdiscs: usize,
    pub maps: usize,
    /// What is still there, and why.
    pub left: Vec<String>,
}

/// Removes every program, link, map, pin and qdisc that agents on this pin directory have made, of all layout versions.
/// clsact filters are looked for in the network namespace of the caller.
///
/// # Errors
/// [`KernelError::InUse`] where an agent runs on the directory; otherwise the first thing that could not be removed.
pub async fn cleanup(pin_dir: &Path) -> Result<Removed, KernelError> {
    preconditions::privileges()?;
    let lock = if pin_dir.exists() { Some(PinDir::lock(pin_dir)?) } else { None };
    let namespace = raw::namespace_cookie().map_err(KernelError::path("reading the network namespace of", pin_dir))?;
    let failed = |cause: io::Error| KernelError::Netlink { operation: "opening a socket", cause: cause.to_string() };
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(failed)?;
    let connection = tokio::spawn(connection);

    let mut removed = Removed::default();
    let mut layouts = Layout::all(pin_dir);
    if layouts.is_empty() {
        // Filters may be there even if the pins are gone, for example with the mount that held them.
        layouts.push(Layout::current(pin_dir));
    }
    for layout in layouts {
        let clsact = Clsact::new(netlink.clone(), layout.clone(), namespace);
        let (filters, qdiscs, left) = clsact.retain(|_| false).await?;
        removed.filters += filters;
        removed.qdiscs += qdiscs;
        removed.left.extend(left);
        remove_layout(&layout, namespace, &mut removed)?;
    }
    connection.abort();
    if let Some(lock) = lock {
        remove_pin_dir(lock)?;
    }
    Ok(removed)
}

fn remove_layout(layout: &Layout, namespace: u64, removed: &mut Removed) -> Result<(), KernelError> {
    for (_, directory) in layout.all_links() {
        for (path, _) in pins::entries(&directory) {
            let link = raw::link::open_pin(&path).map_err(KernelError::path("opening pinned link", &path))?;
            pins::detach(link.as_fd(), &path).map_err(KernelError::path("detaching the link pinned at", &path))?;
            removed.links += 1;
        }
        remove_directory(&directory)?;
    }
    removed.sockets += sockets::detach_all(layout, None)?;
    for (path, _) in pins::entries(&layout.maps()) {
        fs::remove_file(&path).map_err(KernelError::path("removing", &path))?;
        removed.maps += 1;
    }
    remove_directory(&layout.maps())?;
    for (of, directory) in layout.all_clsact() {
        for (marker, entry) in pins::entries(&directory) {
            if of != namespace {
                let device = pins::parse_device(&entry).map_or(entry, |(name, _)| name);
                removed.left.push(format!("filters on {device} in another network namespace: run cleanup there"));
            }
            remove_directory(&marker)?;
        }
        remove_directory(&directory)?;
    }
    remove_directory(layout.base())
}

/// Other things that were put into the pin directory stay, and it with them.
fn remove_pin_dir(lock: PinDir) -> Result<(), KernelError> {
    let path = lock.path().to_owned();
    bpffs::release(&path)?;
    match fs::remove_dir(&path) {
        Err(cause)
            if !matches!(cause.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY | libc::EBUSY | libc::EPERM)) =>
        {
            Err(KernelError::path("removing", &path)(cause))
        }
        _ => Ok(()),
    }
}

fn remove_directory(path: &Path) -> Result<(), KernelError> {
    match fs::remove_dir(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(KernelError::path("removing", path)(cause)),
        _ => Ok(()),
    }
}
