//! The small static functions that emitted C calls. Each is emitted only where it is used.
//!
//! Here are those that move data, and the list of all. Those on one scalar are in [`super::scalars`]; the texts with
//! assembly have rooms of their own. `$` stands for the model's name, `@N` for the number that a helper is made for, `@SHIFT`
//! for the bits below the point in a requantisation.

use super::dsp::{
    DOT_1X4_S8, DOT_1X4_U8, DOT_2X2, ROW_3, ROWS_3, TAPS_NIBBLES, TAPS_NIBBLES_S8, TAPS_NIBBLES_S16, TAPS_NIBBLES_U8,
    TAPS_S8, TAPS_S16, TAPS_U8,
};
use super::fours::{FOUR, FOURS_1X8, FOURS_2X4, ROW_SUM};
use super::kernels::rescale::SHIFT;
use super::lines::LINES;
use super::mve::{self, Sums};
use super::mve_depthwise::Planes;
use super::pairs::{ASSEMBLY, GROUP_1X8, PAIRS_1X8, PAIRS_2X4, ROW_PIECES, SHARED};
use super::quads::{LAYER, PIECES, QUADS, RESCALE, RUNS, WINDOW};
use super::scalars::SCALARS;
use super::winograd;
use std::collections::BTreeMap;

/// A static function of the emitted C.
pub struct Helper {
    pub name: &'static str,
    /// Helpers that it calls.
    pub needs: &'static [&'static str],
    pub text: &'static str,
}

/// Conditions of the preprocessor that several helpers share.
const MACROS: [(&str, &str); 5] = [
    ("@MVE", "defined(__GNUC__) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)"),
    ("@ARM_FP", "defined(__GNUC__) && defined(__ARM_FP) && (__ARM_FP & 4)"),
    ("@THUMB_DSP", "defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__thumb2__)"),
    ("@ARM_DSP", "defined(__GNUC__) && defined(__ARM_FEATURE_DSP)"),
    ("@SSE", "defined(__GNUC__) && defined(__SSE__)"),
];

/// The helpers that move data and multiply many values at a time, in an order in which each comes after what it needs.
const HELPERS: &[Helper] = &[
    Helper {
        name: "load_4",
        needs: &[],
        text: "
/* Four bytes at any address. */
static inline uint32_t $_load_4(const void *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}",
    },
    Helper {
        name: "sxtb16",
        needs: &[],
        text: "
/* Bytes 0 and 2 of a word as signed half-words; bytes 1 and 3. */
static inline uint32_t $_sxtb16(uint32_t word) {
#if @ARM_DSP
    uint32_t r;
    __asm__(\"sxtb16 %0, %1\" : \"=r\"(r) : \"r\"(word));
    return r;
#else
    const uint32_t low = (uint32_t)(int32_t)(int8_t)(word & 255u) & 0xffffu;
    return low | (uint32_t)(int32_t)(int8_t)(word >> 16 & 255u) << 16;
#endif
}

static inline uint32_t $_sxtb16_ror8(uint32_t word) {
#if @ARM_DSP
    uint32_t r;
    __asm__(\"sxtb16 %0, %1, ror #8\" : \"=r\"(r) : \"r\"(word));
    return r;
#else
    return $_sxtb16(word >> 8);
#endif
}",
    },
    Helper {
        name: "uxtb16",
        needs: &[],
        text: "
/* Bytes 0 and 2 of a word as unsigned half-words; bytes 1 and 3. */
static inline uint32_t $_uxtb16(uint32_t word) {
    return word & 0x00ff00ffu;
}

static inline uint32_t $_uxtb16_ror8(uint32_t word) {
    return word >> 8 & 0x00ff00ffu;
}",
    },
    Helper {
        name: "smlad",
        needs: &[],
        text: "
/* sum + a.low * b.low + a.high * b.high on signed half-words, wrapping. */
static inline int32_t $_smlad(uint32_t a, uint32_t b, int32_t sum) {
#if @ARM_DSP
    int32_t r;
    __asm__(\"smlad %0, %1, %2, %3\" : \"=r\"(r) : \"r\"(a), \"r\"(b), \"r\"(sum));
    return r;
#else
    const int32_t low = (int32_t)(int16_t)(a & 0xffffu) * (int16_t)(b & 0xffffu);
    const int32_t high = (int32_t)(int16_t)(a >> 16) * (int16_t)(b >> 16);
    return (int32_t)((uint32_t)sum + (uint32_t)low + (uint32_t)high);
#endif
}",
    },
    Helper {
        name: "widen_s8",
        needs: &["load_4", "sxtb16"],
        text: "
/* n bytes as pairs of half-words: of each four, 0 and 2, then 1 and 3; step words between fours; 4 divides n. */
static inline uint32_t *$_widen_s8(uint32_t *to, const int8_t *from, int32_t n, int32_t step) {
    for (; n >= 16; n -= 16, from += 16) {
        const uint32_t a = $_load_4(from), b = $_load_4(from + 4), c = $_load_4(from + 8), d = $_load_4(from + 12);
        to[0] = $_sxtb16(a);
        to[1] = $_sxtb16_ror8(a);
        to += step;
        to[0] = $_sxtb16(b);
        to[1] = $_sxtb16_ror8(b);
        to += step;
        to[0] = $_sxtb16(c);
        to[1] = $_sxtb16_ror8(c);
        to += step;
        to[0] = $_sxtb16(d);
        to[1] = $_sxtb16_ror8(d);
        to += step;
    }
    for (; n > 0; n -= 4, from += 4) {
        const uint32_t a = $_load_4(from);
        to[0] = $_sxtb16(a);
        to[1] = $_sxtb16_ror8(a);
        to += step;
    }
    return to;
}",
    },
    Helper {
        name: "widen_u8",
        needs: &["load_4", "uxtb16"],
        text: "
/* n bytes as pairs of half-words: of each four, 0 and 2, then 1 and 3; step words between fours; 4 divides n. */
static inline uint32_t *$_widen_u8(uint32_t *to, const uint8_t *from, int32_t n, int32_t step) {
    for (; n > 0; n -= 4, from += 4) {
        const uint32_t a = $_load_4(from);
        to[0] = $_uxtb16(a);
        to[1] = $_uxtb16_ror8(a);
        to += step;
    }
    return to;
}",
    },
    Helper {
        name: "split",
        needs: &[],
        text: "
/* The low half-words of a and b to to[0], their high ones to to[distance]. */
static inline void $_split(uint32_t *to, uint32_t a, uint32_t b, int32_t distance) {
#if @ARM_DSP
    uint32_t low;
    __asm__(\"pkhbt %0, %1, %2, lsl #16\" : \"=r\"(low) : \"r\"(a), \"r\"(b));
    __asm__(\"pkhtb %0, %0, %1, asr #16\" : \"+r\"(b) : \"r\"(a));
    to[0] = low;
    to[distance] = b;
#else
    to[0] = (a & 0xffffu) | b << 16;
    to[distance] = a >> 16 | (b & 0xffff0000u);
#endif
}",
    },
    Helper {
        name: "widen_s16",
        needs: &["load_4", "split"],
        text: "
/* n half-words as widened bytes are laid out: of each four, 0 and 2, then 1 and 3; step words between fours; 4 divides n. */
static inline uint32_t *$_widen_s16(uint32_t *to, const int16_t *from, int32_t n, int32_t step) {
    for (; n > 0; n -= 4, from += 4, to += step) {
        $_split(to, $_load_4(from), $_load_4(from + 2), 1);
    }
    return to;
}",
    },
    Helper {
        name: "fill_s16",
        needs: &[],
        text: "
static inline void $_fill_s16(int16_t *to, int16_t value, int32_t n) {
    for (; n > 0; n--) {
        *to++ = value;
    }
}",
    },
    Helper {
        name: "fill_pairs",
        needs: &[],
        text: "
/* n half-words of one value, laid out as widened bytes are. */
static inline uint32_t *$_fill_pairs(uint32_t *to, uint32_t pair, int32_t n, int32_t step) {
    for (; n > 0; n -= 4) {
        to[0] = pair;
        to[1] = pair;
        to += step;
    }
    return to;
}",
    },
    Helper {
        name: "move_words",
        needs: &[],
        text: "
/* n words to a lower address; 4 divides n. */
static inline void $_move_words(uint32_t *to, const uint32_t *from, int32_t n) {
    for (; n > 0; n -= 4, to += 4, from += 4) {
        const uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
#if defined(__GNUC__)
        /* Else compilers call memmove, which may go byte by byte. */
        __asm__ volatile(\"\" : : : \"memory\");
#endif
    }
}",
    },
    Helper {
        name: "fill_halves",
        needs: &[],
        text: "
/* n half-words of one value. */
static inline void $_fill_halves(int16_t *to, int32_t value, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        to[i] = (int16_t)value;
    }
}",
    },
    Helper {
        name: "spread_s8",
        needs: &["load_4", "sxtb16"],
        text: "
/* n bytes as half-words in their order. */
static inline void $_spread_s8(int16_t *to, const int8_t *from, int32_t n) {
    for (; n >= 4; n -= 4, to += 4, from += 4) {
        const uint32_t word = $_load_4(from), even = $_sxtb16(word), odd = $_sxtb16_ror8(word);
        const uint32_t all[2] = {(even & 0xffffu) | odd << 16, even >> 16 | (odd & 0xffff0000u)};
        memcpy(to, all, sizeof all);
    }
    for (; n > 0; n--) {
        *to++ = *from++;
    }
}",
    },
    Helper {
        name: "spread_u8",
        needs: &["load_4", "uxtb16"],
        text: "
/* n bytes as half-words in their order. */
static inline void $_spread_u8(int16_t *to, const uint8_t *from, int32_t n) {
    for (; n >= 4; n -= 4, to += 4, from += 4) {
        const uint32_t word = $_load_4(from), even = $_uxtb16(word), odd = $_uxtb16_ror8(word);
        const uint32_t all[2] = {(even & 0xffffu) | odd << 16, even >> 16 | (odd & 0xffff0000u)};
        memcpy(to, all, sizeof all);
    }
    for (; n > 0; n--) {
        *to++ = *from++;
    }
}",
    },
    Helper { name: "assembly", needs: &[], text: ASSEMBLY },
    Helper { name: "shared", needs: &[], text: SHARED },
    Helper { name: "dot_2x2", needs: &["load_4", "sxtb16", "smlad"], text: DOT_2X2 },
    Helper { name: "dot_1x4_s8", needs: &["load_4", "sxtb16", "smlad"], text: DOT_1X4_S8 },
    Helper { name: "dot_1x4_u8", needs: &["load_4", "sxtb16", "uxtb16", "smlad"], text: DOT_1X4_U8 },
    Helper { name: "pairs_2x4", needs: &["assembly", "load_4", "sxtb16", "smlad"], text: PAIRS_2X4 },
    Helper { name: "group_1x8", needs: &[], text: GROUP_1X8 },
    Helper { name: "pairs_1x8", needs: &["assembly", "group_1x8", "load_4", "sxtb16", "smlad"], text: PAIRS_1X8 },
    Helper { name: "row_sum", needs: &["smlad"], text: ROW_SUM },
    Helper { name: "four", needs: &["smlad"], text: FOUR },
    Helper { name: "fours_2x4", needs: &["assembly", "load_4", "four"], text: FOURS_2X4 },
    Helper { name: "fours_1x8", needs: &["assembly", "load_4", "four"], text: FOURS_1X8 },
    Helper { name: "layer", needs: &[], text: LAYER },
    Helper { name: "rescale", needs: &["round_to_s8", "mul", "f_of_bits", "min", "max"], text: RESCALE },
    Helper {
        name: "row_pieces",
        needs: &["assembly", "group_1x8", "layer", "rescale", "load_4", "sxtb16", "smlad"],
        text: ROW_PIECES,
    },
    Helper { name: "quad", needs: &["layer", "rescale", "load_4", "sxtb16", "smlad"], text: PIECES },
    Helper { name: "quads", needs: &["assembly", "quad"], text: QUADS },
    Helper { name: "lines", needs: &["assembly", "rescale"], text: LINES },
    Helper { name: "runs", needs: &["assembly", "quad"], text: RUNS },
    Helper { name: "window", needs: &["assembly", "quad"], text: WINDOW },
    Helper { name: "taps_s8", needs: &[], text: TAPS_S8 },
    Helper { name: "taps_u8", needs: &[], text: TAPS_U8 },
    Helper { name: "taps_s16", needs: &[], text: TAPS_S16 },
    Helper { name: "taps_nibbles", needs: &[], text: TAPS_NIBBLES },
    Helper { name: "taps_nibbles_s8", needs: &["taps_nibbles", "load_4", "sxtb16"], text: TAPS_NIBBLES_S8 },
    Helper { name: "taps_nibbles_u8", needs: &["taps_nibbles", "load_4", "uxtb16"], text: TAPS_NIBBLES_U8 },
    Helper { name: "taps_nibbles_s16", needs: &["taps_nibbles", "load_4", "split"], text: TAPS_NIBBLES_S16 },
    Helper {
        name: "pair",
        needs: &[],
        text: "
/* Two half-words as one word. */
static inline uint32_t $_pair(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}",
    },
    Helper {
        name: "split_s8",
        needs: &["split", "sxtb16"],
        text: "
/* Four channels of two pixels as pairs of half-words, channels a distance apart. */
static inline void $_split_s8(uint32_t *to, uint32_t a, uint32_t b, int32_t distance) {
    $_split(to, $_sxtb16(a), $_sxtb16(b), 2 * distance);
    $_split(to + distance, $_sxtb16_ror8(a), $_sxtb16_ror8(b), 2 * distance);
}",
    },
    Helper {
        name: "split_u8",
        needs: &["split", "uxtb16"],
        text: "
/* Four channels of two pixels as pairs of half-words, channels a distance apart. */
static inline void $_split_u8(uint32_t *to, uint32_t a, uint32_t b, int32_t distance) {
    $_split(to, $_uxtb16(a), $_uxtb16(b), 2 * distance);
    $_split(to + distance, $_uxtb16_ror8(a), $_uxtb16_ror8(b), 2 * distance);
}",
    },
    Helper {
        name: "opaque",
        needs: &[],
        text: "
/* x, of which the compiler knows nothing: loops that end at it stay loops. */
static inline int32_t $_opaque(int32_t x) {
#if defined(__GNUC__)
    __asm__(\"\" : \"+r\"(x));
#endif
    return x;
}",
    },
    Helper {
        name: "fill_planes",
        needs: &["opaque"],
        text: "
/* n words of one value in each of four planes a distance apart. */
static inline void $_fill_planes(uint32_t *to, uint32_t pair, int32_t n, int32_t distance) {
    const uint32_t *const end = to + $_opaque(n);
    for (; to < end; to++) {
        to[0] = pair;
        to[distance] = pair;
        to[2 * distance] = pair;
        to[3 * distance] = pair;
    }
}",
    },
    Helper {
        name: "copy_planes",
        needs: &["opaque"],
        text: "
/* n words on within each of four planes a distance apart. Short pieces: a call of memcpy would take longer. */
static inline void $_copy_planes(uint32_t *to, const uint32_t *from, int32_t n, int32_t distance) {
    const int32_t step = $_opaque(distance);
    const uint32_t *const end = to + n;
    for (; to < end; to++, from++) {
        uint32_t *t = to;
        const uint32_t *f = from;
        t[0] = f[0];
        t += step;
        f += step;
        t[0] = f[0];
        t += step;
        f += step;
        t[0] = f[0];
        t += step;
        f += step;
        t[0] = f[0];
#if defined(__GNUC__)
        /* Else compilers call memcpy after all. */
        __asm__ volatile(\"\" : : : \"memory\");
#endif
    }
}",
    },
    Helper { name: "rows_3", needs: &["smlad"], text: ROWS_3 },
    Helper { name: "row_3", needs: &["smlad"], text: ROW_3 },
    Helper { name: "mve", needs: &[], text: mve::INCLUDE },
    Helper { name: "sums", needs: &["assembly"], text: mve::SUMS },
    Helper { name: "dots", needs: &["assembly"], text: mve::DOTS },
    Helper { name: "store_1", needs: &["mve"], text: mve::STORE_1 },
    Helper { name: "narrow_4", needs: &["mve"], text: mve::NARROW_4 },
    Helper { name: "store_4", needs: &["assembly"], text: mve::STORE_4 },
    Helper { name: "store_add_4", needs: &["assembly"], text: mve::STORE_ADD_4 },
    Helper { name: "store_row", needs: &["mve"], text: mve::STORE_ROW },
    Helper { name: "sum", needs: &["mve"], text: mve::SUM },
    Helper { name: "store_sum_4", needs: &["narrow_4", "sum"], text: mve::STORE_SUM_4 },
    Helper { name: "add_reals", needs: &["mve", "mul"], text: mve::ADD_REALS },
    Helper { name: "copy_bytes", needs: &["mve"], text: mve::COPY_BYTES },
    Helper { name: "fill_bytes", needs: &["mve"], text: mve::FILL_BYTES },
    Helper {
        name: "saturate_21",
        needs: &["min", "max"],
        text: "
/* x / 2^21, rounded down, to -128..127. */
static inline int8_t $_saturate_21(int32_t x) {
#if @ARM_DSP
    int32_t r;
    __asm__(\"ssat %0, #8, %1, asr #21\" : \"=r\"(r) : \"r\"(x));
    return (int8_t)r;
#else
    return (int8_t)$_max($_min(x >> 21, 127), -128);
#endif
}",
    },
    Helper { name: "lanes", needs: &[], text: winograd::LANES },
    Helper { name: "winograd_word", needs: &["assembly"], text: winograd::WORD },
    Helper { name: "winograd_products", needs: &["winograd_word", "load_4", "smlad"], text: winograd::PRODUCTS },
    Helper { name: "winograd_2_axis", needs: &["lanes"], text: winograd::F2_AXIS },
    Helper { name: "winograd_2_in", needs: &["winograd_2_axis", "load_4"], text: winograd::F2_IN },
    Helper { name: "winograd_2_out", needs: &["add", "sub"], text: winograd::F2_OUT },
    Helper { name: "winograd_4_axis", needs: &[], text: winograd::F4_AXIS },
    Helper { name: "winograd_4_in", needs: &["winograd_4_axis", "load_4"], text: winograd::F4_IN },
    Helper { name: "winograd_4_pieces", needs: &["assembly"], text: winograd::F4_PIECES },
    Helper { name: "winograd_4_in_s8", needs: &["winograd_4_pieces"], text: winograd::F4_IN_S8 },
    Helper { name: "winograd_4_out", needs: &["add"], text: winograd::F4_OUT },
    Helper {
        name: "scale_to_s8",
        needs: &["round_to_s8", "mul", "f_of_bits", "min", "max"],
        text: winograd::SCALE_TO_S8,
    },
    Helper {
        name: "winograd_4_bytes",
        needs: &["assembly", "scale_to_s8", "winograd_4_out"],
        text: winograd::F4_BYTES,
    },
    Helper { name: "winograd_s2_axis", needs: &["lanes"], text: winograd::STRIDE_2_AXIS },
    Helper { name: "winograd_s2_in", needs: &["winograd_s2_axis", "load_4"], text: winograd::STRIDE_2_IN },
    Helper { name: "winograd_s2_out", needs: &["add"], text: winograd::STRIDE_2_OUT },
];

/// All helpers, each after what it needs.
fn all() -> impl Iterator<Item = &'static Helper> {
    SCALARS.iter().chain(HELPERS)
}

/// A helper and its place among all.
fn find(name: &str) -> (usize, &'static Helper) {
    all().enumerate().find(|(_, h)| h.name == name).expect("helpers are called by their names")
}

/// The prefix of all identifiers, and the helpers used so far.
pub struct Helpers {
    prefix: String,
    used: BTreeMap<usize, &'static Helper>,
    /// Functions that are made to measure, by name, each after those that it calls.
    made: Vec<(String, String)>,
}

impl Helpers {
    pub fn new(prefix: &str) -> Helpers {
        Helpers { prefix: prefix.into(), used: BTreeMap::new(), made: Vec::new() }
    }

    /// The C name of a helper, which is then emitted.
    pub fn get(&mut self, name: &'static str) -> String {
        self.mark(name);
        format!("{}_{name}", self.prefix)
    }

    /// The C name of a function of sums, which is then emitted.
    pub fn sums(&mut self, sums: &Sums) -> String {
        self.mark("sums");
        self.make(&sums.name(), || sums.text())
    }

    /// The C name of a helper that is made for a number, which is then emitted.
    pub fn get_for(&mut self, name: &'static str, n: usize) -> String {
        let (_, helper) = find(name);
        helper.needs.iter().for_each(|need| self.mark(need));
        let made = format!("{name}_{n}");
        self.make(&made, || helper.text.replace("@N", &n.to_string()))
    }

    /// The C name of the function of a row's dot products with `vectors` vectors at a time, which is then emitted.
    pub fn dots(&mut self, vectors: usize) -> String {
        self.mark("dots");
        let name = format!("dots_{vectors}");
        self.make(&name, || mve::dots(vectors))
    }

    /// The C name of a function of depthwise convolution, which is then emitted; its tables' name ends in `_tables`.
    pub fn depthwise(&mut self, planes: &Planes) -> String {
        self.mark("assembly");
        self.make(&planes.name(), || planes.text())
    }

    /// The C name of a helper that is made for some shape by `text`, where it is not there yet.
    pub fn make(&mut self, name: &str, text: impl FnOnce() -> String) -> String {
        if self.made.iter().all(|(made, _)| made != name) {
            self.made.push((name.into(), text()));
        }
        format!("{}_{name}", self.prefix)
    }

    fn mark(&mut self, name: &str) {
        let (at, helper) = find(name);
        if self.used.insert(at, helper).is_none() {
            helper.needs.iter().for_each(|n| self.mark(n));
        }
    }

    /// The definitions of all helpers used.
    pub fn text(&self) -> String {
        let mut text: String = self.used.values().map(|h| format!("{}\n", h.text)).collect();
        self.made.iter().for_each(|(_, made)| {
            text.push_str(made);
            text.push('\n');
        });
        for (name, condition) in MACROS {
            text = text.replace(name, condition);
        }
        text.replace("@SHIFT", &SHIFT.to_string()).replace('$', &self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_come_after_what_they_need() {
        for (i, h) in all().enumerate() {
            for need in h.needs {
                assert!(all().take(i).any(|o| o.name == *need), "{} needs {need}", h.name);
            }
        }
    }
}
