//! The fit of a cost table to a data set.

use super::{counts, least_squares};
use crate::{Error, Result};
use mcc_ir::costs::{Code, CostTable, Rates, Unit, Work};
use mcc_ir::{Graph, Target};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What one run of a layer by an implementation took.
#[derive(Clone, Debug)]
pub struct Row {
    pub layer: String,
    pub implementation: String,
    /// Cycles or instructions.
    pub measured: f64,
    /// Bytes of the kernel's own code.
    pub bytes: f64,
    pub work: Work,
    pub code: Code,
}

impl Row {
    /// Whether the fit does not see the row.
    pub fn held(&self) -> bool {
        self.layer.starts_with("held")
    }

    /// Whether the layer is one of a model, not one that was designed.
    pub fn of_a_model(&self) -> bool {
        !self.held() && !self.layer.starts_with("fit")
    }

    /// The relative error of a prediction.
    pub fn error(&self, table: &CostTable) -> f64 {
        table.cycles.of(&self.implementation, &self.work) / self.measured - 1.0
    }

    /// The same of its code.
    pub fn code_error(&self, table: &CostTable) -> f64 {
        table.code.of(&self.implementation, &self.code.own) / self.bytes - 1.0
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
        let (work, own) = counts(graph, target, implementation)
            .ok_or_else(|| fail(format!("{implementation} does not take {layer} on {}", target.name)))?;
        let (layer, implementation) = (layer.to_string(), implementation.to_string());
        Ok(Row { layer, implementation, measured: measured as f64, bytes: code as f64, work, code: own })
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

/// Reads the sizes of shared functions: lines of name and bytes, after a line of titles.
///
/// # Errors
/// [`Error::Data`] where a line is none.
pub fn functions(path: &Path, text: &str) -> Result<HashMap<String, f64>> {
    let row = |(i, line): (usize, &str)| {
        let cells = line.split_once(',').and_then(|(name, bytes)| Some((name.to_string(), bytes.parse().ok()?)));
        cells.ok_or_else(|| Error::Data {
            path: path.into(),
            reason: format!("line {}: a name and a number are needed", i + 1),
        })
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

/// A measurement and the counts that explain it.
type Sample<'a> = (&'a str, f64, &'a Work);

/// The table that fits the rows best which are not held back, and the functions that they share.
pub fn fit(rows: &[Row], functions: &HashMap<String, f64>, unit: Unit) -> CostTable {
    let seen: Vec<&Row> = rows.iter().filter(|r| !r.held()).collect();
    let cycles: Vec<Sample<'_>> = seen.iter().map(|r| (r.implementation.as_str(), r.measured, &r.work)).collect();
    let code: Vec<Sample<'_>> = seen.iter().map(|r| (r.implementation.as_str(), r.bytes, &r.code.own)).collect();
    let mut shared: BTreeMap<&str, Sample<'_>> = BTreeMap::new();
    for f in rows.iter().flat_map(|r| &r.code.shared) {
        if let Some(bytes) = functions.get(f.name.as_ref()) {
            shared.insert(&f.name, (f.kind, *bytes, &f.size));
        }
    }
    let shared: Vec<Sample<'_>> = shared.into_values().collect();
    // Of code it is bytes that count, of time the share.
    let flat = |_: f64| 1000.0;
    CostTable { unit, cycles: rates(&cycles, |m| m), code: rates(&code, flat), functions: rates(&shared, flat) }
}

/// The numbers that fit some measurements best, for each name by itself, errors measured by a scale.
fn rates(samples: &[Sample<'_>], scale: impl Fn(f64) -> f64) -> Rates {
    let mut by_name: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    samples.iter().for_each(|sample| by_name.entry(sample.0).or_default().push(*sample));
    let mut rates = Rates::default();
    for (name, own) in by_name {
        for part in parts(&own) {
            let mut counts: Vec<&str> = Vec::new();
            for (count, _) in part.iter().flat_map(|(_, _, work)| work.counts()) {
                if !counts.contains(count) {
                    counts.push(count);
                }
            }
            let of =
                |work: &Work, count: &str| work.counts().iter().find(|(c, _)| *c == count).map_or(0.0, |(_, n)| *n);
            let lines: Vec<Vec<f64>> = part
                .iter()
                .map(|(_, measured, work)| counts.iter().map(|count| of(work, count) / scale(*measured)).collect())
                .collect();
            let wanted: Vec<f64> = part.iter().map(|(_, m, _)| m / scale(*m)).collect();
            for (count, value) in counts.into_iter().zip(least_squares::solve_most(&lines, &wanted)) {
                // Four digits are more than the fit knows.
                rates.set(name, count, format!("{value:.3e}").parse().expect("a printed number"));
            }
        }
    }
    rates
}

/// Splits measurements into those that share no count with each other, such as the kinds of loop nests.
fn parts<'a>(samples: &[Sample<'a>]) -> Vec<Vec<Sample<'a>>> {
    let mut parts: Vec<(Vec<&str>, Vec<Sample<'a>>)> = Vec::new();
    for sample in samples {
        let counts: Vec<&str> = sample.2.counts().iter().map(|(count, _)| *count).collect();
        let (with, without): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|(known, _)| counts.iter().any(|c| known.contains(c)));
        parts = without;
        let (mut known, mut own): (Vec<&str>, Vec<Sample<'a>>) = (counts, Vec::new());
        for (more, members) in with {
            known.extend(more);
            own.extend(members);
        }
        known.sort_unstable();
        known.dedup();
        own.push(*sample);
        parts.push((known, own));
    }
    parts.into_iter().map(|(_, own)| own).collect()
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
    /// Of the code's size, the same median.
    pub code_median: f64,
}

impl Quality {
    /// Of the rows that `of` takes; `None` where there are none.
    pub fn new(implementation: &str, rows: &[Row], table: &CostTable, of: impl Fn(&Row) -> bool) -> Option<Quality> {
        let mut errors: Vec<(f64, &str)> =
            rows.iter().filter(|r| of(r)).map(|r| (100.0 * r.error(table).abs(), r.layer.as_str())).collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut code: Vec<f64> = rows.iter().filter(|r| of(r)).map(|r| 100.0 * r.code_error(table).abs()).collect();
        code.sort_by(f64::total_cmp);
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
            code_median: round(code[n / 2]),
        })
    }

    /// By implementation, then of all rows, and of those that the fit did not see.
    pub fn all(rows: &[Row], table: &CostTable) -> Vec<Quality> {
        let by = implementations(rows).into_iter().map(|i| Quality::new(i, rows, table, |r| r.implementation == i));
        let sums = [
            Quality::new("all", rows, table, |_| true),
            Quality::new("all, held back", rows, table, Row::held),
            Quality::new("all, not designed", rows, table, Row::of_a_model),
        ];
        by.chain(sums).flatten().collect()
    }
}

/// The unit of a data set, by its line of titles.
pub fn unit(data: &str) -> Unit {
    let titles = data.lines().next().unwrap_or_default();
    if titles.contains(Unit::Instructions.name()) { Unit::Instructions } else { Unit::Cycles }
}

/// The text of a table that was fitted to the data set of a target.
pub fn print(table: &CostTable, target: &str) -> String {
    let mut text = format!("# What one of each count takes. Made by `mcc targets --fit {target}.csv`; do not edit.\n");
    text += &format!("unit = \"{}\"\n", table.unit.name());
    for (section, rates) in [("cycles", &table.cycles), ("code", &table.code), ("functions", &table.functions)] {
        for (name, counts) in &rates.0 {
            let quoted = |name: &str| if name.contains(' ') { format!("\"{name}\"") } else { name.to_string() };
            text += &format!("\n[{section}.{}]\n", quoted(name));
            for (count, value) in counts {
                text += &format!("{} = {value:?}\n", quoted(count));
            }
        }
    }
    text
}
