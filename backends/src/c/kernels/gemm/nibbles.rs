//! Products with weights of four bits.
//!
//! The portable form unpacks each weight once for the pixels of a block. The DSP forms multiply by what is stored, the
//! weight less the lowest one, and add that lowest one times the sum of the row's values, which all channels share. So
//! unpacking a pair is one AND with a shifted word. Where the sums stay small enough, four channels share half-words, and
//! the AND takes the place of the sign extension of bytes ([`crate::c::fours`]).

use super::{Form, Gemm, sum};
use crate::c::kernels::{Style, Template, affine, nibbles, offset, plus};
use crate::c::writer::Writer;
use mcc_ir::costs::Work;

/// Adds the sums of rows that [`sums`] makes.
pub fn sums_work(work: Work, g: &Gemm) -> Work {
    match (g.form, g.style) {
        (Form::Fours, _) | (Form::Nibbles, Style::Dsp) => {
            work.and("row sums", g.pixels as f64).and("summed", (g.pixels * g.padded()) as f64)
        }
        _ => work,
    }
}

/// The names of what [`sums`] computes for each of `n` rows.
pub fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("low{i}")).collect()
}

/// Computes what the lowest weight adds to the sums of `n` rows from `from` on, where that is needed: then in a block that
/// it opens, and true.
pub fn sums(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, from: &str, n: usize) -> bool {
    let low = match g.form {
        Form::Fours => -8,
        Form::Nibbles if g.style == Style::Dsp => low(t),
        _ => return false,
    };
    w.block_open();
    let row_sum = t.helpers.get("row_sum");
    for (i, name) in names(n).iter().enumerate() {
        let from = plus(from, 2 * i);
        w.line(format!("const int32_t {name} = {row_sum}({from}, {}, {}, {low});", g.padded() / 4, g.steps().1));
    }
    true
}

fn low(t: &Template<'_>) -> i32 {
    nibbles::low(t.consts[1]).expect("offered only where the weights fit")
}

/// One block: `n` pixels from `p` on times `m` channels from `c` on.
pub fn products(
    t: &mut Template<'_>,
    w: &mut Writer,
    g: &Gemm,
    from: &str,
    (p, n): (&str, usize),
    (c, m): (&str, usize),
) {
    let (row_type, _) = g.row_type();
    let (_, block) = g.block();
    let weights = t.arg(1);
    // Blocks begin at whole bytes: their channels are a multiple of two.
    let at = match (g.padded() % 2, c.parse::<usize>()) {
        (0, _) => affine(g.padded() / 2, c, 0),
        (_, Ok(c)) => (c * g.padded() / 2).to_string(),
        _ => format!("{c} * {} / 2", g.padded()),
    };
    w.line(format!("const {row_type} *a = {from};"));
    w.line(format!("const uint8_t *w = {};", sum(&weights, &at)));
    for j in 0..m {
        let start = t.start(g.bias, c, j, false);
        for (i, low) in names(n).iter().enumerate() {
            let start = match g.style {
                Style::Dsp => format!("{}({start}, {low})", t.helpers.get("add")),
                _ => start.clone(),
            };
            w.line(format!("int32_t s{i}{j} = {start};"));
        }
    }
    let (_, step) = g.steps();
    let step = step * g.group().div_ceil(4);
    w.open(format!(
        "for (int32_t k = 0; k < {}; k++, a += {step}, w += {})",
        g.padded() / g.group(),
        g.group() * block / 2
    ));
    match g.style {
        Style::Dsp => octets(t, w, g, (n, m)),
        _ => plain(t, w, g, (n, m)),
    }
    w.close();
    for i in 0..n {
        for j in 0..m {
            t.store(w, &format!("s{i}{j}"), (p, i), (c, j));
        }
    }
}

/// Eight values of each row times eight weights of each channel.
fn octets(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, (n, m): (usize, usize)) {
    let (load, smlad) = (t.helpers.get("load_4"), t.helpers.get("smlad"));
    for j in 0..m {
        w.line(format!("const uint32_t q{j} = {load}({});", plus("w", 4 * j)));
    }
    for pair in 0..4 {
        w.block_open();
        for i in 0..n {
            let at = pair / 2 * g.steps().1 + 2 * i + pair % 2;
            w.line(format!("const uint32_t a{i} = a[{at}];"));
        }
        for j in 0..m {
            let shifted = if pair == 0 { format!("q{j}") } else { format!("q{j} >> {}", 4 * pair) };
            w.line(format!("const uint32_t w{j} = {shifted} & 0x000f000fu;"));
            for i in 0..n {
                w.line(format!("s{i}{j} = {smlad}(w{j}, a{i}, s{i}{j});"));
            }
        }
        w.close();
    }
}

/// One value of each row times one weight of each channel.
fn plain(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, (n, m): (usize, usize)) {
    let (mac, low) = (t.helpers.get("mac"), low(t));
    for i in 0..n {
        w.line(format!("const int32_t a{i} = a[{}];", i * g.padded()));
    }
    for j in 0..m {
        let half = if j % 2 == 0 { format!("(w[{}] & 15)", j / 2) } else { format!("(w[{}] >> 4)", j / 2) };
        w.line(format!("const int32_t w{j} = {};", offset(half, low)));
        for i in 0..n {
            w.line(format!("s{i}{j} = {mac}(s{i}{j}, a{i}, w{j});"));
        }
    }
}
