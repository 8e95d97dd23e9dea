use anyhow::bail;

use super::target::PinDir;
use crate::kernel::{Removed, cleanup};

pub(super) async fn run(target: &PinDir) -> anyhow::Result<()> {
    let Removed { links, sockets, filters, qdiscs, maps, left } = cleanup(&target.path).await?;
    println!(
        "removed {links} links of devices and {sockets} of sockets, {filters} filters, {qdiscs} qdiscs and {maps} maps of {}",
        target.path.display()
    );
    if !left.is_empty() {
        bail!("still there: {}", left.join("; "));
    }
    Ok(())
}
