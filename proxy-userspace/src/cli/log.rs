use std::io::{IsTerminal, stderr};

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging to standard error. `RUST_LOG` overrides what `verbosity` asks for.
pub(super) fn start(verbosity: u8, format: LogFormat) -> anyhow::Result<()> {
    // kube-runtime warns at every attempt of a watch that fails; the source tells of it once.
    let level = match verbosity {
        0 => "info,kube_runtime=error",
        1 => "info,proxy_userspace=debug,kube_runtime=error",
        _ => "debug,proxy_userspace=trace",
    };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives}"))?,
        Err(_) => EnvFilter::try_new(level).context("log level")?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|cause| anyhow!("starting the log: {cause}"))
}
