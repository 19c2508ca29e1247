//! What the passes make of the shared models: no transposes that undo each other are left; snapshots of each model's operators
//! and of how many models each rule of the e-graph applies to.

mod support;

use mcc::ir::Op;
use mcc::ir::graph::{Def, Graph, ValueId};
use mcc::ir::op::Step;
use mcc::passes::{PassCx, egraph, pass, pipeline};
use mcc::{Error, Model, Options, text_file};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use support::{npz, shared};

/// Models up to this size are compiled; larger ones differ only in width.
const LARGEST_FILE: u64 = 25 << 20;

/// The permutation by which `v` holds the elements of another value, followed through element-wise work to that value.
fn carried_transposes(graph: &Graph, v: ValueId) -> Vec<Vec<usize>> {
    let mut found = vec![];
    let mut at = v;
    while let Some((op, inputs)) = graph.node(at) {
        match op {
            Op::Transpose { perm } => found.push(perm.clone()),
            Op::Map(steps) if !steps.iter().any(Step::takes_operand) => {}
            _ => break,
        }
        at = inputs[0];
    }
    found
}

fn is_identity(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(i, &p)| i == p)
}

/// Transposes of a graph that undo another one, or nothing.
fn undone(graph: &Graph) -> Vec<ValueId> {
    graph
        .values()
        .filter(|(_, v)| matches!(&v.def, Def::Node { op: Op::Transpose { .. }, .. }))
        .filter(|(id, _)| {
            let chain = carried_transposes(graph, *id);
            let mut whole: Vec<usize> = (0..chain[0].len()).collect();
            chain.iter().any(|perm| {
                whole = whole.iter().map(|&i| perm[i]).collect();
                is_identity(&whole)
            })
        })
        .map(|(id, _)| id)
        .collect()
}

/// The shared models of moderate size, by name, and how to compile them. `None` where they are missing.
fn corpus() -> Option<Vec<(String, PathBuf, Options)>> {
    let shared = shared()?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(shared.join("models"))
        .expect("listed")
        .map(|e| e.expect("readable").path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .filter(|p| p.metadata().is_ok_and(|m| m.len() <= LARGEST_FILE))
        .collect();
    files.sort();
    let model = |path: PathBuf| {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let mut options = Options::for_target("generic-c").expect("built in");
        for (key, tensor) in npz(&shared.join("models/io").join(format!("{name}.npz"))) {
            if let Some(input) = key.strip_prefix("in:") {
                options.import.input_shapes.insert(input.to_string(), tensor.shape().to_vec());
            }
        }
        (name, path, options)
    };
    Some(files.into_iter().map(model).collect())
}

#[test]
fn no_transpose_of_the_corpus_only_undoes_another() {
    let Some(models) = corpus() else { return };
    let mut summary = String::new();
    for (name, path, options) in models {
        let model = match Model::load(&path, &options) {
            Ok(model) => model,
            Err(Error::Import(e)) => {
                writeln!(summary, "{name}: refused with {}", e.code()).expect("a string");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let graph = &model.optimised;
        assert_eq!(undone(graph), [], "{name}:\n{graph}");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, value) in graph.values() {
            if let Def::Node { op, .. } = &value.def {
                *counts.entry(op.name()).or_default() += 1;
            }
        }
        let counts: Vec<String> = counts.iter().map(|(op, n)| format!("{op} {n}")).collect();
        writeln!(summary, "{name}: {}", counts.join(", ")).expect("a string");
    }
    insta::assert_snapshot!(summary);
}

/// Which rules of the e-graph the shared models need.
#[test]
fn the_corpus_fires_rules() {
    let Some(models) = corpus() else { return };
    let mut fired: Vec<(&str, usize)> = egraph::rules().iter().map(|r| (r.name, 0)).collect();
    let mut total = 0;
    for (name, path, options) in models {
        let mut graph = match text_file::load(&path, &options.import) {
            Ok(graph) => graph,
            Err(Error::Import(_)) => continue,
            Err(e) => panic!("{name}: {e}"),
        };
        let cx = PassCx::quiet(&options.target);
        for pass in pipeline::wanted(&cx).take_while(|p| p.name() != "egraph") {
            pass::run(pass, &mut graph, &cx).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let (_, report) = egraph::optimise(&graph, &options.target, &egraph::rules()).expect("optimises");
        total += 1;
        for ((_, models), (_, times)) in fired.iter_mut().zip(&report.applications) {
            *models += (*times > 0) as usize;
        }
    }
    let summary: String = fired.iter().map(|(rule, models)| format!("{rule}: {models} of {total} models\n")).collect();
    insta::assert_snapshot!(summary);
}

#[test]
fn a_transpose_that_undoes_another_is_found() {
    let text = "graph @g(v0 \"x\": f32[1x2x3x4]) {
        v1 = transpose v0 {perm = [0, 2, 3, 1]}
        v2 = relu v1
        v3 = transpose v2 {perm = [0, 3, 1, 2]}
        return v3 \"y\"
    }";
    let graph = mcc::ir::text::parse(text, &|_| None).expect("parses");
    assert_eq!(undone(&graph).len(), 1);
}
