//! What pruning costs on this machine.
//!
//! ```sh
//! cargo run --release --example throughput                    # tables for people
//! cargo run --release --example throughput -- 2:4             # the rows whose name has `2:4` in it
//! cargo run --release --example throughput -- --json          # one JSON document
//! cargo run --release --example throughput -- --weights FILE  # a layer's weights from a safetensors file
//! ```
//!
//! Times are given in units of what the machine's memory or arithmetic allows, measured right
//! before them, so that a busy machine changes them little. Printed are medians.

mod first_order;
mod measure;
mod models;
mod second_order;
mod weights;

use std::error::Error;

use measure::Table;
use weights::Source;

/// What was asked for on the command line.
struct Arguments {
    json: bool,
    weights: Source,
    /// Only rows with this in their names are measured.
    filter: String,
}

const USAGE: &str = "\
cargo run --release --example throughput [-- [WORD] [--json] [--weights FILE]]

  WORD            measure only the rows with this in their names, such as `2:4`
  --json          print one JSON document
  --weights FILE  take weights from the matrix `weight` of a safetensors file";

impl Arguments {
    /// The arguments; nothing if help was asked for.
    fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let mut found = Self {
            json: false,
            weights: Source::Normal,
            filter: String::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--json" => found.json = true,
                "--weights" => {
                    let file = arguments.next().ok_or("`--weights` needs a file")?;
                    found.weights = Source::from_file(&file)?;
                }
                option if option.starts_with('-') => {
                    return Err(format!("there is no option `{option}`; see `--help`").into());
                }
                _ => found.filter = argument,
            }
        }
        Ok(Some(found))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = Arguments::parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let mut table = Table::new(&arguments.filter, !arguments.json);
    first_order::measure(&mut table, &arguments.weights)?;
    second_order::measure(&mut table)?;
    let models = models::estimate(&table);
    if arguments.json {
        let document = serde_json::json!({
            "threads": measure::threads(),
            "rows": table.rows(),
            "models": models.iter().map(models::Estimate::to_json).collect::<Vec<_>>(),
        });
        println!("{document:#}");
    } else {
        models::print(&models);
    }
    Ok(())
}
