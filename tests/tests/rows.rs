//! The table of packet rows, run by every host of the datapath.

use proxy_tests::{
    rows::{self, Hosts},
    runner::{Kernel, Plain, Runner},
};

fn check(runner: &mut dyn Runner, hosts: &[Hosts]) {
    let rows = rows::all();
    let mut failures = Vec::new();
    let mut run = 0;
    for row in rows.iter().filter(|row| hosts.contains(&row.hosts)) {
        run += 1;
        if let Err(cause) = row.check(runner) {
            failures.push(format!("{}: {cause:#}", row.name));
        }
    }
    println!("{}: {run} of {} rows", runner.name(), rows.len());
    assert!(failures.is_empty(), "{} of {run} rows failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn plain() {
    check(&mut Plain::default(), &[Hosts::All, Hosts::NotXdp, Hosts::NotTc]);
}

#[test]
fn tc() -> anyhow::Result<()> {
    check(&mut Kernel::open(false)?, &[Hosts::All, Hosts::NotXdp]);
    Ok(())
}

#[test]
fn xdp() -> anyhow::Result<()> {
    check(&mut Kernel::open(true)?, &[Hosts::All, Hosts::NotTc]);
    Ok(())
}
