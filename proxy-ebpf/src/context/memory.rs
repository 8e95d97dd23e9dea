//! Packet memory by direct access, which costs a bounds check where a helper costs 20 ns and more.
//!
//! Loads and stores are written as BPF instructions: a header lies at any even address, the BPF back end would take
//! a load without alignment apart into bytes, and kernel memory may not be the target of a reference anyway.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads the bounds of the packet from a context, whose fields for them lie at `DATA` and `END`. The kernel makes
/// pointers of these 32-bit fields; in Rust they would be numbers to extend, which the verifier does not allow.
///
/// # Safety
/// `context` is the argument of the running program, and the offsets are those of its type.
#[inline(always)]
pub unsafe fn bounds<const DATA: usize, const END: usize>(context: *const c_void) -> (usize, usize) {
    let (data, end): (usize, usize);
    // SAFETY: up to the caller.
    unsafe {
        asm!(
            "{data} = *(u32 *)({context} + {at})",
            data = lateout(reg) data, context = in(reg) context, at = const DATA,
            options(pure, readonly, nostack, preserves_flags),
        );
        asm!(
            "{end} = *(u32 *)({context} + {at})",
            end = lateout(reg) end, context = in(reg) context, at = const END,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    (data, end)
}

/// The verifier follows offsets into a packet up to 64 KiB. No header lies further than this, a power of two less one:
/// the longest chain that is followed is one of extension headers in an ICMP redirect, 19 KiB.
const MAX_OFFSET: usize = 0x7fff;

/// The address of `size` bytes at `offset` of a packet in `data..end`, `None` where it ends before.
#[inline(always)]
pub fn at(data: usize, end: usize, offset: usize, size: usize) -> Option<Bytes> {
    let start: usize;
    // SAFETY: two additions in registers. Written out, since the optimizer drops a bound that it can prove and the
    // verifier cannot, and computes a pointer anew that is then not the one that was checked.
    unsafe {
        asm!(
            "{start} &= {max}",
            "{start} += {data}",
            start = inout(reg) offset => start, data = in(reg) data, max = const MAX_OFFSET,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    (start + size <= end).then_some(Bytes { start, size })
}

/// The same offset, of which the verifier no longer knows more than its bound. `any` is a number that it does not
/// know; of what is left when it is taken from itself it knows no more.
#[inline(always)]
pub fn conceal(offset: usize, any: u32) -> usize {
    let concealed: usize;
    // SAFETY: arithmetic in registers.
    unsafe {
        asm!(
            "{zero} = {any}",
            "{zero} -= {any}",
            "{offset} += {zero}",
            "{offset} &= {max}",
            zero = out(reg) _, any = in(reg) u64::from(any), offset = inout(reg) offset => concealed,
            max = const MAX_OFFSET,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    concealed
}

/// Packet bytes that were checked to be there. Helpers that move packet memory end their validity; the verifier
/// refuses a program that uses them afterwards.
#[derive(Clone, Copy)]
pub struct Bytes {
    start: usize,
    size: usize,
}

macro_rules! access {
    ($load:ident, $store:ident, $int:ty, $bpf:literal) => {
        #[inline(always)]
        fn $load(at: usize) -> $int {
            let value: u64;
            // SAFETY: the verifier proves every access of packet memory to be within the packet.
            unsafe {
                asm!(
                    concat!("{value} = *(", $bpf, " *)({at} + 0)"),
                    value = lateout(reg) value, at = in(reg) at,
                    options(readonly, nostack, preserves_flags),
                );
            }
            value as $int
        }

        #[inline(always)]
        fn $store(at: usize, value: $int) {
            // SAFETY: as above.
            unsafe {
                asm!(
                    concat!("*(", $bpf, " *)({at} + 0) = {value}"),
                    value = in(reg) u64::from(value), at = in(reg) at,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

access!(load1, store1, u8, "u8");
access!(load2, store2, u16, "u16");
access!(load4, store4, u32, "u32");
access!(load8, store8, u64, "u64");

/// Runs `$double` for each double word below `$size` if it consists of such, or else `$word` for each whole word, then `$half`
/// and `$byte` for what is left. Every step is decided at compile time.
macro_rules! for_each_part {
    ($size:expr, $double:expr, $word:expr, $half:expr, $byte:expr) => {
        if $size & 7 == 0 {
            for_each_part!(@whole $size, 8, $double, 0 8 16 24 32);
        } else {
            for_each_part!(@whole $size, 4, $word, 0 4 8 12 16 20 24 28 32 36);
        }
        if $size & 2 != 0 {
            $half($size & !3);
        }
        if $size & 1 != 0 {
            $byte($size & !1);
        }
    };
    (@whole $size:expr, $step:literal, $part:expr, $($offset:literal)+) => {
        $(if $size >= $offset + $step {
            $part($offset);
        })+
    };
}

/// The largest value that is accessed: an IPv6 header.
const MAX_SIZE: usize = 40;

impl Bytes {
    #[inline(always)]
    pub fn load<T: FromBytes>(self) -> Option<T> {
        const { assert!(size_of::<T>() <= MAX_SIZE) };
        if self.size != size_of::<T>() {
            return None;
        }
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast::<u8>();
        // SAFETY: every write lies within `value`, and together they fill it; any bytes are a valid T.
        unsafe {
            for_each_part!(
                size_of::<T>(),
                |offset: usize| to.add(offset).cast::<u64>().write_unaligned(load8(self.start + offset)),
                |offset: usize| to.add(offset).cast::<u32>().write_unaligned(load4(self.start + offset)),
                |offset: usize| to.add(offset).cast::<u16>().write_unaligned(load2(self.start + offset)),
                |offset: usize| to.add(offset).write(load1(self.start + offset))
            );
            Some(value.assume_init())
        }
    }

    #[inline(always)]
    pub fn store<T: IntoBytes + Immutable>(self, value: &T) -> Option<()> {
        const { assert!(size_of::<T>() <= MAX_SIZE) };
        if self.size != size_of::<T>() {
            return None;
        }
        let from = core::ptr::from_ref(value).cast::<u8>();
        // SAFETY: every read lies within `value`, which has no padding.
        unsafe {
            for_each_part!(
                size_of::<T>(),
                |offset: usize| store8(self.start + offset, from.add(offset).cast::<u64>().read_unaligned()),
                |offset: usize| store4(self.start + offset, from.add(offset).cast::<u32>().read_unaligned()),
                |offset: usize| store2(self.start + offset, from.add(offset).cast::<u16>().read_unaligned()),
                |offset: usize| store1(self.start + offset, from.add(offset).read())
            );
        }
        Some(())
    }
}
