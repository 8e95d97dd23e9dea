use std::path::PathBuf;

use crate::kernel::Options;

/// Whose maps and links are meant.
#[derive(Debug, clap::Args)]
pub(super) struct PinDir {
    /// Directory of the pinned maps and links of the agent
    #[arg(long = "pin-dir", value_name = "DIR", default_value = Options::PIN_DIR)]
    pub path: PathBuf,
}
