//! Constant arrays and literals.

use super::writer::Writer;
use mcc_ir::Tensor;
use mcc_ir::dtype::DType;

/// The C type of an element; `bool` is a byte of 0 or 1, and half-precision types are their bits.
pub fn c_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F16 | DType::BF16 => "uint16_t",
        DType::I64 => "int64_t",
        DType::I32 => "int32_t",
        DType::I16 => "int16_t",
        DType::I8 => "int8_t",
        DType::U8 | DType::Bool => "uint8_t",
        // Packed types are bytes of several elements.
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::B1 | DType::T2 => "uint8_t",
    }
}

/// An exact literal of a finite float, in hexadecimal.
pub fn float(x: f32) -> Option<String> {
    if !x.is_finite() {
        return None;
    }
    let bits = x.to_bits();
    let sign = if bits >> 31 != 0 { "-" } else { "" };
    let (exponent, mantissa) = ((bits >> 23 & 255) as i32, bits & 0x7f_ffff);
    Some(match (exponent, mantissa) {
        (0, 0) => format!("{sign}0.0f"),
        _ if x.fract() == 0.0 && x.abs() < 1e7 => format!("{sign}{}.0f", x.abs()),
        _ => {
            let (lead, exponent) = if exponent == 0 { (0, -126) } else { (1, exponent - 127) };
            let digits = format!("{:06x}", mantissa << 1);
            let digits = digits.trim_end_matches('0');
            let point = if digits.is_empty() { "" } else { "." };
            format!("{sign}0x{lead}{point}{digits}p{exponent:+}f")
        }
    })
}

/// An `int32_t` literal; the smallest value has no plain literal in C.
pub fn int(v: i64) -> String {
    if v == i32::MIN as i64 { "INT32_MIN".into() } else { v.to_string() }
}

/// A named constant array and how expressions refer to it.
pub struct Array {
    /// A pointer to its first element, of type `const c_type *`.
    pub pointer: String,
    pub definition: String,
}

/// The macro that says where a model's constants are placed.
pub fn section(model: &str) -> String {
    format!("{}_CONST_SECTION", model.to_uppercase())
}

/// Its definition, for those who have not given one.
pub fn section_macro(model: &str) -> String {
    let section = section(model);
    format!(
        "\n/* Stands before every constant array. Define it to place them, such as\n \
         * -D'{section}=__attribute__((section(\".weights\")))'. */\n#ifndef {section}\n#define {section}\n#endif\n"
    )
}

/// Defines an array of a tensor's elements under `name`, behind the macro `section`. An empty tensor keeps one element, as
/// C has no empty arrays.
pub fn array(section: &str, name: &str, tensor: &Tensor, alignment: usize, origin: &str) -> Array {
    let dtype = tensor.dtype();
    // Infinities and NaNs have no constant expression: then the bits are stored.
    let finite: Option<Vec<String>> = match dtype {
        DType::F32 => tensor.to_f32().into_iter().map(float).collect(),
        _ => None,
    };
    let bits = dtype == DType::F32 && finite.is_none();
    let (ty, mut elements) = match dtype {
        DType::F32 if bits => ("uint32_t", words::<4>(tensor).map(|w| format!("{w}u")).collect()),
        DType::F16 | DType::BF16 => ("uint16_t", words::<2>(tensor).map(|w| format!("{w}u")).collect()),
        DType::F32 => ("float", finite.unwrap_or_default()),
        DType::I64 => ("int64_t", tensor.to_i64().into_iter().map(wide).collect()),
        d if d.is_byte_sized() => (c_type(d), tensor.to_i64().into_iter().map(int).collect()),
        d => (c_type(d), tensor.bytes().iter().map(u8::to_string).collect::<Vec<_>>()),
    };
    if elements.is_empty() {
        elements.push("0".into());
    }
    // C refuses less than what the element type has.
    let alignment = alignment.max(tensor.dtype().bits() / 8);
    let mut w = Writer::default();
    w.line(format!("/* {origin}: {} */", tensor.ty()));
    w.line(format!("{section} _Alignas({alignment}) static const {ty} {name}[{}] = {{", elements.len()));
    let mut line = String::from("   ");
    for e in elements {
        if line.len() + e.len() + 2 > 120 {
            w.line(&line);
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(&e);
        line.push(',');
    }
    w.line(line);
    w.line("};");
    let pointer = if bits { format!("((const float *)(const void *){name})") } else { name.into() };
    Array { pointer, definition: w.finish() }
}

/// The elements as unsigned words of N bytes.
fn words<const N: usize>(tensor: &Tensor) -> impl Iterator<Item = u32> + '_ {
    tensor.bytes().chunks_exact(N).map(|b| b.iter().rev().fold(0, |w, &b| w << 8 | b as u32))
}

fn wide(v: i64) -> String {
    if v == i64::MIN { "INT64_MIN".into() } else { format!("INT64_C({v})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_exact() {
        for (x, text) in [
            (0.0, "0.0f"),
            (-0.0, "-0.0f"),
            (1.5, "0x1.8p+0f"),
            (-3.0, "-3.0f"),
            (0.1, "0x1.99999ap-4f"),
            (f32::MIN_POSITIVE / 2.0, "0x0.8p-126f"),
            (f32::MAX, "0x1.fffffep+127f"),
            (1e7, "0x1.312dp+23f"),
        ] {
            assert_eq!(float(x).unwrap(), text);
        }
        assert_eq!(float(f32::NAN), None);
    }

    #[test]
    fn arrays_hold_what_c_cannot_spell() {
        let t = Tensor::new([2], &[f32::INFINITY, 1.0]);
        let a = array("S", "m_c0", &t, 4, "w");
        assert!(
            a.definition.contains("S _Alignas(4) static const uint32_t m_c0[2]")
                && a.definition.contains("2139095040u, 1065353216u,")
        );
        assert_eq!(a.pointer, "((const float *)(const void *)m_c0)");
        assert!(array("S", "m_c0", &Tensor::new([1], &[7i64]), 4, "w").definition.contains("_Alignas(8)"));
        assert!(array("S", "m_c0", &Tensor::new([1], &[i32::MIN]), 4, "w").definition.contains("INT32_MIN"));
        assert!(array("S", "m_c0", &Tensor::new::<i8>([0], &[]), 4, "w").definition.contains("m_c0[1] = {"));
    }
}
