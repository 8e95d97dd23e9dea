mod backends;
mod counters;
mod flows;
mod names;
mod services;

use std::io::{Write, stdout};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use self::counters::Which;
use super::target::PinDir;
use crate::kernel::read::Reader;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    target: PinDir,
    /// Table for people, JSON for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Frontends: the addresses that service ports answer on
    Services,
    /// Endpoints of service ports
    Backends,
    /// Entries of the flow tables
    Flows,
    /// Packets that were translated anew, left alone, rejected or dropped, by hook and reason
    Counters,
    /// Of these, the ones that were rejected or dropped
    Drops,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// A line of output.
trait Row: Serialize {
    const HEADER: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let reader = Reader::open(&args.target.path)?;
    match args.what {
        What::Services => show(&services::rows(&reader)?, args.output),
        What::Backends => show(&backends::rows(&reader)?, args.output),
        What::Flows => show(&flows::rows(&reader)?, args.output),
        What::Counters => show(&counters::rows(&reader, Which::All)?, args.output),
        What::Drops => show(&counters::rows(&reader, Which::Drops)?, args.output),
    }
}

fn show<R: Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(rows)?,
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(R::HEADER);
            for row in rows {
                table.add_row(row.cells());
            }
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            table.trim_fmt()
        }
    };
    writeln!(stdout(), "{text}")?;
    Ok(())
}
