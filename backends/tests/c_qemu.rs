//! Emitted C on emulated cores, many models to a firmware image: instructions of the DSP extension, Helium, RISC-V and the
//! FPU against the evaluator.

mod c_support;

use c_support::cases::{
    averages, convs, depthwises, few_channels, matmuls, narrow, pointwises, rows_to_bytes, wholes, wide_convs,
    winograds,
};
use c_support::random::{shapes, wide_shapes};
use c_support::scalars::{fan, floats, quantised_sums, unaries};
use c_support::{Random, bytes, compile_as, difference, installed};
use mcc_backends::c::exec::{Core, ExecError, Job, Place, Sample, run_all, run_qemu};
use mcc_backends::c::{CATALOGUE, CPort, CSource};
use mcc_backends::targets;
use mcc_ir::catalogue::{Implementation, NEST};
use mcc_ir::graph::Graph;
use mcc_ir::{DType, Tensor, eval, text};
use mcc_passes::lower::{Goal, Io, Options};

const TARGETS: [&str; 3] = ["cortex-m4", "cortex-m7", "cortex-m55"];
const STRICT: &[&str] = &["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];
/// The optimiser's levels take turns.
const TURNS: [&[&str]; 4] = [STRICT, &["-Os"], STRICT, &["-O0"]];

type Case = (Graph, Vec<Tensor>);

fn core(target: &str) -> Core {
    Core::of(targets::find(target).unwrap()).unwrap()
}

fn ready(target: &str) -> bool {
    let tools = core(target).tools();
    installed(tools.cc) && installed(tools.emulator)
}

/// Models that make one image.
struct Batch<'a> {
    target: &'static str,
    catalogue: &'a [Implementation],
    flags: &'static [&'static str],
    /// Relative to the largest magnitude of a float output.
    bound: f32,
    cases: Vec<(&'a Case, Options)>,
}

impl<'a> Batch<'a> {
    fn new(target: &'static str, flags: &'static [&'static str]) -> Batch<'a> {
        Batch { target, catalogue: CATALOGUE, flags, bound: 0.0, cases: Vec::new() }
    }

    /// Cases by turns: each goes to the batch that `of` names.
    fn distributed(mut batches: Vec<Batch<'a>>, cases: &'a [Case], of: impl Fn(usize) -> usize) -> Vec<Batch<'a>> {
        let options = Options { goal: Goal::Time, ..Options::default() };
        cases.iter().enumerate().for_each(|(i, case)| batches[of(i)].cases.push((case, options.clone())));
        batches
    }

    fn emit(&self) -> Vec<CSource> {
        let emit = |(i, (case, options)): (usize, &(&Case, Options))| {
            compile_as(&format!("m{i}"), &case.0, self.target, self.catalogue, options.clone())
        };
        self.cases.iter().enumerate().map(emit).collect()
    }

    /// Runs every case twice and names all that are wrong.
    fn check(&self) {
        if self.cases.is_empty() || !ready(self.target) {
            return;
        }
        let faults = self.faults(&self.emit());
        if let Some((i, fault)) = faults.first() {
            let names: Vec<String> = faults.iter().map(|(i, fault)| format!("m{i}: {fault}")).collect();
            let (case, options) = &self.cases[*i];
            let source = compile_as("m", &case.0, self.target, self.catalogue, options.clone()).source;
            let graph = text::print(&case.0);
            panic!("{} {:?}\n{}\n\nm{i}: {fault}\n{graph}\n{source}", self.target, self.flags, names.join("\n"));
        }
    }

    /// The cases of which an output is wrong, with the place.
    fn faults(&self, sources: &[CSource]) -> Vec<(usize, String)> {
        let samples: Vec<[Sample; 2]> = self.cases.iter().map(|(case, _)| [bytes(&case.1), bytes(&case.1)]).collect();
        let jobs: Vec<Job> = sources.iter().zip(&samples).map(|(c, samples)| Job { c, samples }).collect();
        let found = run_all(Place::Qemu(core(self.target)), &jobs, self.flags)
            .unwrap_or_else(|e| panic!("{} {:?}: {e}", self.target, self.flags));
        let fault = |(i, outputs): (usize, &Vec<Sample>)| {
            let ((graph, inputs), _) = self.cases[i];
            let expected = eval::run(graph, inputs).unwrap();
            let first = difference(&expected, &outputs[0], self.bound).map(|fault| (i, fault));
            first.or_else(|| (outputs[0] != outputs[1]).then(|| (i, "the second run differs".to_string())))
        };
        found.iter().enumerate().filter_map(fault).collect()
    }
}

#[test]
fn integer_kernels_have_the_evaluators_bits() {
    let types = [DType::I8, DType::U8];
    let cases: Vec<Case> = convs(&types).into_iter().chain(matmuls(&types)).collect();
    let batches = TARGETS.map(|target| Batch::new(target, STRICT)).into();
    Batch::distributed(batches, &cases, |i| i % 3).iter().for_each(Batch::check);
    for (flags, every) in [(&["-Os"][..], 4), (&["-O0"], 8)] {
        let some: Vec<Case> = cases.iter().step_by(every).cloned().collect();
        Batch::distributed(vec![Batch::new("cortex-m4", flags)], &some, |_| 0)[0].check();
    }
    for target in ["riscv32imc", "cortex-m33"] {
        Batch::distributed(vec![Batch::new(target, STRICT)], &cases, |_| 0)[0].check();
    }
}

/// Forces one kernel on all cases, which its cost would keep from small images.
fn check_forced(id: &str, cases: &[Case]) {
    let one: Vec<_> = CATALOGUE.iter().filter(|e| e.id == id).copied().collect();
    assert_eq!(one.len(), 1, "{id}");
    // Every target at every level: four levels by three targets.
    let batch = |i: usize| Batch { catalogue: &one, ..Batch::new(TARGETS[i % 3], TURNS[i % 4]) };
    Batch::distributed((0..12).map(batch).collect(), cases, |i| i % 12).iter().for_each(Batch::check);
}

/// Vector instructions; each kernel is forced on all that it takes.
#[test]
fn vector_kernels_have_the_evaluators_bits() {
    let vectors: Vec<_> = CATALOGUE.iter().filter(|e| e.id.ends_with("mve")).copied().collect();
    let all = wide_convs(40, 9).into_iter().chain(depthwises(60)).chain(convs(&[DType::I8]));
    let all: Vec<Case> = all.chain(matmuls(&[DType::I8])).chain(averages(12)).collect();
    // Without the first form the one in smaller tiles has its turn.
    let lean: Vec<_> = vectors.iter().filter(|e| e.id != "conv2d-s8-mve").copied().collect();
    let batches = [&vectors, &lean].into_iter().cycle().zip(TURNS);
    let batches = batches.map(|(catalogue, flags)| Batch { catalogue, ..Batch::new("cortex-m55", flags) });
    let mut batches = Batch::distributed(batches.collect(), &all, |i| i % 4);
    for batch in &mut batches {
        batch.cases.iter_mut().step_by(3).for_each(|(_, options)| options.io = Io::Separate);
        batch.check();
    }
}

#[test]
fn depthwise_rows_have_the_evaluators_bits() {
    check_forced("depthwise-s8-rows", &depthwises(24));
}

#[test]
fn winograd_has_the_evaluators_bits() {
    check_forced("conv2d-s8-winograd-2", &winograds(1, 12));
    check_forced("conv2d-s8-winograd-4", &winograds(1, 18));
    check_forced("conv2d-s8-winograd-stride-2", &winograds(2, 12));
}

#[test]
fn whole_pixels_have_the_evaluators_bits() {
    let all: Vec<Case> = wholes(32).into_iter().chain(pointwises(12)).collect();
    check_forced("conv2d-s8-strips", &all);
    check_forced("conv2d-s8-direct", &all[..32]);
    check_forced("conv2d-s8-runs", &few_channels(32));
    check_forced("row-s8-pairs", &rows_to_bytes(24));
    check_forced("row-s8-bytes", &rows_to_bytes(24));
}

#[test]
fn four_bit_weights_have_the_evaluators_bits() {
    let images = narrow(convs(&[DType::I8, DType::U8]).into_iter().chain(wide_convs(12, 8)).collect());
    let rows = narrow(matmuls(&[DType::I8, DType::U8]));
    check_forced("depthwise-s4-dsp", &narrow(depthwises(24)));
    for kind in ["fours", "dsp"] {
        check_forced(&format!("conv2d-s4-{kind}"), &images);
        check_forced(&format!("matmul-s4-{kind}"), &rows);
    }
}

#[test]
fn wide_values_have_the_evaluators_bits() {
    let (images, rows) = (convs(&[DType::I16]), matmuls(&[DType::I16]));
    check_forced("conv2d-s8-dsp", &images);
    check_forced("depthwise-s8-dsp", &images);
    check_forced("matmul-s8-dsp", &rows);
    let narrowed = narrow(images);
    check_forced("conv2d-s4-dsp", &narrowed);
    check_forced("depthwise-s4-dsp", &narrowed);
    check_forced("matmul-s4-dsp", &narrow(rows));
}

#[test]
fn float_kernels_are_close_to_the_evaluator() {
    let cases: Vec<Case> = convs(&[DType::F32]).into_iter().chain(matmuls(&[DType::F32])).collect();
    let batches = TARGETS.map(|target| Batch { bound: 1e-6, ..Batch::new(target, &[]) }).into();
    Batch::distributed(batches, &cases, |i| i % 3).iter().for_each(Batch::check);
    for target in ["riscv32imc", "cortex-m33"] {
        let batches = vec![Batch { bound: 1e-6, ..Batch::new(target, STRICT) }];
        Batch::distributed(batches, &cases, |_| 0)[0].check();
    }
}

/// GCC contracts to fused multiply-add by default on these cores; others have floats in software.
#[test]
fn scalars_have_the_evaluators_bits() {
    let x = Tensor::new([1000], &floats(1000));
    let r = &mut Random::new(21);
    let pair = vec![r.tensor(DType::I8, &[5000]), r.tensor(DType::I8, &[5000])];
    let cases = [(fan(unaries(), std::slice::from_ref(&x)), vec![x]), (fan(quantised_sums(), &pair), pair)];
    for target in ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32imc"] {
        Batch::distributed(vec![Batch::new(target, &[])], &cases, |_| 0)[0].check();
    }
}

/// `n` convolutions, depthwise convolutions and products of random shapes, by the kernels that mcc would choose: half of
/// them balanced, a third for time, a sixth for size.
fn check_random(target: &'static str, seed: u64, n: usize, elements: usize) {
    let cases = shapes(seed, n, elements);
    assert_eq!(cases.len(), n);
    let goal = |i: usize| [Goal::Balanced, Goal::Time, Goal::Balanced, Goal::Time, Goal::Balanced, Goal::Size][i % 6];
    let io = |i: usize| if i.is_multiple_of(5) { Io::Separate } else { Io::Arena };
    let options = |i: usize| Options { io: io(i), goal: goal(i), ..Options::default() };
    let cases = cases.iter().enumerate().map(|(i, case)| (case, options(i))).collect();
    let batch = Batch { cases, ..Batch::new(target, STRICT) };
    // Small shapes are left to loop nests where a kernel's code costs more than it saves.
    let by_nest = batch.emit().iter().filter(|c| c.source.contains(&format!(" * by {NEST}"))).count();
    assert!(by_nest * 5 < n * 3, "{target}: {by_nest} of {n} cases are left to loop nests");
    batch.check();
}

/// Values of 16 bits and weights of four, on cores with and without DSP.
#[test]
fn random_widths_on_emulated_cores() {
    let mut all = narrow(shapes(9, 72, 30_000));
    all.extend(wide_shapes(10, 48, 30_000));
    all.extend(narrow(wide_shapes(11, 48, 30_000)));
    let batch = |i: usize| Batch::new(["cortex-m4", "riscv32imc"][i % 2], TURNS[i / 2 % 4]);
    let mut batches = Batch::distributed((0..8).map(batch).collect(), &all, |i| i / 4 % 8);
    for (i, (_, options)) in batches.iter_mut().flat_map(|b| &mut b.cases).enumerate() {
        options.goal = [Goal::Size, Goal::Time, Goal::Balanced][i % 3];
    }
    batches.iter().for_each(Batch::check);
}

#[test]
fn random_shapes_on_the_m4() {
    check_random("cortex-m4", 1, 220, 60_000);
}

#[test]
fn random_shapes_on_the_m7() {
    check_random("cortex-m7", 2, 40, 60_000);
}

#[test]
fn random_shapes_on_the_m33() {
    check_random("cortex-m33", 3, 40, 60_000);
}

#[test]
fn random_shapes_on_the_m55() {
    check_random("cortex-m55", 4, 80, 60_000);
}

#[test]
fn random_shapes_on_risc_v() {
    check_random("riscv32imc", 5, 60, 60_000);
}

/// The board of the smallest core has 16 KiB of RAM. It refuses words that are not aligned.
#[test]
fn random_shapes_on_the_m0() {
    check_random("cortex-m0", 6, 40, 4_000);
}

/// One wrong weight in one model of an image: the harness names that model, and no other.
#[test]
fn a_wrong_byte_is_found_in_its_model() {
    for target in ["cortex-m4", "riscv32imc"] {
        if !ready(target) {
            continue;
        }
        let cases = shapes(7, 6, 2_000);
        let batch = Batch::distributed(vec![Batch::new(target, &[])], &cases, |_| 0).remove(0);
        let mut sources = batch.emit();
        assert_eq!(batch.faults(&sources), []);
        // The result of the fourth model gets another last byte.
        let last = sources[3].outputs[0].offset.unwrap() + sources[3].outputs[0].bytes - 1;
        let end = sources[3].source.rfind("    return 0;").unwrap();
        sources[3].source.insert_str(end, &format!("    ((uint8_t *)arena)[{last}] ^= 1u;\n"));
        let faults = batch.faults(&sources);
        assert_eq!(faults.len(), 1, "{faults:?}");
        let (model, fault) = &faults[0];
        assert_eq!(*model, 3);
        let elements = sources[3].outputs[0].bytes;
        assert!(fault.contains(&format!("element {}:", elements - 1)) && fault.contains("1 of"), "{fault}");
    }
}

/// Models that end with an error, write behind their arena or crash are named.
#[test]
fn a_failing_model_is_named() {
    for target in ["cortex-m4", "riscv32imc"] {
        if !ready(target) {
            continue;
        }
        let cases = shapes(8, 3, 2_000);
        let batch = Batch::distributed(vec![Batch::new(target, &[])], &cases, |_| 0).remove(0);
        let samples: Vec<Sample> = cases.iter().map(|case| bytes(&case.1)).collect();
        let sources = batch.emit();
        let end = sources[1].arena_bytes;
        for (fault, named) in [
            ("return 5;".to_string(), "code 5"),
            (format!("((volatile uint8_t *)arena)[{end}] = 1;"), "a write behind its arena"),
            ("__builtin_trap();".to_string(), "99"),
        ] {
            let mut sources = sources.clone();
            let end = sources[1].source.rfind("    return 0;").unwrap();
            sources[1].source.insert_str(end, &format!("    {fault}\n"));
            let jobs: Vec<Job> = (sources.iter().zip(&samples))
                .map(|(c, sample)| Job { c, samples: std::slice::from_ref(sample) })
                .collect();
            match run_all(Place::Qemu(core(target)), &jobs, &[]) {
                Err(ExecError::Run { status, output }) => {
                    let text = format!("{status} {output}");
                    assert!(text.contains(named) && text.contains("model `m1`, sample 0"), "{text}");
                }
                other => panic!("{fault} gave {other:?}"),
            }
        }
    }
}

/// A model of nothing but a table.
fn table(name: &str, bytes: usize) -> CSource {
    CSource {
        name: name.into(),
        source: format!(
            "#include \"{name}.h\"\nstatic const unsigned char t[{bytes}] = {{1}};\n\
             int {name}_run(unsigned char *arena, unsigned char *y) {{ arena[1] = 1; *y = ((const volatile unsigned char *)t)[{bytes} - 1]; return 0; }}\n"
        ),
        header: format!("int {name}_run(unsigned char *arena, unsigned char *y);\n"),
        arena_bytes: 16,
        arenas: vec![0],
        alignment: 4,
        inputs: Vec::new(),
        outputs: vec![CPort { c_type: "uint8_t", bytes: 1, offset: Some(0) }],
    }
}

/// More models than a board holds make more images; a single one that it does not hold is an error.
#[test]
fn what_a_board_does_not_hold_is_split_or_refused() {
    if !ready("cortex-m0") {
        return;
    }
    let place = Place::Qemu(Core::M0);
    let samples = [Sample::new()];
    let tables: Vec<CSource> = (0..3).map(|i| table(&format!("m{i}"), 150 << 10)).collect();
    let jobs: Vec<Job> = tables.iter().map(|c| Job { c, samples: &samples }).collect();
    assert_eq!(run_all(place, &jobs, &[]).unwrap(), vec![vec![vec![vec![0]]]; 3]);
    let e = run_qemu(&table("m", 300 << 10), Core::M0, &samples, &[]).unwrap_err();
    assert!(matches!(e, ExecError::TooLarge { core: "cortex-m0", .. }) && e.code() == "E0426", "{e}");
}
