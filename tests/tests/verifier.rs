//! Every program passes the verifier, and what it costs there stays within a budget.

use std::io::{Write as _, stdout};

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use proxy_common::programs;
use proxy_tests::runner::object::{self, Sizes};

/// Instructions that the verifier may walk through for one program, of 1,000,000 that it allows (kernel
/// BPF_COMPLEXITY_LIMIT_INSNS). That of Linux 6.1 walks through more than later ones.
const VERIFIED: u32 = 50_000;
/// Bytes of BPF instructions of one program with all of its parts.
const TRANSLATED: u32 = 128 << 10;
/// Bytes of machine instructions of one program with all of its parts. An established packet sees a tenth of them: the
/// instruction cache of a core holds 32 KiB.
const JITED: u32 = 72 << 10;

#[test]
fn every_program_passes_within_its_budget() -> anyhow::Result<()> {
    let mut ebpf = object::open(Sizes::default(), 0)?;
    // Not by println!, which the test runner holds back where nothing fails: the table is there to be read.
    writeln!(stdout(), "\n{:<16} {:>9} {:>11} {:>7}", "program", "verified", "translated", "jited")?;
    let mut over = Vec::new();
    let mut check = |name: &str, info: ProgramInfo| -> anyhow::Result<()> {
        let verified = info.verified_instruction_count().context("the kernel does not say")?;
        let translated = info.size_translated().context("the kernel does not say")?;
        let jited = info.size_jitted();
        writeln!(stdout(), "{name:<16} {verified:>9} {translated:>11} {jited:>7}")?;
        if verified > VERIFIED || translated > TRANSLATED || jited > JITED {
            over.push(name.to_owned());
        }
        Ok(())
    };
    for program in programs::TC {
        check(program.name, object::classifier(&mut ebpf, program.name)?.info()?)?;
    }
    check(programs::XDP, object::xdp(&mut ebpf)?.info()?)?;
    assert!(over.is_empty(), "over budget ({VERIFIED}, {TRANSLATED}, {JITED}): {over:?}");
    Ok(())
}

#[test]
fn every_program_passes_with_its_log_on() -> anyhow::Result<()> {
    let mut ebpf = object::open(Sizes::default(), 5)?;
    for program in programs::TC {
        object::classifier(&mut ebpf, program.name)?;
    }
    object::xdp(&mut ebpf)?;
    Ok(())
}
