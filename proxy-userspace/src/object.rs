//! The kernel objects that build.rs made, carried in the binary. Empty where the build was told to skip them
//! (`AYA_BUILD_SKIP`).

/// ELF headers are read in place, which wants them aligned.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static DATAPATH_FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sheave-ebpf")));
static CALIBRATOR_FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sheave-calibrator")));

/// The programs of `proxy_common::programs` and the maps of `proxy_common::wire::map`.
pub static DATAPATH: &[u8] = &DATAPATH_FILE.0;

/// The yardstick of the packet benchmark: the tc program `calibrator` and its map `FLOWS`. A static that nobody reads
/// is not linked into the agent.
pub static CALIBRATOR: &[u8] = &CALIBRATOR_FILE.0;
