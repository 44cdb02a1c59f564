//! Times, and the tables they are printed in.

use std::time::Instant;

use serde_json::{Value, json};

/// A measured row of a table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    /// Seconds over those of the unit that was measured right before.
    pub(crate) units: f64,
    /// What a unit that is measured by itself comes to, in thousands of millions a second.
    rate: Option<f64>,
}

/// All rows that were measured.
pub(crate) struct Table {
    filter: String,
    /// Whether rows are printed as they come.
    printing: bool,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(filter: &str, printing: bool) -> Self {
        Self {
            filter: filter.to_owned(),
            printing,
            rows: Vec::new(),
        }
    }

    /// Begins a part of the table. Its rows are given in units of `unit`.
    pub(crate) fn heading(&self, title: &str, unit: &str) {
        if self.printing {
            println!("\n{title}, {} threads", threads());
            println!("{:<56} {:>10}  {unit}", "", "ms");
        }
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Measures a row: medians of `runs` runs, each of which returns the seconds of the unit and of
    /// the work.
    pub(crate) fn row<E>(
        &mut self,
        name: &str,
        runs: usize,
        mut run: impl FnMut() -> Result<(f64, f64), E>,
    ) -> Result<(), E> {
        if !self.wants(name) {
            return Ok(());
        }
        let mut seconds = Vec::new();
        let mut units = Vec::new();
        for _ in 0..runs {
            let (unit, work) = run()?;
            seconds.push(work);
            units.push(work / unit);
        }
        let row = Row {
            name: name.to_owned(),
            seconds: median(seconds),
            units: median(units),
            rate: None,
        };
        if self.printing {
            println!("{name:<56} {:>10.2}  {:.2}", row.seconds * 1e3, row.units);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Measures a unit by itself: the median of `runs` runs, each of which returns its seconds, and
    /// how much of `amount` that is a second, `what` for a thousand million.
    pub(crate) fn unit(
        &mut self,
        name: &str,
        runs: usize,
        (amount, what): (f64, &str),
        mut run: impl FnMut() -> f64,
    ) {
        if !self.wants(name) {
            return;
        }
        let seconds = median((0..runs).map(|_| run()).collect());
        let rate = amount / seconds / 1e9;
        if self.printing {
            println!("{name:<56} {:>10.2}  1, {rate:.0} {what}", seconds * 1e3);
        }
        self.rows.push(Row {
            name: name.to_owned(),
            seconds,
            units: 1.0,
            rate: Some(rate),
        });
    }

    /// The seconds of a row, if it was measured.
    pub(crate) fn seconds(&self, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == name);
        row.map(|row| row.seconds)
    }

    /// All rows, to be written.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let rows = self.rows.iter();
        rows.map(|row| {
            let mut value = json!({"name": row.name, "seconds": row.seconds, "units": row.units});
            if let Some(rate) = row.rate {
                value["billions_per_second"] = json!(rate);
            }
            value
        })
        .collect()
    }
}

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the work returns, and how many seconds it took.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
