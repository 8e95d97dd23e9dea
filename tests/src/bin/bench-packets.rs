//! Prints what a packet costs in the kernel programs, as JSON.

fn main() -> anyhow::Result<()> {
    let report = proxy_tests::bench::packets(&proxy_tests::bench::Options::default())?;
    serde_json::to_writer_pretty(std::io::stdout().lock(), &report)?;
    println!();
    Ok(())
}
