//! `mcc targets --layers` and `--fit`: the way from layers to a cost table.

use super::output;
use mcc::backends::targets;
use mcc::costs::{self, Quality, Row};
use mcc::ir::catalogue::NEST;
use mcc::ir::costs::CostTable;
use mcc::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A layer by an implementation, for whoever measures it.
#[derive(Serialize)]
struct Source {
    layer: String,
    implementation: &'static str,
    /// Its files are NAME.c and NAME.h.
    name: String,
    arena_bytes: usize,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or output in the arena.
#[derive(Serialize)]
struct Port {
    #[serde(rename = "type")]
    c_type: &'static str,
    bytes: usize,
    offset: usize,
}

/// A table's quality, and what it says of each row.
#[derive(Serialize)]
struct Fitted<'a> {
    quality: Vec<Quality>,
    rows: Vec<Prediction<'a>>,
}

#[derive(Serialize)]
struct Prediction<'a> {
    layer: &'a str,
    implementation: &'a str,
    measured: f64,
    predicted: f64,
    work: BTreeMap<&'static str, f64>,
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })
}

/// Writes the C of all layers by all implementations that take them, and a list of it.
pub fn sources(path: &Path, target: &str, folder: &Path) -> Result<()> {
    let target = targets::find(target)?;
    let layers = costs::layers(path, &read(path)?)?;
    let (mut files, mut list) = (Vec::new(), Vec::new());
    let port = |p: &mcc::backends::c::CPort| Port {
        c_type: p.c_type,
        bytes: p.bytes,
        offset: p.offset.expect("inputs and outputs are in the arena"),
    };
    for (layer, implementation, c) in costs::sources(&layers, target)? {
        files.push((folder.join(format!("{}.c", c.name)), c.source.into_bytes()));
        files.push((folder.join(format!("{}.h", c.name)), c.header.into_bytes()));
        let (inputs, outputs) = (c.inputs.iter().map(port).collect(), c.outputs.iter().map(port).collect());
        list.push(Source { layer, implementation, name: c.name, arena_bytes: c.arena_bytes, inputs, outputs });
    }
    let index: PathBuf = folder.join("index.json");
    files.push((index, output::json(&list).into_bytes()));
    output::write_files(&files)?;
    output::print(&format!("{} layers, {} sources\n", layers.len(), list.len()))
}

/// Fits a table to the data set of the target that it is named after, shows how good it is, and writes it. With the
/// beginning of names, shows each layer of such a name; the empty one stands for the layers of models.
pub fn fit(data: &Path, table: Option<&Path>, begin: Option<&str>, json: bool) -> Result<()> {
    let stem = data.file_stem().unwrap_or_default().to_string_lossy();
    let target = targets::find(&stem)?;
    let layers = data.with_file_name("layers.mcc");
    let layers = costs::layers(&layers, &read(&layers)?)?;
    let text = read(data)?;
    let rows = costs::rows(data, &text, &layers, target)?;
    let functions = data.with_file_name(format!("{stem}-functions.csv"));
    let functions = costs::functions(&functions, &read(&functions)?)?;
    let found = costs::fit(&rows, &functions, costs::unit(&text));
    if let Some(path) = table {
        let written = costs::print(&found, &stem);
        output::write_files(&[(path.into(), written.into_bytes())])?;
    }
    let all = Quality::all(&rows, &found);
    if json {
        let rows = rows.iter().map(|r| Prediction {
            layer: &r.layer,
            implementation: &r.implementation,
            measured: r.measured,
            predicted: (found.cycles.of(&r.implementation, &r.work)).round(),
            work: r.work.counts().iter().copied().collect(),
        });
        return output::print_json(&Fitted { quality: all, rows: rows.collect() });
    }
    if let Some(begin) = begin {
        let of_models = |r: &&Row| if begin.is_empty() { r.of_a_model() } else { r.layer.starts_with(begin) };
        return print_rows(&rows.iter().filter(of_models).collect::<Vec<_>>(), &found);
    }
    let row = |q: &Quality| {
        let percent = |x: f64| format!("{x:.1}");
        let figures =
            [q.rows.to_string(), percent(q.median), percent(q.most), percent(q.worst), q.within_15.to_string()];
        [vec![q.implementation.clone()], figures.to_vec(), vec![q.worst_layer.clone(), percent(q.code_median)]].concat()
    };
    let header =
        ["implementation", "rows", "median %", "95th %", "worst %", "within 15 %", "the worst", "code, median %"];
    output::print(&output::table(&header, &all.iter().map(row).collect::<Vec<_>>()))
}

/// Prints what a table predicts for some rows beside what was measured, and how many are near. The implementation that is
/// predicted to be the fastest has a star.
fn print_rows(rows: &[&Row], table: &CostTable) -> Result<()> {
    let predicted = |r: &Row| table.cycles.of(&r.implementation, &r.work);
    let mut fastest: BTreeMap<&str, f64> = BTreeMap::new();
    for r in rows {
        let least = fastest.entry(&r.layer).or_insert(f64::INFINITY);
        *least = least.min(predicted(r));
    }
    let chosen = |r: &Row| predicted(r) <= fastest[r.layer.as_str()];
    let row = |r: &&Row| {
        let ratio = predicted(r) / r.measured;
        let near = if (ratio - 1.0).abs() > 0.15 { "beyond 15 %" } else { "" };
        let implementation = format!("{}{}", r.implementation, if chosen(r) { " *" } else { "" });
        let figures = [format!("{:.0}", predicted(r)), format!("{:.0}", r.measured), format!("{ratio:.3}")];
        [vec![r.layer.clone(), implementation], figures.to_vec(), vec![near.into()]].concat()
    };
    let unit = table.unit.name();
    let header = ["layer", "implementation", &format!("predicted {unit}"), "measured", "ratio", ""];
    output::print(&output::table(&header, &rows.iter().map(row).collect::<Vec<_>>()))?;
    let share = |what: &str, of: &dyn Fn(&Row) -> bool| {
        let all: Vec<&&Row> = rows.iter().filter(|r| of(r)).collect();
        let near = all.iter().filter(|r| r.error(table).abs() <= 0.15).count();
        format!("{what}: {near} of {} within 15 %\n", all.len())
    };
    output::print(&share("kernels", &|r| r.implementation != NEST))?;
    output::print(&share("loop nests", &|r| r.implementation == NEST))?;
    output::print(&share("predicted to be the fastest (*)", &chosen))
}
