//! Elements of a map of socket storage, as an iterator hands them to a program (Linux 5.10).

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated};

/// An element, and whoever reads the iterator.
pub struct StorageElement {
    element: *const Raw,
}

/// `struct bpf_iter__bpf_sk_storage_map` (net/core/bpf_sk_storage.c).
#[repr(C)]
struct Raw {
    meta: *const Meta,
    map: *const c_void,
    socket: *mut c_void,
    value: *const c_void,
}

/// The head of `struct bpf_iter_meta` (linux/bpf.h).
#[repr(C)]
struct Meta {
    file: *mut seq_file,
}

impl StorageElement {
    /// `context` is the program's own.
    pub const fn new(context: *const c_void) -> Self {
        Self { element: context.cast() }
    }

    /// Writes the cookie of the socket and the value that it has in the map, of type `T`, for the reader.
    #[inline(always)]
    pub fn tell<T>(&self) {
        let element = self.element;
        // SAFETY: the program's own context. After the last element there is no socket.
        let (meta, socket, value) = unsafe { ((*element).meta, (*element).socket, (*element).value) };
        if socket.is_null() || value.is_null() {
            return;
        }
        // SAFETY: a socket that lives as long as the program runs.
        let cookie = unsafe { generated::bpf_get_socket_cookie(socket) };
        // SAFETY: the kernel reads as many bytes as the cookie and a value have; that the map's are as large is checked
        // when the program is attached.
        unsafe {
            generated::bpf_seq_write((*meta).file, (&raw const cookie).cast(), size_of::<u64>() as u32);
            generated::bpf_seq_write((*meta).file, value, size_of::<T>() as u32);
        }
    }
}
