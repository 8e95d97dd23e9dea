//! Reading and writing maps, one element or many at a time.
//!
//! The functions are `unsafe` since the kernel copies as many bytes as the *map* says: the caller vouches that keys have
//! `size_of::<K>()` bytes and values `size_of::<V>()`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use proxy_common::wire::Wire;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{bpf, bpf_fd, number};

const CREATE: u32 = 0;
const LOOKUP_ELEM: u32 = 1;
const UPDATE_ELEM: u32 = 2;
const DELETE_ELEM: u32 = 3;
const LOOKUP_AND_DELETE_ELEM: u32 = 21;
const LOOKUP_BATCH: u32 = 24;
const UPDATE_BATCH: u32 = 26;
const DELETE_BATCH: u32 = 27;

/// What a map is made of.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub struct Shape {
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    /// Both for kinds of maps that we do not make.
    pub inner_map_and_numa_node: [u32; 2],
    /// Ends with a zero byte.
    pub name: [u8; 16],
}

/// Makes a map.
pub fn create(shape: &mut Shape) -> io::Result<OwnedFd> {
    // SAFETY: there is no address in the attributes; the command returns a descriptor of the map.
    unsafe { bpf_fd(CREATE, shape) }
}

#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

impl BatchAttributes {
    fn new(map: BorrowedFd<'_>, count: usize) -> Self {
        Self { map: number(map), count: u32::try_from(count).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// How many elements a failed command got through. One the kernel does not know leaves `count` as it was.
    fn done(&self, asked: usize) -> usize {
        let count = self.count as usize;
        if count < asked { count } else { 0 }
    }
}

fn address<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

fn address_mut<T>(values: &mut [T]) -> u64 {
    values.as_mut_ptr().expose_provenance() as u64
}

/// # Safety
/// See the module.
pub unsafe fn update<K: Wire, V: Wire>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let (key, value) = (std::slice::from_ref(key), std::slice::from_ref(value));
    let mut element = Element { map: number(map), key: address(key), value: address(value), ..Element::default() };
    // SAFETY: the kernel reads one key and one value.
    unsafe { bpf(UPDATE_ELEM, &mut element) }.map(drop)
}

/// As [`update`], but fails with `AlreadyExists` where the key is there.
///
/// # Safety
/// See the module.
pub unsafe fn insert<K: Wire, V: Wire>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    const NOEXIST: u64 = 1;
    let (key, value) = (address(std::slice::from_ref(key)), address(std::slice::from_ref(value)));
    let mut element = Element { map: number(map), key, value, flags: NOEXIST, ..Element::default() };
    // SAFETY: the kernel reads one key and one value.
    unsafe { bpf(UPDATE_ELEM, &mut element) }.map(drop)
}

/// # Safety
/// See the module.
pub unsafe fn delete<K: Wire>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut element = Element { map: number(map), key: address(std::slice::from_ref(key)), ..Element::default() };
    // SAFETY: the kernel reads one key.
    unsafe { bpf(DELETE_ELEM, &mut element) }.map(drop)
}

/// # Safety
/// See the module; for a per-CPU map `value` has one place of 8 bytes for each possible CPU.
pub unsafe fn lookup<K: Wire, V: Wire>(map: BorrowedFd<'_>, key: &K, value: &mut [V]) -> io::Result<()> {
    let key = address(std::slice::from_ref(key));
    let mut element = Element { map: number(map), key, value: address_mut(value), ..Element::default() };
    // SAFETY: the kernel reads one key and writes one value, or one for each CPU.
    unsafe { bpf(LOOKUP_ELEM, &mut element) }.map(drop)
}

/// Removes an element of a hash map and returns what it was (Linux 5.14), in one step.
///
/// # Safety
/// See the module.
pub unsafe fn take<K: Wire, V: Wire>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = [V::new_zeroed()];
    let key = address(std::slice::from_ref(key));
    let mut element = Element { map: number(map), key, value: address_mut(&mut value), ..Element::default() };
    // SAFETY: the kernel reads one key and writes one value.
    unsafe { bpf(LOOKUP_AND_DELETE_ELEM, &mut element) }?;
    let [value] = value;
    Ok(value)
}

/// Writes all pairs (Linux 5.6). An error comes with the number of pairs that were written before it.
///
/// # Safety
/// See the module.
pub unsafe fn update_batch<K: Wire, V: Wire>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    let count = keys.len().min(values.len());
    let mut batch =
        BatchAttributes { keys: address(keys), values: address(values), ..BatchAttributes::new(map, count) };
    // SAFETY: the kernel reads `count` keys and values, and both slices have that many.
    unsafe { bpf(UPDATE_BATCH, &mut batch) }.map(drop).map_err(|cause| (batch.done(count), cause))
}

/// Deletes all keys (Linux 5.6). An error comes with the number of keys that were deleted before it.
///
/// # Safety
/// See the module.
pub unsafe fn delete_batch<K: Wire>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), (usize, io::Error)> {
    let mut batch = BatchAttributes { keys: address(keys), ..BatchAttributes::new(map, keys.len()) };
    // SAFETY: the kernel reads `count` keys.
    unsafe { bpf(DELETE_BATCH, &mut batch) }.map(drop).map_err(|cause| (batch.done(keys.len()), cause))
}

/// Where a walk over a map stands. The kernel keeps a bucket number in it for hash maps and a key for arrays: both
/// have four bytes.
#[derive(Default)]
pub struct Cursor(Option<[u32; 1]>);

/// Reads the next elements into the front of `keys` and `values` (Linux 5.6): how many, and whether the walk is over.
/// `ENOSPC` asks for longer buffers, since a whole hash bucket has to fit.
///
/// # Safety
/// See the module; the map is a hash map or an array.
pub unsafe fn lookup_batch<K: Wire, V: Wire>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    let count = keys.len().min(values.len());
    // SAFETY: both slices have room for `count` elements of the sizes that the caller vouches for.
    unsafe { next_batch(map, cursor, address_mut(keys), address_mut(values), count) }
}

/// # Safety
/// The map is a hash map or an array; there is room for `count` keys and values at the addresses.
unsafe fn next_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: u64,
    values: u64,
    count: usize,
) -> io::Result<(usize, bool)> {
    let mut next = [0_u32; 1];
    let mut batch = BatchAttributes {
        in_batch: cursor.0.as_ref().map_or(0, |position| address(position)),
        out_batch: address_mut(&mut next),
        keys,
        values,
        ..BatchAttributes::new(map, count)
    };
    // SAFETY: the kernel writes at most `count` keys and values and four bytes of position.
    let result = unsafe { bpf(LOOKUP_BATCH, &mut batch) };
    let read = count.min(batch.count as usize);
    match result {
        Ok(_) => {
            cursor.0 = Some(next);
            Ok((read, false))
        }
        Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => Ok((read, true)),
        Err(cause) => Err(cause),
    }
}

/// Copies every element of `from` to `to` (Linux 5.6).
///
/// # Safety
/// Both are hash maps or both are arrays, with keys of `key_size` and values of `value_size` bytes and no more than one
/// value for each key.
pub unsafe fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, key_size: usize, value_size: usize) -> io::Result<()> {
    let mut length = 4096;
    let mut cursor = Cursor::default();
    loop {
        let (mut keys, mut values) = (vec![0_u8; length * key_size], vec![0_u8; length * value_size]);
        // SAFETY: the buffers have room for `length` keys and values.
        let next = unsafe { next_batch(from, &mut cursor, address_mut(&mut keys), address_mut(&mut values), length) };
        let (read, over) = match next {
            Err(cause) if cause.raw_os_error() == Some(libc::ENOSPC) => {
                length *= 2;
                continue;
            }
            result => result?,
        };
        if read > 0 {
            let mut batch =
                BatchAttributes { keys: address(&keys), values: address(&values), ..BatchAttributes::new(to, read) };
            // SAFETY: the kernel reads `read` keys and values, of which the buffers have at least as many.
            unsafe { bpf(UPDATE_BATCH, &mut batch) }?;
        }
        if over {
            return Ok(());
        }
    }
}
