//! Pins, and links to devices and control groups. Those to devices are made by interface index, since a name may pass to
//! another device between two calls.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{bpf, bpf_fd, number};

const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const ITER_CREATE: u32 = 33;
const LINK_DETACH: u32 = 34;

/// `BPF_LINK_TYPE_CGROUP` and `BPF_LINK_TYPE_TCX` of linux/bpf.h.
const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_TCX: u32 = 11;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Create {
    program: u32,
    /// Index of a device or descriptor of a control group.
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The head of `struct bpf_link_info`.
#[derive(Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// Of a TCX link the index of its device and the type of its hook (Linux 6.6), of one to a control group the id of
    /// that (5.7), both halves.
    target: [u32; 2],
}

/// Where a TCX program goes among those that are on the device already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    FirstAtIngress,
    LastAtEgress,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn address(path: &CString) -> u64 {
    path.as_ptr().expose_provenance() as u64
}

/// Fails with `AlreadyExists` where something is pinned at `path`.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut object = Object { path: address(&path), fd: number(object), flags: 0 };
    // SAFETY: the kernel reads the path up to its zero byte.
    unsafe { bpf(OBJ_PIN, &mut object) }.map(drop)
}

pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: as above; the command returns a descriptor of the object.
    unsafe { bpf_fd(OBJ_GET, &mut Object { path: address(&path), fd: 0, flags: 0 }) }
}

/// Puts a program on the device with this index in the thread's network namespace (Linux 6.6).
pub fn attach(program: BorrowedFd<'_>, index: u32, place: Place) -> io::Result<OwnedFd> {
    const INGRESS: u32 = 46;
    const EGRESS: u32 = 47;
    const BEFORE: u32 = 1 << 3;
    const AFTER: u32 = 1 << 4;
    let (attach_type, flags) = match place {
        Place::FirstAtIngress => (INGRESS, BEFORE),
        Place::LastAtEgress => (EGRESS, AFTER),
    };
    create(program, index, attach_type, flags)
}

/// Puts a program at a control group, beside those of others (Linux 5.7). `attach_type` is one of `enum
/// bpf_attach_type`.
pub fn attach_to_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    create(program, number(cgroup), attach_type, 0)
}

fn create(program: BorrowedFd<'_>, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let program = number(program);
    let mut create = Create { program, target, attach_type, flags, relative: 0, pad: 0, expected_revision: 0 };
    // SAFETY: there is no address in the attributes; the command returns a descriptor of the link.
    unsafe { bpf_fd(LINK_CREATE, &mut create) }
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct CreateIterator {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    pad: u32,
}

/// What a program of type `iter/bpf_sk_storage_map` writes about the elements of a map, to be read (Linux 5.10).
pub fn iterate(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<File> {
    /// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
    const ITERATOR: u32 = 28;
    let map = [number(map)];
    let mut create = CreateIterator {
        program: number(program),
        target: 0,
        attach_type: ITERATOR,
        flags: 0,
        info: map.as_ptr().expose_provenance() as u64,
        info_length: size_of_val(&map) as u32,
        pad: 0,
    };
    // SAFETY: the kernel reads `info_length` bytes of `map`; the command returns a descriptor of the link.
    let link = unsafe { bpf_fd(LINK_CREATE, &mut create) }?;
    // SAFETY: there is no address in the attributes; the command returns a descriptor to read from, which holds the link.
    unsafe { bpf_fd(ITER_CREATE, &mut [number(link.as_fd()), 0]) }.map(File::from)
}

/// Replaces the program of a link: every packet meets the old one or the new one.
pub fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut update = Update { link: number(link), program: number(program), flags: 0, old_program: 0 };
    // SAFETY: there is no address in the attributes.
    unsafe { bpf(LINK_UPDATE, &mut update) }.map(drop)
}

/// Takes the link's program off its device at once, whoever else still holds the link (Linux 5.9).
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: there is no address in the attributes.
    unsafe { bpf(LINK_DETACH, &mut [number(link)]) }.map(drop)
}

/// The index of the device a TCX link is on, 0 once the device is gone; `None` for any other kind of link.
pub fn device(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let LinkInfo { kind, target: [index, _], .. } = info(link)?;
    Ok((kind == LINK_TYPE_TCX).then_some(index))
}

/// The id of the control group a link is on, 0 once the group is gone; `None` for any other kind of link. On machines of
/// 64 bits it is the inode of the group's directory.
pub fn cgroup(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let LinkInfo { kind, target, .. } = info(link)?;
    Ok((kind == LINK_TYPE_CGROUP).then_some(zerocopy::transmute!(target)))
}

fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut found = [LinkInfo::default()];
    let address = found.as_mut_ptr().expose_provenance() as u64;
    let mut info = Info { fd: number(link), length: size_of::<LinkInfo>() as u32, info: address };
    // SAFETY: the kernel writes at most `length` bytes, the size of the structure.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut info) }?;
    let [found] = found;
    Ok(found)
}
