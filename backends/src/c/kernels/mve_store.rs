//! What becomes of the sums of the Helium kernels: epilogues in vectors, where there is a form for them.

use super::{Template, plus};
use crate::c::consts;
use crate::c::writer::Writer;
use mcc_ir::dtype::DType;
use mcc_ir::op::{Binary, Op, Rounding, Step, Unary};
use mcc_ir::types::{QuantParams, TensorType};

/// An epilogue that has a form in vectors.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    /// Sums become 8 bits by a scale, which is the first operand.
    Scale(Clamp),
    /// Then a second operand of the output's shape is added, both being real numbers by their scales.
    Add { first: Clamp, scale: f32, other: QuantParams, last: QuantParams, clamp: Clamp },
}

/// Moved by `zero`, clamped to `lo..=hi`.
#[derive(Clone, Copy, Debug)]
pub struct Clamp {
    pub zero: i32,
    pub lo: i32,
    pub hi: i32,
}

impl Epilogue {
    /// The form of an operator's epilogue; `None` where it has to go element by element.
    pub fn of(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<Epilogue> {
        let (post, own) = (op.post()?, op.own_inputs()?);
        let (Step::Requant { rounding: Rounding::F32HalfEven, zero, lo, hi, dtype: DType::I8 }, rest) =
            post.split_first()?
        else {
            return None;
        };
        let channels = *out.shape.last()?;
        let scales = arg_types.get(own)?.elements();
        if scales != 1 && scales != channels {
            return None;
        }
        let first = Clamp { zero: *zero, lo: *lo, hi: *hi };
        // Intermediate values saturate at 16 bits.
        let small = |c: Clamp| c.zero.abs() <= 255 && c.lo <= c.hi;
        if rest.is_empty() {
            return small(first).then_some(Epilogue::Scale(first));
        }
        let (q, other, relu, last, mut clamp) = match rest {
            [Step::Dequant(q), Step::Binary { op: Binary::Add, dequant: Some(other), .. }, relu @ .., last] => {
                let Step::Quant { q: last, lo, hi, dtype: DType::I8 } = last else { return None };
                (q, *other, relu, *last, Clamp { zero: last.zero_point, lo: *lo, hi: *hi })
            }
            _ => return None,
        };
        match relu {
            [] => {}
            // What is not negative is not below zero after rounding either.
            [Step::Unary(Unary::Relu)] if clamp.zero <= clamp.hi => clamp.lo = clamp.lo.max(clamp.zero),
            _ => return None,
        }
        let operand = arg_types.get(own + 1)?;
        let fits = operand.dtype == DType::I8 && operand.elements() == out.elements() && q.zero_point == first.zero;
        let e = Epilogue::Add { first, scale: q.scale.0, other, last, clamp };
        (fits && small(first) && small(clamp) && e.is_exact()).then_some(e)
    }

    /// Whether an addition's quotient by way of the reciprocal is the quotient, for all operands.
    fn is_exact(&self) -> bool {
        let Epilogue::Add { first, scale, other, last, clamp } = *self else { return true };
        // Far from where vectors flush small numbers to zero.
        let usual = |s: f32| (1e-12..1e12).contains(&s);
        if !usual(scale) || !usual(other.scale.0) || !usual(last.scale.0) {
            return false;
        }
        let inverse = 1.0 / last.scale.0;
        let rounded = |x: f32| (x.round_ties_even() as i32).clamp(clamp.lo - clamp.zero, clamp.hi - clamp.zero);
        (first.lo..=first.hi).all(|a| {
            let a = (a - first.zero) as f32 * scale;
            (-128..=127).all(|b| {
                let x = a + (b - other.zero_point) as f32 * other.scale.0;
                let q = x * inverse;
                let corrected = q.mul_add(-last.scale.0, x).mul_add(inverse, q);
                rounded(corrected) == rounded(x / last.scale.0)
            })
        })
    }

    /// Factors by which an addition is two products, a * f0 + (b * f1 + f2) with each rounded once, b being the other tensor
    /// as it is stored: found by trying all operands. The literal form rounds more often, mostly without effect.
    fn factors(&self) -> Option<[f32; 3]> {
        let Epilogue::Add { first, scale, other, last, clamp } = *self else { return None };
        let rounded = |x: f32| (x.round_ties_even() as i32).clamp(clamp.lo - clamp.zero, clamp.hi - clamp.zero);
        let pairs = || (first.lo..=first.hi).flat_map(|a| (-128..=127).map(move |b| (a - first.zero, b)));
        let wanted: Vec<i32> = pairs()
            .map(|(a, b)| rounded((a as f32 * scale + (b - other.zero_point) as f32 * other.scale.0) / last.scale.0))
            .collect();
        let ratio = |s: f32, ulps: i32| f32::from_bits(((s / last.scale.0).to_bits() as i32 + ulps) as u32);
        let mut ulps: Vec<[i32; 2]> = (-2..=2).flat_map(|i| (-2..=2).map(move |j| [i, j])).collect();
        ulps.sort_by_key(|[i, j]| i.abs().max(j.abs()));
        ulps.into_iter().find_map(|[i, j]| {
            let (a_factor, b_factor) = (ratio(scale, i), ratio(other.scale.0, j));
            let offset = -(other.zero_point as f32) * b_factor;
            let sum = |a: i32, b: i32| (a as f32).mul_add(a_factor, (b as f32).mul_add(b_factor, offset));
            let fits = pairs().zip(&wanted).all(|((a, b), wanted)| rounded(sum(a, b)) == *wanted);
            fits.then_some([a_factor, b_factor, offset])
        })
    }

    /// Instructions for each output.
    pub fn instructions(epilogue: Option<Epilogue>, whole: bool) -> f64 {
        match epilogue {
            Some(Epilogue::Scale(_)) if whole => 1.9,
            Some(Epilogue::Scale(_)) => 3.0,
            Some(Epilogue::Add { .. }) if whole => 3.9,
            _ => 25.0,
        }
    }
}

/// Where a tile's sums lie, and what they are of.
pub struct Tile {
    /// The first output pixel of the tile, a C expression that binds as an addition.
    pub pixel: String,
    /// Lines, a C expression; the pixels wanted of each; and how many pixels further on the next line begins.
    pub lines: String,
    pub width: String,
    pub pitch: usize,
    /// Blocks of four pixels of a line, wanted or not.
    pub blocks: usize,
    /// Sums of a channel pair: where those of the other pair begin.
    pub plane: usize,
    /// Whether the lines make one line of all pixels.
    pub flat: bool,
    pub channels: usize,
}

/// Prints the epilogue of `m` channels from `c` on, from `sums`: of each four pixels channels 0 and 2, in the other plane
/// channels 1 and 3.
pub fn print(t: &mut Template<'_>, w: &mut Writer, tile: &Tile, (c, m): (&str, usize)) {
    let k = t.kernel;
    let epilogue = Epilogue::of(&k.op, &k.arg_types, &k.out_type);
    let full = !matches!(epilogue, Some(Epilogue::Scale(c)) if (c.lo, c.hi) != (-128, 127));
    let whole = full && m == 4 && t.aligned[1] && tile.channels.is_multiple_of(4);
    let vector = match epilogue {
        Some(Epilogue::Scale(_)) => true,
        Some(Epilogue::Add { .. }) => whole,
        None => false,
    };
    if let Some(e) = epilogue.filter(|_| vector) {
        let mve = t.helpers.get("mve");
        w.line(format!("#if {mve}"));
        vectors(t, w, tile, e, (c, m), whole);
        w.line("#else");
    }
    let looped = !tile.flat;
    if looped {
        w.open_for("l", &tile.lines, 1);
        w.open_for("i", &tile.width, 1);
        w.line(format!("const int32_t p = {} + l * {} + i;", tile.pixel, tile.pitch));
        w.line(format!("const int32_t *const s = sums + l * {} + i / 4 * 8 + i % 4;", 8 * tile.blocks));
    } else {
        w.open_for("i", pixels(tile), 1);
        w.line(format!("const int32_t p = {} + i;", tile.pixel));
        w.line("const int32_t *const s = sums + i / 4 * 8 + i % 4;");
    }
    for j in 0..m {
        let at = j % 2 * tile.plane + j / 2 * 4;
        t.store(w, &format!("s[{at}]"), ("p", 0), (c, j));
    }
    w.close();
    if looped {
        w.close();
    }
    if vector {
        w.line("#endif");
    }
}

/// The pixels of a flat tile.
fn pixels(tile: &Tile) -> String {
    if tile.lines == "1" { tile.width.clone() } else { format!("{} * {}", tile.lines, tile.width) }
}

fn vectors(t: &mut Template<'_>, w: &mut Writer, tile: &Tile, e: Epilogue, (c, m): (&str, usize), whole: bool) {
    let k = t.kernel;
    let own = k.op.own_inputs().unwrap_or(0);
    let per_channel = k.arg_types[own].elements() > 1;
    let scales = t.arg(own);
    let scale = |j: usize| if per_channel { format!("{scales}[{}]", plus(c, j)) } else { format!("{scales}[0]") };
    let n = tile.channels;
    let (sums, pixel, count) = if tile.flat {
        ("sums".to_string(), tile.pixel.clone(), pixels(tile))
    } else {
        w.open_for("l", &tile.lines, 1);
        (format!("sums + l * {}", 8 * tile.blocks), format!("{} + l * {}", tile.pixel, tile.pitch), tile.width.clone())
    };
    let odd = format!("{sums} + {}", tile.plane);
    let at = |j: usize| match pixel.as_str() {
        "0" => plus(c, j),
        pixel if pixel.contains(' ') => format!("({pixel}) * {n} + {}", plus(c, j)),
        pixel => format!("{pixel} * {n} + {}", plus(c, j)),
    };
    if whole {
        w.block_open();
        let all = if per_channel {
            format!("{scales} + {c}")
        } else {
            w.line(format!("const float scale[4] = {{{}}};", vec![scale(0); 4].join(", ")));
            "scale".into()
        };
        match e {
            Epilogue::Scale(q) => {
                let store = t.helpers.get("store_4");
                let zero = q.zero;
                w.line(format!("{store}(out + {}, {n}, {sums}, {odd}, {all}, {zero}, {count});", at(0)));
            }
            Epilogue::Add { first, scale, other, last, clamp } => {
                let real = |x: f32| consts::float(x).expect("scales are finite");
                let bounds = [(first.lo - first.zero) as f32, (first.hi - first.zero) as f32];
                let operand = t.arg(own + 1);
                let to = format!("out + {0}, {operand} + {0}, {sums}, {odd}, {n}, {all}", at(0));
                let Clamp { zero, lo, hi } = clamp;
                if let Some(factors) = e.factors().filter(|_| (lo, hi) == (-128, 127)) {
                    let store = t.helpers.get("store_add_4");
                    let k: Vec<String> = bounds.into_iter().chain(factors).map(real).collect();
                    w.line(format!("static const float add[5] = {{{}}};", k.join(", ")));
                    w.line(format!("{store}({to}, add, {zero}, {count});"));
                } else {
                    let (store, ty) = (t.helpers.get("store_sum_4"), t.helpers.get("sum"));
                    let far = [scale, other.scale.0, last.scale.0, 1.0 / last.scale.0];
                    let floats: Vec<String> = bounds.into_iter().chain(far).map(real).collect();
                    let ints = format!("{}, {zero}, {lo}, {hi}", other.zero_point);
                    w.line(format!("static const {ty} add = {{{}, {ints}}};", floats.join(", ")));
                    w.line(format!("{store}({to}, &add, {count});"));
                }
            }
        }
        w.close();
    } else if let Epilogue::Scale(Clamp { zero, lo, hi }) = e {
        let store = t.helpers.get("store_1");
        for j in 0..m {
            let from = match j % 2 * tile.plane + j / 2 * 4 {
                0 => sums.clone(),
                more => format!("{sums} + {more}"),
            };
            w.line(format!("{store}(out + {}, {n}, {from}, {}, {zero}, {lo}, {hi}, {count});", at(j), scale(j)));
        }
    }
    if !tile.flat {
        w.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::types::F32;

    #[test]
    fn additions_are_exact_for_usual_scales() {
        let clamp = |zero| Clamp { zero, lo: -128, hi: 127 };
        let q = |scale: f32, zero_point| QuantParams { scale: F32(scale), zero_point };
        for i in 0..20 {
            let s = |k: f32| 0.01 + (i as f32 * k).fract() * 0.3;
            let (other, last) = (q(s(0.7), 3), q(s(0.37), -128));
            let e = Epilogue::Add { first: clamp(4), scale: s(0.13), other, last, clamp: clamp(-128) };
            assert!(e.is_exact(), "{e:?}");
        }
        // Those of a residual network.
        let (other, last) = (q(0.039_393_2, -128), q(0.050_945_7, -128));
        let e = Epilogue::Add { first: clamp(4), scale: 0.104_195_6, other, last, clamp: clamp(-128) };
        assert!(e.factors().is_some());
        let tiny =
            Epilogue::Add { first: clamp(0), scale: 1e-40, other: q(1e-40, 0), last: q(1e-40, 0), clamp: clamp(0) };
        assert!(!tiny.is_exact());
    }
}
