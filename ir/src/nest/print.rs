//! Prints loop nests as pseudo-code, to be read; there is no parser.
//!
//! Arguments are `a0, a1, ...`, tables `t0, ...`, the output is `out`; loop variables are `i0, ...`, registers `r0, ...`.
//! Operators stand for floats and integers alike, by the type of what they join; functions have the names of the scalar
//! language.

use super::{Bound, Expr, Index, Nest, Stmt};
use crate::scalar::{BinOp, ScalarType, UnOp};
use crate::types::F32;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Index {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        index(f, self, &|f, e| write!(f, "{}", ExprText { nest: None, e }))
    }
}

impl Display for Nest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("nest(")?;
        for (i, ty) in self.args.iter().enumerate() {
            write!(f, "{}{}: {ty}", if i > 0 { ", " } else { "" }, argument(Some(self), i))?;
        }
        f.write_str(") {\n")?;
        block(f, self, &self.body, 1)?;
        f.write_str("}\n")
    }
}

fn argument(nest: Option<&Nest>, arg: usize) -> String {
    match nest {
        Some(n) if arg == n.output() => "out".into(),
        Some(n) if arg >= n.inputs => format!("t{}", arg - n.inputs),
        _ => format!("a{arg}"),
    }
}

fn block(f: &mut Formatter<'_>, nest: &Nest, body: &[Stmt], depth: usize) -> fmt::Result {
    let text = |e| ExprText { nest: Some(nest), e };
    for stmt in body {
        for _ in 0..depth {
            f.write_str("    ")?;
        }
        match stmt {
            Stmt::For { var, extent, body } => {
                writeln!(f, "for i{} in 0..{extent} {{", var.0)?;
                block(f, nest, body, depth + 1)?;
                for _ in 0..depth {
                    f.write_str("    ")?;
                }
                f.write_str("}\n")?;
            }
            Stmt::Let { reg, value } => {
                let ty = match nest.regs.get(reg.0 as usize) {
                    Some(ScalarType::F32) => "f32",
                    Some(ScalarType::I32) => "i32",
                    None => "?",
                };
                writeln!(f, "let r{}: {ty} = {}", reg.0, text(value))?;
            }
            Stmt::Set { reg, value } => writeln!(f, "r{} = {}", reg.0, text(value))?,
            Stmt::Store { arg, index, value } => {
                writeln!(
                    f,
                    "{}[{}] = {}",
                    argument(Some(nest), *arg),
                    IndexText { nest: Some(nest), index },
                    text(value)
                )?;
            }
        }
    }
    Ok(())
}

struct IndexText<'a> {
    nest: Option<&'a Nest>,
    index: &'a Index,
}

impl Display for IndexText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        index(f, self.index, &|f, e| write!(f, "{}", ExprText { nest: self.nest, e }))
    }
}

/// `28*i0 + i1 - 29`, the computed part last.
fn index(
    f: &mut Formatter<'_>,
    index: &Index,
    computed: &dyn Fn(&mut Formatter<'_>, &Expr) -> fmt::Result,
) -> fmt::Result {
    let mut first = true;
    for &(var, k) in &index.terms {
        let sign = match (first, k < 0) {
            (true, true) => "-",
            (true, false) => "",
            (false, true) => " - ",
            (false, false) => " + ",
        };
        f.write_str(sign)?;
        if k.unsigned_abs() != 1 {
            write!(f, "{}*", k.unsigned_abs())?;
        }
        write!(f, "i{}", var.0)?;
        first = false;
    }
    match (first, index.base) {
        (true, 0) if index.dynamic.is_some() => {}
        (true, base) => {
            write!(f, "{base}")?;
            first = false;
        }
        (false, 0) => {}
        (false, base) => write!(f, " {} {}", if base < 0 { '-' } else { '+' }, base.unsigned_abs())?,
    }
    match &index.dynamic {
        Some(d) => {
            if !first {
                f.write_str(" + ")?;
            }
            computed(f, d)
        }
        None => Ok(()),
    }
}

struct ExprText<'a> {
    nest: Option<&'a Nest>,
    e: &'a Expr,
}

impl ExprText<'_> {
    fn sub<'b>(&'b self, e: &'b Expr) -> ExprText<'b> {
        ExprText { nest: self.nest, e }
    }
}

impl Display for ExprText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.e {
            Expr::F32(v) => write!(f, "{}", F32(*v)),
            Expr::I32(v) => write!(f, "{v}"),
            Expr::Reg(r) => write!(f, "r{}", r.0),
            Expr::Index(index) => write!(f, "({})", IndexText { nest: self.nest, index }),
            Expr::Load { arg, index } => {
                write!(f, "{}[{}]", argument(self.nest, *arg), IndexText { nest: self.nest, index })
            }
            Expr::Un(op, a) => match op {
                UnOp::NegF | UnOp::NegI => write!(f, "-{}", self.sub(a)),
                UnOp::NotI => write!(f, "!{}", self.sub(a)),
                UnOp::AbsF => write!(f, "abs({})", self.sub(a)),
                UnOp::SqrtF => write!(f, "sqrt({})", self.sub(a)),
                UnOp::FloorF => write!(f, "floor({})", self.sub(a)),
                UnOp::CeilF => write!(f, "ceil({})", self.sub(a)),
                UnOp::RoundF => write!(f, "round({})", self.sub(a)),
                UnOp::RoundToI => write!(f, "round_to_i32({})", self.sub(a)),
                UnOp::TruncToI => write!(f, "trunc_to_i32({})", self.sub(a)),
                UnOp::ToF => write!(f, "to_f32({})", self.sub(a)),
                UnOp::BitsOfF => write!(f, "bits_of({})", self.sub(a)),
                UnOp::FOfBits => write!(f, "f32_of_bits({})", self.sub(a)),
            },
            Expr::Bin(op, a, b) => {
                let (a, b) = (self.sub(a), self.sub(b));
                match binary(*op) {
                    Ok(infix) => write!(f, "({a} {infix} {b})"),
                    Err(name) => write!(f, "{name}({a}, {b})"),
                }
            }
            Expr::Select(e) => write!(f, "select({}, {}, {})", self.sub(&e[0]), self.sub(&e[1]), self.sub(&e[2])),
            Expr::Guard { bounds, then, other } => {
                f.write_str("(if ")?;
                for (i, Bound { index, extent }) in bounds.iter().enumerate() {
                    f.write_str(if i > 0 { " and " } else { "" })?;
                    write!(f, "0 <= {} < {extent}", IndexText { nest: self.nest, index })?;
                }
                write!(f, " then {} else {}", self.sub(then), self.sub(other))?;
                f.write_char(')')
            }
        }
    }
}

/// The sign between the arguments, or else the name of the function.
fn binary(op: BinOp) -> Result<&'static str, &'static str> {
    match op {
        BinOp::AddF | BinOp::AddI => Ok("+"),
        BinOp::SubF | BinOp::SubI => Ok("-"),
        BinOp::MulF | BinOp::MulI => Ok("*"),
        BinOp::DivF | BinOp::DivI => Ok("/"),
        BinOp::MinF | BinOp::MinI => Err("min"),
        BinOp::MaxF | BinOp::MaxI => Err("max"),
        BinOp::ShlI => Ok("<<"),
        BinOp::ShrI => Ok(">>"),
        BinOp::ShrU => Ok(">>>"),
        BinOp::AndI => Ok("&"),
        BinOp::OrI => Ok("|"),
        BinOp::XorI => Ok("^"),
        BinOp::EqF | BinOp::EqI => Ok("=="),
        BinOp::LtF | BinOp::LtI => Ok("<"),
        BinOp::LeF | BinOp::LeI => Ok("<="),
        BinOp::MulHighRound => Err("mul_high_round"),
    }
}

#[cfg(test)]
mod tests {
    use crate::dtype::DType;
    use crate::op::*;
    use crate::ops;
    use crate::types::TensorType;

    #[test]
    fn a_padded_convolution_reads_well() {
        let [x, w] = [[1, 3, 1, 1], [1, 3, 1, 1]].map(|s| TensorType::new(DType::F32, s));
        let op = Op::Conv2d(Conv2d {
            layout: Layout::Nhwc,
            stride: [1, 1],
            pad: [1, 0, 1, 0],
            dilation: [1, 1],
            groups: 1,
            pad_value: 0,
            bias: false,
            post: vec![Step::Unary(Unary::Relu)],
        });
        let out = ops::infer(&op, &[&x, &w]).unwrap();
        let text = ops::nest(&op, &[&x, &w], &out).unwrap().to_string();
        let expected = "\
nest(a0: f32[1x3x1x1], a1: f32[1x3x1x1], out: f32[1x3x1x1]) {
    for i0 in 0..3 {
        let r0: f32 = 0.0
        for i1 in 0..3 {
            r0 = (r0 + ((if 0 <= i0 + i1 - 1 < 3 and 0 <= 0 < 1 then a0[i0 + i1 - 1] else 0.0) * a1[i1]))
        }
        out[i0] = max(r0, 0.0)
    }
}
";
        assert_eq!(text, expected);
    }
}
