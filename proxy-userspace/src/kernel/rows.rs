use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::MapData;
use proxy_common::wire::Wire;

use super::KernelError;
use super::raw::map::{self, Cursor};
use super::specs::Spec;

/// `ENOTSUPP` of linux/errno.h, which the kernel returns where a kind of map has no batch commands.
const ENOTSUPP: i32 = 524;

/// A pinned map whose shape has been checked against the types: what makes the raw calls safe.
pub(super) struct Rows<K: Wire, V: Wire> {
    pub name: &'static str,
    pub max_entries: u32,
    map: MapData,
    of: PhantomData<(K, V)>,
}

impl<K: Wire, V: Wire> Rows<K, V> {
    /// Opens the pin of `spec` in `directory`. Its shape has to be that of the spec and of the types.
    pub fn open(directory: &Path, spec: &Spec) -> Result<Self, KernelError> {
        let pinned = spec.pinned::<K, V>(directory)?;
        Ok(Self { name: spec.name, max_entries: pinned.max_entries, map: pinned.map, of: PhantomData })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// Writes all pairs, in batches where the kernel has them.
    pub fn put(&self, rows: &[(K, V)]) -> io::Result<()> {
        // A batch costs more to prepare than it saves on a handful of elements.
        if rows.len() < 4 {
            return rows.iter().try_for_each(|(key, value)| self.put_one(key, value));
        }
        let (keys, values): (Vec<K>, Vec<V>) = rows.iter().copied().unzip();
        // SAFETY: `open` has checked the sizes.
        match unsafe { map::update_batch(self.fd(), &keys, &values) } {
            Err((0, cause)) if no_batches(&cause) => rows.iter().try_for_each(|(key, value)| self.put_one(key, value)),
            result => result.map_err(|(_, cause)| cause),
        }
    }

    fn put_one(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: `open` has checked the sizes.
        unsafe { map::update(self.fd(), key, value) }
    }

    /// Deletes all keys; one that is not there is not an error.
    pub fn delete(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while rest.len() >= 4 {
            // SAFETY: `open` has checked the sizes.
            match unsafe { map::delete_batch(self.fd(), rest) } {
                Ok(()) => return Ok(()),
                Err((done, cause)) if cause.kind() == io::ErrorKind::NotFound => {
                    rest = rest.get(done + 1..).unwrap_or_default()
                }
                Err((0, cause)) if no_batches(&cause) => break,
                Err((_, cause)) => return Err(cause),
            }
        }
        // SAFETY: `open` has checked the sizes.
        rest.iter().try_for_each(|key| match unsafe { map::delete(self.fd(), key) } {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        })
    }

    /// The element of a key; `None`: there is none.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [V::new_zeroed()];
        // SAFETY: `open` has checked the sizes and that the map has one value for each key.
        let found = unsafe { map::lookup(self.fd(), key, &mut value) };
        let [value] = value;
        optional(found.map(|()| value))
    }

    /// Removes an element and returns what it was; `None`: there was none.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        // SAFETY: as in `get`.
        optional(unsafe { map::take(self.fd(), key) })
    }

    /// Writes an element unless its key is there.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: as in `get`.
        match unsafe { map::insert(self.fd(), key, value) } {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
            _ => Ok(()),
        }
    }

    /// Everything in the map. Elements that come or go meanwhile may be missed.
    pub fn read(&self) -> io::Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        self.each(|key, value| rows.push((key, value)))?;
        Ok(rows)
    }

    /// The same one by one.
    pub fn each(&self, mut take: impl FnMut(K, V)) -> io::Result<()> {
        let mut length = (self.max_entries as usize).clamp(1, 4096);
        let (mut keys, mut values) = (vec![K::new_zeroed(); length], vec![V::new_zeroed(); length]);
        let mut cursor = Cursor::default();
        loop {
            // SAFETY: as in `get`.
            match unsafe { map::lookup_batch(self.fd(), &mut cursor, &mut keys, &mut values) } {
                Ok((read, over)) => {
                    keys.iter().zip(&values).take(read).for_each(|(key, value)| take(*key, *value));
                    if over {
                        return Ok(());
                    }
                }
                Err(cause) if cause.raw_os_error() == Some(libc::ENOSPC) => {
                    length *= 2;
                    keys.resize(length, K::new_zeroed());
                    values.resize(length, V::new_zeroed());
                }
                Err(cause) => return Err(cause),
            }
        }
    }
}

fn optional<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn no_batches(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EINVAL | ENOTSUPP))
}
