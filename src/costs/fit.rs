//! The fit of a cost table to a data set.

use super::{least_squares, work};
use crate::{Error, Result};
use mcc_ir::costs::{CostTable, Work};
use mcc_ir::{Graph, Target};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// What one run of a layer by an implementation took.
#[derive(Clone, Debug)]
pub struct Row {
    pub layer: String,
    pub implementation: String,
    /// Cycles or instructions.
    pub measured: f64,
    /// Bytes of code of a model of this one layer.
    pub code: usize,
    pub work: Work,
}

impl Row {
    /// Whether the fit does not see the row.
    pub fn held(&self) -> bool {
        self.layer.starts_with("held")
    }

    /// The relative error of a prediction.
    pub fn error(&self, table: &CostTable) -> f64 {
        table.cycles(&self.implementation, &self.work) / self.measured - 1.0
    }
}

/// Reads a data set: lines of layer, implementation, cycles and bytes of code, after a line of titles.
///
/// # Errors
/// [`Error::Data`] where a line is none, where its layer is not among `layers`, or is not taken by the implementation.
pub fn rows(path: &Path, text: &str, layers: &[Graph], target: &Target) -> Result<Vec<Row>> {
    let by_name: HashMap<&str, &Graph> = layers.iter().map(|g| (g.name.as_str(), g)).collect();
    let row = |(i, line): (usize, &str)| {
        let fail = |reason: String| Error::Data { path: path.into(), reason: format!("line {}: {reason}", i + 1) };
        let cells: Vec<&str> = line.split(',').collect();
        let [layer, implementation, measured, code] = cells[..] else {
            return Err(fail("four cells are needed".into()));
        };
        let number = |cell: &str| cell.parse::<u64>().ok().filter(|n| *n > 0);
        let (Some(measured), Some(code)) = (number(measured), number(code)) else {
            return Err(fail("the last two cells are positive integers".into()));
        };
        let graph = by_name.get(layer).ok_or_else(|| fail(format!("there is no layer {layer}")))?;
        let work = work(graph, target, implementation)
            .ok_or_else(|| fail(format!("{implementation} does not take {layer} on {}", target.name)))?;
        let (layer, implementation) = (layer.to_string(), implementation.to_string());
        Ok(Row { layer, implementation, measured: measured as f64, code: code as usize, work })
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

/// The table that fits the rows best which are not held back.
pub fn fit(rows: &[Row]) -> CostTable {
    let mut table = CostTable::default();
    for implementation in implementations(rows) {
        let own: Vec<&Row> = rows.iter().filter(|r| r.implementation == implementation && !r.held()).collect();
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in own.iter().flat_map(|r| r.work.counts()) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let count = |row: &Row, name: &str| row.work.counts().iter().find(|(n, _)| *n == name).map_or(0.0, |(_, n)| *n);
        let lines: Vec<Vec<f64>> =
            own.iter().map(|r| names.iter().map(|name| count(r, name) / r.measured).collect()).collect();
        let found = least_squares::solve(&lines, &vec![1.0; lines.len()]);
        for (name, value) in names.into_iter().zip(found) {
            // Four digits are more than the fit knows.
            table.set(implementation, name, format!("{value:.3e}").parse().expect("a printed number"));
        }
    }
    table
}

/// The implementations of some rows, in order.
fn implementations(rows: &[Row]) -> Vec<&str> {
    let mut all: Vec<&str> = rows.iter().map(|r| r.implementation.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// How well a table predicts some rows: relative errors, in percent.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    pub implementation: String,
    pub rows: usize,
    pub median: f64,
    /// 95 rows of 100 are no worse.
    pub most: f64,
    pub worst: f64,
    /// Rows that are predicted within 15 %.
    pub within_15: usize,
    pub worst_layer: String,
}

impl Quality {
    /// Of the rows that `of` takes; `None` where there are none.
    pub fn new(implementation: &str, rows: &[Row], table: &CostTable, of: impl Fn(&Row) -> bool) -> Option<Quality> {
        let mut errors: Vec<(f64, &str)> =
            rows.iter().filter(|r| of(r)).map(|r| (100.0 * r.error(table).abs(), r.layer.as_str())).collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (worst, layer) = errors.last()?;
        let n = errors.len();
        let round = |x: f64| (10.0 * x).round() / 10.0;
        Some(Quality {
            implementation: implementation.into(),
            rows: n,
            median: round(errors[n / 2].0),
            most: round(errors[(95 * n).div_ceil(100) - 1].0),
            worst: round(*worst),
            within_15: errors.iter().filter(|(e, _)| *e <= 15.0).count(),
            worst_layer: layer.to_string(),
        })
    }

    /// By implementation, then of all rows, and of those that the fit did not see.
    pub fn all(rows: &[Row], table: &CostTable) -> Vec<Quality> {
        let by = implementations(rows).into_iter().map(|i| Quality::new(i, rows, table, |r| r.implementation == i));
        let sums = [
            Quality::new("all", rows, table, |_| true),
            Quality::new("all, held back", rows, table, Row::held),
            Quality::new("all, not designed", rows, table, |r| !r.held() && !r.layer.starts_with("fit")),
        ];
        by.chain(sums).flatten().collect()
    }
}

/// The text of a table that was fitted to the data set of a target.
pub fn print(table: &CostTable, data: &str, target: &str) -> String {
    let unit =
        if data.lines().next().is_some_and(|line| line.contains("instructions")) { "Instructions" } else { "Cycles" };
    let mut text =
        format!("# {unit} that one of each count takes. Made by `mcc targets --fit {target}.csv`; do not edit.\n");
    for (implementation, counts) in table.kernels() {
        text += &format!("\n[{implementation}]\n");
        for (name, value) in counts {
            let name = if name.contains(' ') { format!("\"{name}\"") } else { name.clone() };
            text += &format!("{name} = {value:?}\n");
        }
    }
    text
}
