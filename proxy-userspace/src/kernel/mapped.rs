use std::alloc::{Layout, handle_alloc_error};
use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use proxy_common::wire::Wire;

/// An array map in our memory (`BPF_F_MMAPABLE`): writing an element is a few stores, without a system call.
///
/// Programs read the elements while we write them, so every access is an atomic one of 4 bytes; who needs more than one
/// word to change at once must not let a reader find the element in between. Whoever sees a word that was written here
/// sees all that was written before it, in whatever map.
///
/// It is mapped window by window as elements are used: what is mapped counts as memory of this process, touched or not,
/// and most nodes have few services.
pub(super) struct Mapped<T: Wire> {
    map: OwnedFd,
    windows: Vec<OnceCell<Window>>,
    elements: u32,
    of: PhantomData<fn() -> T>,
}

/// Bytes of a window: a multiple of the pages that any machine has.
const WINDOW: usize = 64 << 10;

impl<T: Wire> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(4));
        size_of::<T>() / 4
    };
    /// The kernel rounds the size of an array's values up to 8 bytes (`array_map_alloc`, kernel/bpf/arraymap.c).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8) / 4;

    /// `map` is an array made with `BPF_F_MMAPABLE`, with values of the size of `T`; the kernel refuses to map one that
    /// is smaller than `elements`.
    pub fn new(map: BorrowedFd<'_>, elements: u32) -> io::Result<Self> {
        let mut windows = Vec::new();
        windows.resize_with(Self::bytes(elements).div_ceil(WINDOW), OnceCell::new);
        let mapped = Self { map: map.try_clone_to_owned()?, windows, elements, of: PhantomData };
        // Now rather than when the last element is used.
        mapped.whole().map(drop)?;
        Ok(mapped)
    }

    const fn bytes(elements: u32) -> usize {
        elements as usize * Self::STRIDE * 4
    }

    fn whole(&self) -> io::Result<Window> {
        Window::new(self.map.as_fd(), 0, Self::bytes(self.elements))
    }

    pub fn len(&self) -> u32 {
        self.elements
    }

    /// A word of an element; `None` beyond the end of the map or of the element.
    fn word(&self, index: u32, word: usize) -> Option<&AtomicU32> {
        if index >= self.elements || word >= Self::WORDS {
            return None;
        }
        let at = Self::bytes(index) + word * 4;
        self.windows.get(at / WINDOW)?.get_or_init(|| self.window(at / WINDOW)).word(at % WINDOW)
    }

    /// Mapping a part of what could be mapped as a whole fails for want of memory only, which is met as everywhere else.
    fn window(&self, number: usize) -> Window {
        let (start, all) = (number * WINDOW, Self::bytes(self.elements));
        let bytes = (all - start).min(WINDOW);
        Window::new(self.map.as_fd(), start, bytes)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<[AtomicU32; WINDOW / 4]>()))
    }

    /// Writes one word of an element; nothing happens beyond the end.
    pub fn set_word(&self, index: u32, word: usize, value: u32) {
        if let Some(place) = self.word(index, word) {
            place.store(value, Ordering::Release);
        }
    }

    /// Writes an element word by word; nothing happens beyond the end.
    pub fn set(&self, index: u32, value: &T) {
        for (word, bytes) in value.as_bytes().chunks_exact(4).enumerate() {
            if let Ok(bytes) = bytes.try_into() {
                self.set_word(index, word, u32::from_ne_bytes(bytes));
            }
        }
    }

    pub fn get(&self, index: u32) -> Option<T> {
        let mut value = T::new_zeroed();
        for (word, bytes) in value.as_mut_bytes().chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&self.word(index, word)?.load(Ordering::Relaxed).to_ne_bytes());
        }
        Some(value)
    }

    /// All elements, without mapping any for longer.
    ///
    /// # Errors
    /// There is no memory for that.
    pub fn read(&self) -> io::Result<Vec<T>> {
        let whole = self.whole()?;
        let element = |index| {
            let mut value = T::new_zeroed();
            for (word, bytes) in value.as_mut_bytes().chunks_exact_mut(4).enumerate() {
                let place = whole.word(Self::bytes(index) + word * 4)?;
                bytes.copy_from_slice(&place.load(Ordering::Relaxed).to_ne_bytes());
            }
            Some(value)
        };
        Ok((0..self.elements).filter_map(element).collect())
    }
}

/// A part of a map in our memory.
struct Window {
    words: NonNull<AtomicU32>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed through atomics only.
unsafe impl Send for Window {}

impl Window {
    /// `start` is a multiple of [`WINDOW`].
    fn new(map: BorrowedFd<'_>, start: usize, bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                start as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { words, bytes })
    }

    /// The word at an offset, which is a multiple of 4.
    fn word(&self, at: usize) -> Option<&AtomicU32> {
        // SAFETY: the offset is inside of the mapping, which lives as long as `self`; AtomicU32 has the size and
        // alignment of the mapped words, and any bytes are valid for it.
        (at < self.bytes).then(|| unsafe { self.words.byte_add(at).as_ref() })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.bytes) };
    }
}

/// Orders all stores to mapped elements before whatever is published next by a system call.
pub(super) fn publish() {
    fence(Ordering::Release);
}
