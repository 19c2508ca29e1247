//! The text of emitted C: interface, names, warnings, determinism, and the meaning of scalars on every compiler.

mod c_support;

use c_support::scalars::{fan, floats, quantised_sums, unaries};
use c_support::{Random, agrees, bytes, checked, compile, installed, same, single};
use mcc_backends::c::exec::{self, ExecError};
use mcc_backends::c::{CATALOGUE, COptions, EmitError};
use mcc_backends::{c, targets};
use mcc_ir::graph::{Graph, origin};
use mcc_ir::op::{Binary, Rounding, Step, Unary};
use mcc_ir::{DType, Op, Tensor, TensorType, eval};
use mcc_passes::lower::{Io, lower};

fn add() -> Op {
    Op::binary(Binary::Add)
}

/// The ways in which the same C is compiled: no contraction, all of it, and no instruction of the machine's own.
fn builds() -> Vec<Vec<&'static str>> {
    let portable = [checked(), vec!["-U__SSE__"]].concat();
    vec![checked(), vec!["-O3", "-march=native", "-ffp-contract=fast", "-Wall", "-Werror"], portable]
}

fn everywhere(g: &Graph, inputs: &[Tensor]) {
    let expected = eval::run(g, inputs).unwrap();
    let c = compile(g, "generic-c", &[], Io::Separate);
    for flags in builds() {
        let out = exec::run_host(&c, &[bytes(inputs)], &flags).unwrap_or_else(|e| panic!("{e}\n{}", c.source));
        same(&expected, &out[0], 0.0, &c.source);
    }
}

#[test]
fn functions_of_one_float_have_the_evaluators_bits() {
    if !installed("cc") {
        return;
    }
    let x = Tensor::new([4000], &floats(4000));
    everywhere(&fan(unaries(), std::slice::from_ref(&x)), std::slice::from_ref(&x));
}

#[test]
fn functions_of_two_have_the_evaluators_bits() {
    if !installed("cc") {
        return;
    }
    use Binary::*;
    let arithmetic = [Add, Sub, Mul, Div, Min, Max, Equal, Less, LessEqual, Greater, GreaterEqual];
    let x = Tensor::new([2000], &floats(2000));
    let y = Tensor::new([2000], &floats(4000)[2000..]);
    let float = [arithmetic.as_slice(), &[Pow, PRelu]].concat();
    everywhere(&fan(float.into_iter().map(Op::binary).collect(), &[x.clone(), y.clone()]), &[x, y]);
    for dtype in [DType::I32, DType::I8, DType::U8] {
        let r = &mut Random::new(9);
        let word = |r: &mut Random| match r.below(4) {
            0 => [0, 1, -1, i32::MIN as i64, i32::MAX as i64][r.below(5)],
            1 => r.range(-5, 5),
            _ => r.next() as i32 as i64,
        };
        let mut make = || {
            let values: Vec<i64> = (0..500).map(|_| word(r)).collect();
            Tensor::from_i64(TensorType::new(dtype, [500]), &values)
        };
        let (x, y) = (make(), make());
        everywhere(&fan(arithmetic.into_iter().map(Op::binary).collect(), &[x.clone(), y.clone()]), &[x, y]);
    }
}

#[test]
fn casts_have_the_evaluators_bits() {
    if !installed("cc") {
        return;
    }
    let to =
        [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I16, DType::I8, DType::U8, DType::Bool];
    let halves: Vec<i64> = (0..65536).filter(|h| h & 0x7c00 != 0x7c00 || h & 0x3ff == 0).collect();
    let bits: Vec<u8> = halves.iter().flat_map(|h| (*h as u16).to_le_bytes()).collect();
    let half = Tensor::from_bytes(TensorType::new(DType::F16, [halves.len()]), bits).unwrap();
    let r = &mut Random::new(3);
    let integers: Vec<i64> = (0..300).map(|_| r.next() as i32 as i64).collect();
    for from in [
        Tensor::new([3000], &floats(3000)),
        half,
        Tensor::from_i64(TensorType::new(DType::I32, [300]), &integers),
        Tensor::from_i64(TensorType::new(DType::I8, [300]), &integers),
    ] {
        // On a target, 64-bit integers hold 32-bit values.
        let narrow = |t: &&DType| **t != DType::I64 || !from.dtype().is_float();
        let ops = to.iter().filter(narrow).map(|t| Op::Map(vec![Step::Cast(*t)])).collect();
        everywhere(&fan(ops, std::slice::from_ref(&from)), std::slice::from_ref(&from));
    }
}

/// The product of a dequantisation feeds an addition here: contraction would change bytes.
#[test]
fn quantised_sums_survive_contraction() {
    if !installed("cc") {
        return;
    }
    let r = &mut Random::new(21);
    let (x, y) = (r.tensor(DType::I8, &[20_000]), r.tensor(DType::I8, &[20_000]));
    everywhere(&fan(quantised_sums(), &[x.clone(), y.clone()]), &[x, y]);
}

#[test]
fn both_roundings_have_the_evaluators_bits() {
    if !installed("cc") {
        return;
    }
    let r = &mut Random::new(8);
    let sums: Vec<i32> = (0..4000).map(|_| r.range(-(1 << 22), 1 << 22) as i32).collect();
    let scales: Vec<f32> = (0..4000).map(|i| [0.5, 0.25, 0.001, 0.0371][i % 4]).collect();
    let step = |rounding, zero, lo, hi, dtype| Op::Map(vec![Step::Requant { rounding, zero, lo, hi, dtype }]);
    let x = Tensor::new([4000], &sums);
    let float = Rounding::F32HalfEven;
    let ops = vec![
        step(float, -128, -128, 127, DType::I8),
        step(float, 128, 0, 255, DType::U8),
        step(float, 10, 0, 20, DType::I8),
        step(float, 0, i32::MIN, i32::MAX, DType::I32),
    ];
    let s = Tensor::new([4000], &scales);
    everywhere(&fan(ops, &[x.clone(), s.clone()]), &[x.clone(), s]);
    let multipliers: Vec<i32> = (0..4000).map(|_| r.range(1 << 20, i32::MAX as i64) as i32).collect();
    let m = Tensor::new([4000], &multipliers);
    let single = step(Rounding::Single { shift: 8 }, -3, -128, 127, DType::I8);
    everywhere(&fan(vec![single], &[x.clone(), m.clone()]), &[x, m]);
}

#[test]
fn the_interface_is_the_headers() {
    let (g, _) = single(add(), &[(Tensor::new([1, 2], &[1f32, 2.0]), true), (Tensor::new([2], &[1f32, 1.0]), true)]);
    let c = compile(&g, "cortex-m4", CATALOGUE, Io::Arena);
    for line in [
        "#define M_NUM_INPUTS 2",
        "#define M_NUM_OUTPUTS 1",
        "#define M_INPUT_0_BYTES 8",
        "#define M_INPUT_0_SHAPE {1, 2}",
        "#define M_INPUT_0_TYPE float",
        "#define M_INPUT_1_NAME \"t1\"",
        "int m_run(void *arena, const float *input_0, const float *input_1, float *output_0);",
    ] {
        assert!(c.header.lines().any(|l| l == line), "{line} is not in\n{}", c.header);
    }
    assert!(c.header.contains("#define M_INPUT_0_OFFSET ") && c.header.contains("#define M_OUTPUT_0_OFFSET "));
    assert!(c.header.contains(&format!("#define M_ARENA_BYTES {}\n", c.arena_bytes)));
    let c = compile(&g, "cortex-m4", CATALOGUE, Io::Separate);
    assert!(!c.header.contains("OFFSET"));
}

/// A driver that passes wrong pointers gets the documented codes and nothing is touched.
#[test]
fn wrong_pointers_are_refused() {
    if !installed("cc") {
        return;
    }
    let (g, _) = single(add(), &[(Tensor::new([2], &[1f32, 2.0]), true), (Tensor::new([2], &[1f32, 1.0]), true)]);
    let c = compile(&g, "cortex-m7", CATALOGUE, Io::Arena);
    let program = format!(
        "#include \"m.h\"\n#include <stddef.h>\n{}\n\
         int main(void) {{\n\
             static _Alignas(16) unsigned char a[M_ARENA_BYTES + 16];\n\
             float *i0 = (float *)(void *)(a + M_INPUT_0_OFFSET), *i1 = (float *)(void *)(a + M_INPUT_1_OFFSET);\n\
             float *o = (float *)(void *)(a + M_OUTPUT_0_OFFSET);\n\
             float other[2] = {{0}};\n\
             if (m_run(a, i0, i1, o) != 0) return 1;\n\
             if (m_run(NULL, i0, i1, o) != M_BAD_ARENA) return 2;\n\
             if (m_run(a + 1, i0, i1, o) != M_BAD_ARENA) return 3;\n\
             if (m_run(a, other, i1, o) != M_BAD_INPUT) return 4;\n\
             if (m_run(a, i0, NULL, o) != M_BAD_INPUT) return 5;\n\
             if (m_run(a, i0, i1, other) != M_BAD_OUTPUT) return 6;\n\
             return 0;\n\
         }}\n",
        c.source.replace("#include \"m.h\"", "")
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.h"), &c.header).unwrap();
    std::fs::write(folder.path().join("main.c"), program).unwrap();
    let program = folder.path().join("main");
    let run = |command: &mut std::process::Command| command.current_dir(&folder).status().unwrap();
    assert!(run(std::process::Command::new("cc").args(checked()).args(["main.c", "-o"]).arg(&program)).success());
    assert_eq!(run(&mut std::process::Command::new(program)).code(), Some(0));
}

#[test]
fn names_of_the_model_cannot_leave_their_comments_and_strings() {
    if !installed("cc") {
        return;
    }
    let mut g = Graph::new("*/ int x; /*");
    let evil = ["*/ int x; /*", "a\"; int y; \"", "line\nbreak\\", "what??/", "\u{1f600}\u{0}", "ends in *", "/", "%s"];
    let ty = TensorType::new(DType::F32, [3]);
    let mut v = g.add_input(evil[0], ty.clone());
    for name in evil {
        let w = g.add_const(Tensor::new([3], &[name.len() as f32, 1.0, 2.0]), origin(name));
        v = g.add_node(add(), vec![v, w], origin(name)).unwrap();
    }
    for name in evil {
        g.add_output(name, v);
    }
    let x = Tensor::new([3], &[1f32, 2.0, 3.0]);
    for io in [Io::Arena, Io::Separate] {
        let c = compile(&g, "generic-c", CATALOGUE, io);
        agrees(&g, &c, std::slice::from_ref(&x), 0.0);
    }
}

#[test]
fn bad_names_are_refused() {
    let (g, _) = single(Op::unary(Unary::Neg), &[(Tensor::new([1], &[1f32]), true)]);
    let target = targets::find("host").unwrap();
    let plan = lower(&g, target, CATALOGUE, Io::Arena).unwrap();
    for name in ["", "1x", "a b", "int", "x;", "\u{e4}"] {
        let e = c::emit(&plan, target, &COptions { name: name.into() }).unwrap_err();
        assert!(matches!(e, EmitError::Name { .. }) && e.code() == "E0411", "{name}");
    }
}

#[test]
fn implementations_that_were_not_offered_are_refused() {
    let (g, _) = single(Op::unary(Unary::Neg), &[(Tensor::new([1], &[1f32]), true)]);
    let target = targets::find("cortex-m4").unwrap();
    let mut plan = lower(&g, target, CATALOGUE, Io::Arena).unwrap();
    for id in ["conv2d-s8-dsp", "nonsense"] {
        plan.kernels[0].implementation = id;
        let e = c::emit(&plan, target, &COptions { name: "m".into() }).unwrap_err();
        assert!(matches!(e, EmitError::Implementation { kernel: 0, .. }), "{e}");
    }
}

#[test]
fn equal_constants_are_stored_once_and_the_text_repeats() {
    let data = Tensor::new([3], &[1f32, f32::INFINITY, 3.0]);
    let mut g = Graph::new("twice");
    let x = g.add_input("x", data.ty().clone());
    let a = g.add_const(data.clone(), origin("a"));
    let b = g.add_const(data.reshaped([1, 3]), origin("b"));
    let y = g.add_node(add(), vec![x, a], origin("n")).unwrap();
    let z = g.add_node(add(), vec![y, b], origin("m")).unwrap();
    g.add_output("z", z);
    let c = compile(&g, "generic-c", CATALOGUE, Io::Arena);
    assert_eq!(c.source.matches("static const uint32_t m_c").count(), 1, "{}", c.source);
    assert_eq!(c, compile(&g, "generic-c", CATALOGUE, Io::Arena));
    if installed("cc") {
        agrees(&g, &c, &[Tensor::new([3], &[1f32, 2.0, 3.0])], 0.0);
    }
}

#[test]
fn batches_run_in_order_and_wrong_samples_are_refused() {
    if !installed("cc") {
        return;
    }
    let (g, _) = single(Op::unary(Unary::Neg), &[(Tensor::new([2], &[0f32, 0.0]), true)]);
    let c = compile(&g, "host", CATALOGUE, Io::Arena);
    let samples: Vec<_> = (0..3).map(|i| bytes(&[Tensor::new([2], &[i as f32, 1.0])])).collect();
    let out = exec::run_host(&c, &samples, exec::STRICT).unwrap();
    for (i, sample) in out.iter().enumerate() {
        assert_eq!(sample, &bytes(&[Tensor::new([2], &[-(i as f32), -1.0])]));
    }
    let e = exec::run_host(&c, &[vec![vec![0; 7]]], exec::STRICT).unwrap_err();
    assert!(matches!(e, ExecError::Inputs { sample: 0, .. }));
    let e = exec::run_host(&c, &samples, &["-std=nonsense"]).unwrap_err();
    assert!(matches!(e, ExecError::Build { .. }) && e.code() == "E0421");
}
