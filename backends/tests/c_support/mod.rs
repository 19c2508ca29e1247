//! What the tests of the C backend share: small random graphs, and their way through lowering, C and a run.
#![allow(dead_code)]

pub mod cases;
pub mod random;
pub mod scalars;

use mcc_backends::c::exec::{self, Job, Place, Sample};
use mcc_backends::c::{COptions, CSource};
use mcc_backends::{c, targets};
use mcc_ir::catalogue::{Implementation, NEST};
use mcc_ir::graph::{Graph, ValueId, origin};
use mcc_ir::nest::counts;
use mcc_ir::{DType, Op, Target, Tensor, TensorType, eval};
use mcc_passes::lower::{Goal, Io, Options, lower};

/// A small random number generator (xorshift), so that every failure repeats.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn range(&mut self, lo: i64, hi: i64) -> i64 {
        lo + (self.next() % (hi - lo + 1) as u64) as i64
    }

    /// A random tensor: the whole range of types of 8 and 16 bits, moderate numbers of wider ones.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let ty = TensorType::new(dtype, shape);
        let n = ty.elements();
        let (lo, hi) = match dtype {
            DType::I8 => (-128, 127),
            DType::U8 => (0, 255),
            DType::I16 => (-32768, 32767),
            DType::Bool => (0, 1),
            _ => (-2000, 2000),
        };
        if dtype.is_float() {
            let values: Vec<f64> = (0..n).map(|_| self.range(-4096, 4096) as f64 / 512.0).collect();
            return Tensor::from_f64(ty, &values);
        }
        let values: Vec<i64> = (0..n).map(|_| self.range(lo, hi)).collect();
        Tensor::from_i64(ty, &values)
    }
}

/// A graph of one operator; `inputs` are graph inputs where the flag is set, else constants.
pub fn single(op: Op, inputs: &[(Tensor, bool)]) -> (Graph, Vec<Tensor>) {
    let mut g = Graph::new("test");
    let mut given = Vec::new();
    let mut ids: Vec<ValueId> = Vec::new();
    for (i, (t, input)) in inputs.iter().enumerate() {
        let name = format!("t{i}");
        ids.push(if *input {
            given.push(t.clone());
            g.add_input(name, t.ty().clone())
        } else {
            g.add_const(t.clone(), origin(&name))
        });
    }
    let node = g.add_node(op, ids, origin("node")).expect("the operator takes its inputs");
    g.add_output("y", node);
    (g, given)
}

/// Emits a graph for a target with a catalogue.
pub fn compile(g: &Graph, target: &str, catalogue: &[Implementation], io: Io) -> CSource {
    compile_as("m", g, target, catalogue, Options { io, goal: Goal::Time, ..Options::default() })
}

/// Emits a graph under a name.
pub fn compile_as(name: &str, g: &Graph, target: &str, catalogue: &[Implementation], options: Options) -> CSource {
    let target = without_nests(target);
    let plan = lower(g, &target, catalogue, options).unwrap();
    c::emit(&plan, &target, &COptions { name: name.into() }).unwrap()
}

/// A target on which loop nests seem so slow that they are chosen only where there is nothing else.
pub fn without_nests(target: &str) -> Target {
    let mut target = targets::find(target).unwrap().clone();
    counts().for_each(|count| target.table.cycles.set(NEST, count, 1e12));
    target
}

pub fn bytes(tensors: &[Tensor]) -> Sample {
    tensors.iter().map(|t| t.bytes().to_vec()).collect()
}

/// The strict flags and the sanitizers.
pub fn checked() -> Vec<&'static str> {
    [exec::STRICT, exec::SANITIZED].concat()
}

/// Whether the host's compiler is there; where it is not, the test is skipped loudly, and fails in CI.
pub fn installed(tool: &str) -> bool {
    let found = std::process::Command::new(tool).arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

/// Runs a graph's C on the host under the sanitizers and compares with the evaluator: bit for bit, or within `bound` of
/// the largest magnitude for floats.
pub fn agrees(g: &Graph, c: &CSource, inputs: &[Tensor], bound: f32) {
    all_agree(&[(g, c, inputs)], bound);
}

/// The same for many graphs, whose C has different names, in one program.
pub fn all_agree(cases: &[(&Graph, &CSource, &[Tensor])], bound: f32) {
    let samples: Vec<[Sample; 1]> = cases.iter().map(|(_, _, inputs)| [bytes(inputs)]).collect();
    let jobs: Vec<Job> = cases.iter().zip(&samples).map(|((_, c, _), samples)| Job { c, samples }).collect();
    let found = exec::run_all(Place::Host, &jobs, &checked()).unwrap_or_else(|e| panic!("{e}"));
    for ((g, c, inputs), found) in cases.iter().zip(&found) {
        same(&eval::run(g, inputs).unwrap(), &found[0], bound, &c.source);
    }
}

pub fn same(expected: &[Tensor], found: &Sample, bound: f32, source: &str) {
    if let Some(fault) = difference(expected, found, bound) {
        panic!("{fault}\n{source}");
    }
}

/// The first element that is not as expected.
pub fn difference(expected: &[Tensor], found: &Sample, bound: f32) -> Option<String> {
    assert_eq!(expected.len(), found.len(), "number of outputs");
    expected.iter().zip(found).enumerate().find_map(|(output, (e, f))| {
        let f = Tensor::from_bytes(e.ty().clone(), f.clone()).unwrap();
        if e.bytes() == f.bytes() {
            return None;
        }
        let (wanted, given) = (e.to_f64(), f.to_f64());
        let size = wanted.iter().fold(0f64, |m, v| m.max(v.abs()));
        let allowed = if e.dtype().is_float() { f64::from(bound) * size } else { 0.0 };
        let close = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed;
        let at = wanted.iter().zip(&given).position(|pair| !close(pair))?;
        let wrong = wanted.iter().zip(&given).filter(|pair| !close(*pair)).count();
        let (n, a, b) = (given.len(), wanted[at], given[at]);
        Some(format!("output {output}, element {at}: {b} instead of {a}; {wrong} of {n} elements differ"))
    })
}
