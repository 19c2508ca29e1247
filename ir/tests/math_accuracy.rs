//! The elementary functions against `f64`, over the whole range of `f32`. The bounds are those of the docs.

use mcc_ir::F32;
use mcc_ir::math::{binary, unary};
use mcc_ir::op::{Binary, Unary};
use mcc_ir::scalar::Eval;

fn call(u: Unary, x: f32) -> f32 {
    f32::from_bits(unary(&mut Eval, u, x.to_bits()))
}

fn pow(a: f32, b: f32) -> f32 {
    f32::from_bits(binary(&mut Eval, Binary::Pow, a.to_bits(), b.to_bits()))
}

/// The distance of `got` from the real result in units in the last place of that result, taking infinity as 2^128.
fn ulp(got: f32, exact: f64) -> f64 {
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let end = 2f64.powi(128);
    let (got, exact) = ((got as f64).clamp(-end, end), exact.clamp(-end, end));
    let exponent = if exact == 0.0 { -126 } else { libm::ilogb(exact).clamp(-126, 127) };
    (got - exact).abs() / 2f64.powi(exponent - 23)
}

/// Every 1009th bit pattern of `f32`: all exponents and signs, and NaNs.
fn patterns() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(1009).map(f32::from_bits)
}

fn check(u: Unary, bound: f64, exact: impl Fn(f64) -> f64) {
    let mut worst = (0.0, 0.0);
    for x in patterns().chain((-2000..2000).map(|i| i as f32 / 16.0)) {
        let error = ulp(call(u, x), exact(x as f64));
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    println!("{}: {:.3} ULP at {:e}", u.name(), worst.0, worst.1);
    assert!(worst.0 <= bound, "{}: {} ULP at {:e}, not {bound}", u.name(), worst.0, worst.1);
}

#[test]
fn exp() {
    check(Unary::Exp, 0.95, f64::exp);
    assert_eq!(call(Unary::Exp, f32::NEG_INFINITY), 0.0);
    assert_eq!(call(Unary::Exp, f32::INFINITY), f32::INFINITY);
    assert_eq!(call(Unary::Exp, 0.0), 1.0);
}

#[test]
fn log() {
    check(Unary::Log, 0.87, f64::ln);
    for zero in [0.0, -0.0] {
        assert_eq!(call(Unary::Log, zero), f32::NEG_INFINITY);
    }
    assert_eq!(call(Unary::Log, f32::INFINITY), f32::INFINITY);
    assert_eq!(call(Unary::Log, 1.0).to_bits(), 0);
    assert!(call(Unary::Log, f32::NEG_INFINITY).is_nan());
}

#[test]
fn sigmoid() {
    check(Unary::Sigmoid, 1.4, |x| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) });
    assert_eq!(call(Unary::Sigmoid, 0.0), 0.5);
    assert_eq!(call(Unary::Sigmoid, f32::NEG_INFINITY), 0.0);
    assert_eq!(call(Unary::Sigmoid, f32::INFINITY), 1.0);
}

#[test]
fn tanh() {
    check(Unary::Tanh, 1.4, f64::tanh);
    assert_eq!(call(Unary::Tanh, -0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(call(Unary::Tanh, f32::NEG_INFINITY), -1.0);
}

#[test]
fn erf() {
    check(Unary::Erf, 1.3, libm::erf);
    assert_eq!(call(Unary::Erf, -0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(call(Unary::Erf, f32::INFINITY), 1.0);
}

#[test]
fn elu_and_softplus() {
    check(Unary::Elu(F32(1.0)), 1.0, |x| if x < 0.0 { x.exp_m1() } else { x });
    check(Unary::Softplus, 1.8, |x| x.max(0.0) + if x.is_nan() { x } else { (-x.abs()).exp().ln_1p() });
    assert_eq!(call(Unary::Elu(F32(2.0)), f32::NEG_INFINITY), -2.0);
}

#[test]
fn formulas() {
    // One rounding an operation: within a few ULP of the largest term.
    for x in patterns().filter(|x| x.abs() < 1e30) {
        let d = x as f64;
        let near = |u: Unary, exact: f64, size: f64| {
            let got = call(u, x);
            let room = size.abs() * 2f64.powi(-22) + 2f64.powi(-147);
            assert!((got as f64 - exact).abs() <= room, "{} of {x:e}: {got:e}, not {exact:e}", u.name());
        };
        near(Unary::Gelu, d * 0.5 * (1.0 + libm::erf(d / std::f64::consts::SQRT_2)), d);
        near(Unary::HardSwish, d * (d / 6.0 + 0.5).clamp(0.0, 1.0), d);
        near(Unary::HardSigmoid(F32(0.25), F32(0.5)), (d * 0.25 + 0.5).clamp(0.0, 1.0), 1.0);
        near(Unary::Softsign, d / (1.0 + d.abs()), d.abs().min(1.0));
        near(Unary::LeakyRelu(F32(0.25)), if d < 0.0 { d * 0.25 } else { d }, d);
        near(Unary::Clip(F32(-1.5), F32(2.5)), d.clamp(-1.5, 2.5), 0.0);
        near(Unary::Sign, if x == 0.0 { 0.0 } else { d.signum() }, 0.0);
        near(Unary::Round, d.round_ties_even(), 0.0);
        near(Unary::Floor, d.floor(), 0.0);
        near(Unary::Ceil, d.ceil(), 0.0);
        near(Unary::Abs, d.abs(), 0.0);
        if x.abs() > 1e-30 {
            near(Unary::Reciprocal, 1.0 / d, 1.0 / d);
        }
        if x >= 0.0 {
            near(Unary::Sqrt, d.sqrt(), d.sqrt());
        }
    }
    assert_eq!(call(Unary::Clip(F32(f32::NEG_INFINITY), F32(f32::INFINITY)), f32::MAX), f32::MAX);
    for u in [Unary::Sign, Unary::Clip(F32(0.0), F32(1.0)), Unary::HardSwish, Unary::LeakyRelu(F32(0.1))] {
        assert!(call(u, f32::NAN).is_nan(), "{}", u.name());
    }
}

#[test]
fn prelu_and_comparisons() {
    let b = |op, a: f32, b: f32| binary(&mut Eval, op, a.to_bits(), b.to_bits());
    assert_eq!(f32::from_bits(b(Binary::PRelu, -3.0, 0.5)), -1.5);
    assert_eq!(f32::from_bits(b(Binary::PRelu, 3.0, 0.5)), 3.0);
    assert_eq!((b(Binary::Greater, 2.0, 1.0), b(Binary::Greater, 1.0, 1.0)), (1, 0));
    assert_eq!((b(Binary::GreaterEqual, 1.0, 1.0), b(Binary::GreaterEqual, f32::NAN, 1.0)), (1, 0));
    assert_eq!((b(Binary::LessEqual, 1.0, 1.0), b(Binary::Less, 1.0, 1.0)), (1, 0));
}

#[test]
fn pow_special_cases_are_those_of_ieee_754() {
    let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 16_777_217.0, 1e-40, 1e38, f32::INFINITY, f32::NAN];
    let values: Vec<f32> = values.iter().flat_map(|v| [*v, -*v]).collect();
    for &a in &values {
        for &b in &values {
            let (got, exact) = (pow(a, b), (a as f64).powf(b as f64));
            assert!(ulp(got, exact) <= 1.0, "pow({a:e}, {b:e}) = {got:e}, not {exact:e}");
            if exact == 0.0 {
                assert_eq!(got.is_sign_negative(), exact.is_sign_negative(), "sign of pow({a:e}, {b:e})");
            }
        }
    }
}

#[test]
fn pow_accuracy() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let mut worst = (0.0, 0.0, 0.0);
    for i in 0..1_000_000 {
        let a = match i % 3 {
            0 => f32::from_bits(next() & 0x7fff_ffff),
            1 => next() as f32 / 2f32.powi(31),
            _ => f32::from_bits(0x3f7f_0000 + next() % 0x2_0000),
        };
        let b = match next() % 4 {
            0 => f32::from_bits(next()),
            1 => (next() % 64) as f32 - 32.0,
            // Anywhere in the range where the result is finite.
            2 => ((next() as f64 / 2f64.powi(31) - 1.0) * 104.0 / (a as f64).ln()) as f32,
            _ => next() as f32 / 2f32.powi(28) - 8.0,
        };
        let error = ulp(pow(a, b), (a as f64).powf(b as f64));
        if error > worst.0 || error.is_nan() {
            worst = (error, a, b);
        }
    }
    println!("pow: {:.3} ULP at {:e}, {:e}", worst.0, worst.1, worst.2);
    assert!(worst.0 <= 5.0, "{} ULP at pow({:e}, {:e})", worst.0, worst.1, worst.2);
    for x in patterns().filter(|x| *x > 0.0) {
        assert_eq!(pow(x, 2.0), x * x);
        assert_eq!(pow(-x, 2.0), x * x);
        assert_eq!(pow(x, 0.5), x.sqrt());
        assert_eq!(pow(-x, -1.0), -1.0 / x);
        assert_eq!(pow(-x, 1.0), -x);
    }
}
