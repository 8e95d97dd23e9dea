//! Every program passes the verifier, and what it costs there stays within a budget.

use std::io::{Write as _, stdout};

use std::collections::BTreeMap;

use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::ProgramInfo;
use aya::util::KernelVersion;
use proxy_common::programs::{self, Call};
use proxy_tests::runner::{
    instructions,
    object::{self, Sizes},
};

/// Instructions that the verifier may walk through for one program, of 1,000,000 that it allows (kernel
/// BPF_COMPLEXITY_LIMIT_INSNS). That of Linux 6.1 walks through more than later ones.
const VERIFIED: u32 = 30_000;
const VERIFIED_BEFORE_6_12: u32 = 50_000;
/// Bytes of BPF instructions of one program with all of its parts.
const TRANSLATED: u32 = 128 << 10;
/// Bytes of machine instructions of one program with all of its parts. An established packet sees a tenth of them: the
/// instruction cache of a core holds 32 KiB.
const JITED: u32 = 72 << 10;
/// Bytes of stack of the deepest chain of calls, of 512 that kernels allow (MAX_BPF_STACK).
const STACK: u32 = 448;

#[test]
fn every_program_passes_within_its_budget() -> anyhow::Result<()> {
    let verified =
        if KernelVersion::current()? < KernelVersion::new(6, 12, 0) { VERIFIED_BEFORE_6_12 } else { VERIFIED };
    let stacks = instructions::stack_depths()?;
    // Not by println!, which the test runner holds back where nothing fails: the table is there to be read.
    writeln!(stdout(), "\n{:<16} {:>9} {:>11} {:>7} {:>6}", "program", "verified", "translated", "jited", "stack")?;
    let mut over = Vec::new();
    for (name, cost) in costs(&mut object::open(Sizes::default(), 0)?)? {
        let stack = *stacks.get(name).with_context(|| format!("no program {name} in the object"))?;
        writeln!(stdout(), "{name:<16} {:>9} {:>11} {:>7} {stack:>6}", cost.verified, cost.translated, cost.jited)?;
        if cost.verified > verified || cost.translated > TRANSLATED || cost.jited > JITED || stack > STACK {
            over.push(name);
        }
    }
    assert!(over.is_empty(), "over budget ({verified}, {TRANSLATED}, {JITED}, {STACK}): {over:?}");
    Ok(())
}

/// What is off when the programs are loaded is no part of them, as the verifier removes what cannot be reached.
#[test]
fn the_log_costs_only_where_it_is_on() -> anyhow::Result<()> {
    let off = costs(&mut object::open(Sizes::default(), 0)?)?;
    let on = costs(&mut object::open(Sizes::default(), 5)?)?;
    writeln!(stdout(), "\n{:<16} {:>9} {:>11} {:>7}", "log on, +", "verified", "translated", "jited")?;
    for (name, off) in &off {
        let on = on.get(name).context("the same programs")?;
        let more = |cost: fn(&Cost) -> u32| i64::from(cost(on)) - i64::from(cost(off));
        let (verified, translated, jited) = (more(|it| it.verified), more(|it| it.translated), more(|it| it.jited));
        writeln!(stdout(), "{name:<16} {verified:>9} {translated:>11} {jited:>7}")?;
        // Those that only give answers count nothing, and so have nothing to log.
        if [Call::RecvMsg4, Call::RecvMsg6, Call::GetPeerName4, Call::GetPeerName6]
            .iter()
            .any(|it| it.program() == *name)
        {
            continue;
        }
        // Formatting an event takes thousands of bytes.
        assert!(translated > 1_000, "{name}: the log is there although it is off");
    }
    Ok(())
}

#[test]
fn no_instruction_names_a_register_that_kernels_do_not_know() -> anyhow::Result<()> {
    instructions::only_known_registers()
}

struct Cost {
    /// Instructions.
    verified: u32,
    /// Bytes.
    translated: u32,
    /// Bytes.
    jited: u32,
}

/// Loads every program.
fn costs(ebpf: &mut Ebpf) -> anyhow::Result<BTreeMap<&'static str, Cost>> {
    let cost = |info: ProgramInfo| {
        Some(Cost {
            verified: info.verified_instruction_count()?,
            translated: info.size_translated()?,
            jited: info.size_jitted(),
        })
    };
    let mut costs = BTreeMap::new();
    for program in programs::TC {
        let info = object::classifier(ebpf, program.name)?.info()?;
        costs.insert(program.name, cost(info).context("the kernel does not say")?);
    }
    for call in Call::ALL {
        let info = object::socket(ebpf, call)?.info()?;
        costs.insert(call.program(), cost(info).context("the kernel does not say")?);
    }
    costs.insert(programs::XDP, cost(object::xdp(ebpf)?.info()?).context("the kernel does not say")?);
    Ok(costs)
}
