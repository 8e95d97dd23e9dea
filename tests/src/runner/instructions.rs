//! What the instructions of the object say by themselves, before a kernel has seen them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use aya_obj::{Function, Object, generated::bpf_insn};
use proxy_userspace::object;

/// The kernel allows eight frames in a chain of calls (MAX_CALL_FRAMES of linux/bpf_verifier.h).
const FRAMES: usize = 8;
/// Every frame is a multiple of this, in bytes: the coarser of the two roundings that kernels use
/// (`check_max_stack_depth` of kernel/bpf/verifier.c).
const ROUNDING: u32 = 32;
const FRAME_POINTER: u8 = 10;

/// The last register that programs may name is the frame pointer. Some versions of LLVM pass arguments in one more, which
/// kernels refuse, and only in the programs that they are given (kernel/bpf/verifier.c, "R%d is invalid").
///
/// # Errors
/// Names the functions that name such a register; or the object cannot be read.
pub fn only_known_registers() -> anyhow::Result<()> {
    let object = Object::parse(object::DATAPATH)?;
    let is_known = |insn: &bpf_insn| insn.dst_reg() <= FRAME_POINTER && insn.src_reg() <= FRAME_POINTER;
    let strange = object.functions.values().filter(|function| !function.instructions.iter().all(is_known));
    let names: Vec<&str> = strange.map(|function| function.name.as_str()).collect();
    ensure!(names.is_empty(), "registers beyond r10 in {}", names.join(", "));
    Ok(())
}

/// Bytes of stack that the deepest chain of calls of each program takes, of the 512 that kernels allow.
///
/// # Errors
/// The object cannot be read, or calls itself.
pub fn stack_depths() -> anyhow::Result<BTreeMap<String, u32>> {
    let mut object = Object::parse(object::DATAPATH)?;
    let sections = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_calls(&sections)?;
    let mut depths = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).with_context(|| format!("{name} has no code"))?;
        depths.insert(name.clone(), Linked::new(function).depth(0, FRAMES).context(name.clone())?);
    }
    Ok(depths)
}

/// A program with all the functions that it calls behind it.
struct Linked<'a> {
    instructions: &'a [bpf_insn],
    /// Where functions begin.
    starts: BTreeSet<usize>,
}

impl<'a> Linked<'a> {
    fn new(function: &'a Function) -> Self {
        let instructions = &function.instructions[..];
        let starts = instructions.iter().enumerate().filter_map(|(at, insn)| callee(at, insn)).chain([0]).collect();
        Self { instructions, starts }
    }

    fn depth(&self, start: usize, frames: usize) -> anyhow::Result<u32> {
        ensure!(frames > 0, "more than {FRAMES} functions call each other");
        let end = self.starts.range(start + 1..).next().copied().unwrap_or(self.instructions.len());
        let body = &self.instructions[start..end];
        let callees: BTreeSet<usize> =
            body.iter().enumerate().filter_map(|(at, insn)| callee(start + at, insn)).collect();
        let mut deepest = 0;
        for callee in callees {
            deepest = deepest.max(self.depth(callee, frames - 1)?);
        }
        Ok(deepest + frame(body).max(1).next_multiple_of(ROUNDING))
    }
}

/// The function that an instruction calls, or hands to a helper that does, such as `bpf_loop`.
fn callee(at: usize, insn: &bpf_insn) -> Option<usize> {
    /// Instructions and pseudo registers of linux/bpf.h.
    const CALL: u8 = 0x85;
    const LOAD_ADDRESS: u8 = 0x18;
    const PSEUDO_CALL: u8 = 1;
    const PSEUDO_FUNCTION: u8 = 4;
    match (insn.code, insn.src_reg()) {
        (CALL, PSEUDO_CALL) | (LOAD_ADDRESS, PSEUDO_FUNCTION) => {
            usize::try_from(i64::try_from(at).ok()? + i64::from(insn.imm) + 1).ok()
        }
        _ => None,
    }
}

/// Bytes below the frame pointer that a function reaches, by itself or by a pointer that it hands on.
fn frame(body: &[bpf_insn]) -> u32 {
    /// Classes of instructions of linux/bpf_common.h, and two whole ones.
    const CLASS: u8 = 7;
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    const MOVE: u8 = 0xbf;
    const ADD_NUMBER: u8 = 0x07;
    let mut lowest = 0;
    let mut copies = BTreeSet::new();
    for insn in body {
        let (dst, src) = (insn.dst_reg(), insn.src_reg());
        let offset = match (insn.code, insn.code & CLASS) {
            (_, ST | STX) if dst == FRAME_POINTER => i32::from(insn.off),
            (_, LDX) if src == FRAME_POINTER => i32::from(insn.off),
            (ADD_NUMBER, _) if copies.contains(&dst) => insn.imm,
            _ => 0,
        };
        lowest = lowest.min(offset);
        if insn.code == MOVE && src == FRAME_POINTER {
            copies.insert(dst);
        } else if matches!(insn.code, MOVE | ADD_NUMBER) {
            copies.remove(&dst);
        }
    }
    lowest.unsigned_abs()
}
