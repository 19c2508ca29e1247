//! The cost tables are what the fit makes of the checked-in measurements, and can be trusted.

use mcc::backends::{c, targets};
use mcc::costs::{self, Quality, Row};
use mcc::ir::costs::{CYCLES, CostTable};
use std::collections::BTreeMap;
use std::path::PathBuf;

const CORES: [&str; 4] = ["cortex-m0", "cortex-m4", "cortex-m55", "riscv32imc"];

fn file(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("backends/costs").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path, text)
}

/// The rows of a core's data set, the table that fits them, and the table that is checked in.
fn fitted(core: &str) -> (Vec<Row>, CostTable, String) {
    let (path, text) = file("layers.mcc");
    let layers = costs::layers(&path, &text).unwrap();
    let (path, data) = file(&format!("{core}.csv"));
    let rows = costs::rows(&path, &data, &layers, targets::find(core).unwrap()).unwrap();
    let (path, functions) = file(&format!("{core}-functions.csv"));
    let functions = costs::functions(&path, &functions).unwrap();
    let table = costs::fit(&rows, &functions, costs::unit(&data));
    (rows, table, file(&format!("{core}.toml")).1)
}

/// Implementations in plain C, whose loops the compiler unrolls or not as it likes.
fn plain(row: &Row) -> bool {
    ["nest", "conv2d-s8", "matmul-s8", "depthwise-s8", "conv2d-f32", "matmul-f32", "depthwise-f32"]
        .contains(&row.implementation.as_str())
}

#[test]
fn tables_are_what_the_fit_makes_of_the_data() {
    for core in CORES {
        let (_, table, text) = fitted(core);
        let again = format!("mcc targets --fit backends/costs/{core}.csv -o backends/costs/{core}.toml");
        assert!(costs::print(&table, core) == text, "{core}.toml is not what `{again}` gives");
        assert_eq!(targets::find(core).unwrap().table, table);
    }
}

/// Whatever states counts was measured.
#[test]
fn every_implementation_with_counts_is_in_the_tables() {
    let (path, text) = file("layers.mcc");
    let layers = costs::layers(&path, &text).unwrap();
    for core in CORES {
        let target = targets::find(core).unwrap();
        for entry in c::CATALOGUE {
            for layer in &layers {
                let Some((work, _)) = costs::counts(layer, target, entry.id) else { continue };
                let estimate = work.counts().iter().all(|(name, _)| *name == CYCLES);
                let known = estimate || target.table.cycles.has(entry.id);
                assert!(known, "{} is not in the table of {core}: see scripts/mcu-costs.py", entry.id);
            }
        }
    }
}

#[test]
fn predictions_are_near_the_measurements() {
    // By core: rows of models' layers beyond 15 %, of the kernels with special instructions.
    for (core, most) in [("cortex-m4", 1), ("cortex-m55", 3)] {
        let (rows, table, _) = fitted(core);
        let beyond: Vec<String> = rows
            .iter()
            .filter(|r| r.of_a_model() && !plain(r) && r.error(&table).abs() > 0.15)
            .map(|r| format!("{} {} {:+.3}", r.layer, r.implementation, r.error(&table)))
            .collect();
        assert!(beyond.len() <= most, "{core}: {beyond:#?}");
        // What the fit has not seen is predicted as well as what it has.
        let held = Quality::new("held back", &rows, &table, |r| r.held() && !plain(r)).unwrap();
        assert!(held.rows > 100 && held.median <= 2.5 && held.most <= 15.0, "{core}: {held:?}");
        let all = Quality::new("all", &rows, &table, |_| true).unwrap();
        assert!(all.median <= 5.0 && all.within_15 * 100 >= all.rows * 80, "{core}: {all:?}");
    }
}

/// Loop nests are predicted as well as kernels in plain C.
#[test]
fn predictions_of_loop_nests_are_near_the_measurements() {
    // By core: percent of the nests within 15 %, of models' layers and of those that the fit has not seen.
    for (core, of_models, unseen) in
        [("cortex-m0", 95, 80), ("cortex-m4", 95, 75), ("cortex-m55", 88, 68), ("riscv32imc", 95, 85)]
    {
        let (rows, table, _) = fitted(core);
        let nests = |of: &dyn Fn(&Row) -> bool| {
            Quality::new("nests", &rows, &table, |r| r.implementation == "nest" && of(r)).unwrap()
        };
        let models = nests(&Row::of_a_model);
        assert!(models.rows >= 90 && models.within_15 * 100 >= models.rows * of_models, "{core}: {models:?}");
        let held = nests(&Row::held);
        assert!(held.rows > 100 && held.within_15 * 100 >= held.rows * unseen, "{core}: {held:?}");
        assert!(held.median <= 6.0, "{core}: {held:?}");
    }
}

/// The implementation that is predicted to be the fastest hardly ever is slower than another one.
#[test]
fn the_table_chooses_well() {
    for core in CORES {
        let (rows, table, _) = fitted(core);
        let mut by_layer: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        rows.iter().for_each(|r| by_layer.entry(&r.layer).or_default().push(r));
        let mut losses: Vec<(f64, String)> = Vec::new();
        for (layer, rows) in by_layer {
            let predicted = |r: &&Row| table.cycles.of(&r.implementation, &r.work);
            let chosen = rows.iter().copied().min_by(|a, b| predicted(a).total_cmp(&predicted(b))).unwrap();
            let fastest = rows.iter().copied().min_by(|a, b| a.measured.total_cmp(&b.measured)).unwrap();
            let loss = chosen.measured / fastest.measured - 1.0;
            let text = format!("{layer}: {} for {}, {loss:+.3}", chosen.implementation, fastest.implementation);
            assert!(loss <= 0.05 || !chosen.of_a_model(), "{core}: {text}");
            losses.push((loss, text));
        }
        losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wrong = losses.iter().filter(|(loss, _)| *loss > 0.05).count();
        assert!(wrong * 100 <= losses.len() * 5, "{core}: {wrong} of {}: {:#?}", losses.len(), losses.last());
    }
}
