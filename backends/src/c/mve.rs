//! The helpers that use Helium, the vector extension of Armv8.1-M (MVE), beside their meaning in plain C.
//!
//! VMLADAVA adds the dot product of two vectors of sixteen bytes to an even core register. The sums of four pixels and two
//! channels take all eight of these; weights stay in q0 to q5 while pixels stream through q6 and q7. Where the weights
//! of a sum do not fit, passes follow each other and the sums wait in memory in between: one LDM and one STM for up to 24
//! VMLADAVA. Compilers keep no such plan of registers, so these functions are assembly alone.

use std::fmt::Write as _;

/// How a pass of [`Sums`] walks over a pixel's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// One to three vectors that follow each other.
    Slices(usize),
    /// One vector of each of three taps side by side. Neighbouring windows, `stride` pixels apart, share them.
    Taps { stride: usize },
}

/// A function that computes sums of four pixels and two channels at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sums {
    pub pass: Pass,
    /// Bytes from one pixel's values to the next: for [`Pass::Taps`] from tap to tap, else from window to window.
    pub step: usize,
    /// Whether all vectors lie at multiples of four bytes.
    pub words: bool,
}

impl Sums {
    /// Whether a load's own increment reaches as far as the step.
    fn reaches(&self) -> bool {
        self.step <= if self.words { 508 } else { 127 }
    }

    /// Vectors of one channel's weights in a pass.
    pub fn vectors(&self) -> usize {
        match self.pass {
            Pass::Slices(n) => n,
            Pass::Taps { .. } => 3,
        }
    }

    /// Instructions for four pixels and two channels in one pass.
    pub fn instructions(&self) -> usize {
        let loads = match self.pass {
            Pass::Slices(n) => 4 * n,
            Pass::Taps { stride: 1 } => 4,
            Pass::Taps { .. } => 8,
        };
        let steps = match self.pass {
            _ if self.reaches() => 0,
            Pass::Slices(_) => 4,
            Pass::Taps { .. } => loads,
        };
        8 * self.vectors() + loads + steps + 3
    }

    pub fn name(&self) -> String {
        let unit = if self.words { "w" } else { "b" };
        match self.pass {
            Pass::Slices(n) => format!("sums_{n}_{}{unit}", self.step),
            Pass::Taps { stride } => format!("taps_{stride}_{}{unit}", self.step),
        }
    }

    /// The function's definition.
    pub fn text(&self) -> String {
        let name = self.name();
        let (window, vector) = match self.pass {
            Pass::Slices(_) => (self.step, 16),
            Pass::Taps { stride } => (stride * self.step, self.step),
        };
        let params = |unused: &str| {
            let all = ["const int8_t *x", "const int8_t *w", "int32_t *sums", "const int32_t *plan", "int32_t rows"];
            all.into_iter()
                .chain(["int32_t first0", "int32_t first1"])
                .map(|p| format!("{p}{unused}"))
                .collect::<Vec<_>>()
        };
        let mut text = format!(
            "\n/* Sums of two channels, windows {window} bytes apart, vectors {vector} bytes apart: see $_sums. */\n#if @MVE\n\
             $_ASSEMBLY\nstatic void $_{name}({}) {{\n    __asm__ volatile(\n",
            wrapped(&params(" $_UNUSED"), 13 + name.len())
        );
        for line in self.assembly().trim_end().lines() {
            let _ = writeln!(text, "        \"{line}\\n\\t\"");
        }
        let _ = write!(
            text,
            "    );\n}}\n#else\nstatic inline void $_{name}({}) {{\n    \
             $_sums(x, w, sums, plan, rows, first0, first1, {}, {window}, {vector});\n}}\n#endif",
            wrapped(&params(""), 20 + name.len()),
            self.vectors()
        );
        text
    }

    fn assembly(&self) -> String {
        let mut s = String::from(
            "push {r0-r11, lr}\n\
             vpush {d8-d15}\n\
             sub sp, #48\n\
             ldr r4, [sp, #168]\n\
             ldr r5, [sp, #172]\n\
             strd r4, r4, [sp]\n\
             strd r4, r4, [sp, #8]\n\
             strd r5, r5, [sp, #16]\n\
             strd r5, r5, [sp, #24]\n\
             ldm r3!, {r4-r6}\n\
             str r3, [sp, #32]\n\
             str r4, [sp, #36]\n\
             str r5, [sp, #40]\n\
             mov r11, r6\n",
        );
        self.pass(&mut s, "sp", 1);
        s.push_str("ldr r4, [sp, #36]\nsubs r4, #1\nbeq.w 9f\nstr r4, [sp, #36]\n8:\n");
        self.pass(&mut s, "r1", 4);
        s.push_str(
            "ldr r4, [sp, #36]\nsubs r4, #1\nstr r4, [sp, #36]\nbne.w 8b\n9:\n\
             add sp, #48\nvpop {d8-d15}\npop {r0-r11, pc}",
        );
        s
    }

    /// One pass over all pixels: the weights, then rows of blocks of four pixels. Sums start from what lies at `from`.
    fn pass(&self, s: &mut String, from: &str, label: usize) {
        s.push_str("ldr r0, [sp, #116]\n");
        for q in 0..2 * self.vectors() {
            let _ = writeln!(s, "vldrw.u32 q{q}, [r0], #16");
        }
        let load = |q: usize, offset: usize, next: bool| {
            let unit = if self.words { "w.u32" } else { "b.u8" };
            match (next, offset) {
                (true, _) if self.reaches() => format!("vldr{unit} q{q}, [r3], #{}\n", self.step),
                (true, _) => format!("vldr{unit} q{q}, [r3]\naddw r3, r3, #{}\n", self.step),
                (false, 0) => format!("vldr{unit} q{q}, [r3]\n"),
                (false, at) => format!("vldr{unit} q{q}, [r3, #{at}]\n"),
            }
        };
        s.push_str(
            "str r0, [sp, #116]\n\
             ldr r2, [sp, #32]\n\
             ldr r4, [r2], #4\n\
             str r2, [sp, #32]\n\
             ldr r9, [sp, #112]\n\
             add r9, r4\n\
             ldr r1, [sp, #120]\n\
             ldr r7, [sp, #164]\n",
        );
        let _ = write!(s, "{label}:\nmov r3, r9\nadd r9, r11\n");
        match self.pass {
            Pass::Slices(_) => {}
            Pass::Taps { stride: 1 } => *s += &(load(6, 0, true) + &load(7, 0, true)),
            Pass::Taps { .. } => *s += &load(6, 0, true),
        }
        // Two blocks a round; an odd number of blocks begins with the second.
        let (whole, half) = (label + 1, label + 2);
        let _ = write!(s, "ldr r5, [sp, #40]\nlsrs r5, #1\nbcc.w {whole}f\nadds r5, #1\nb.w {half}f\n");
        let n = self.vectors();
        let mac = |pixel: usize, tap: usize, q: usize| {
            let (a, b) = (["r0", "r2", "r4", "r6"][pixel], ["r8", "r10", "r12", "lr"][pixel]);
            format!("vmladava.s8 {a}, q{tap}, q{q}\nvmladava.s8 {b}, q{}, q{q}\n", n + tap)
        };
        for block in [whole, half] {
            let _ = write!(s, "{block}:\nldm {from}, {{r0, r2, r4, r6, r8, r10, r12, lr}}\n");
            match self.pass {
                Pass::Slices(_) => {
                    let mut q = 6;
                    for pixel in 0..4 {
                        for slice in (0..n).rev() {
                            *s += &load(q, 16 * slice, slice == 0);
                            *s += &mac(pixel, slice, q);
                            q = 13 - q;
                        }
                    }
                }
                Pass::Taps { stride: 1 } => {
                    for pixel in 0..6usize {
                        let q = 6 + pixel % 2;
                        for tap in 0..3 {
                            if let Some(window) = pixel.checked_sub(tap).filter(|w| *w < 4) {
                                *s += &mac(window, tap, q);
                            }
                        }
                        if pixel < 4 {
                            *s += &load(q, 0, true);
                        }
                    }
                }
                Pass::Taps { .. } => {
                    for pixel in 0..4 {
                        *s += &mac(pixel, 0, 6);
                        *s += &(load(7, 0, true) + &load(6, 0, true));
                        *s += &(mac(pixel, 1, 7) + &mac(pixel, 2, 6));
                    }
                }
            }
            s.push_str("stm r1!, {r0, r2, r4, r6, r8, r10, r12, lr}\n");
        }
        let _ = write!(s, "subs r5, #1\nbne.w {whole}b\nsubs r7, #1\nbne.w {label}b\n");
    }
}

/// Parameters in lines of at most 120 characters, the later ones indented as far as the first.
fn wrapped(params: &[String], indent: usize) -> String {
    let mut text = String::new();
    let mut width = indent;
    for (i, p) in params.iter().enumerate() {
        if i > 0 && width + p.len() + 3 > 116 {
            let _ = write!(text, ",\n{}", " ".repeat(indent));
            width = indent;
        } else if i > 0 {
            text.push_str(", ");
            width += 2;
        }
        text.push_str(p);
        width += p.len();
    }
    text
}

pub const SUMS: &str = r#"
/* Dot products of windows and two channels' weights, plus first0 and first1. plan: passes, blocks of four windows in a
 * row, bytes from row to row, then where each pass reads in x. w: for each pass, vectors of sixteen bytes of one channel,
 * then of the other. sums: of each block, four of one channel, then four of the other. */
#if !(@MVE)
static void $_sums(const int8_t *x, const int8_t *w, int32_t *sums, const int32_t *plan, int32_t rows, int32_t first0,
                   int32_t first1, int32_t vectors, int32_t window, int32_t vector) {
    for (int32_t pass = 0; pass < plan[0]; pass++, w += 32 * vectors) {
        int32_t *s = sums;
        for (int32_t row = 0; row < rows; row++) {
            const int8_t *at = x + plan[3 + pass] + row * plan[2];
            for (int32_t i = 0; i < 4 * plan[1]; i++, at += window) {
                for (int32_t j = 0; j < 2; j++) {
                    uint32_t sum = (uint32_t)(pass > 0 ? s[4 * j] : j > 0 ? first1 : first0);
                    for (int32_t k = 0; k < 16 * vectors; k++) {
                        sum += (uint32_t)(at[k / 16 * vector + k % 16] * w[16 * vectors * j + k]);
                    }
                    s[4 * j] = (int32_t)sum;
                }
                s += i % 4 == 3 ? 5 : 1;
            }
        }
    }
}
#endif"#;

pub const INCLUDE: &str = "
/* Whether there are vector instructions of integers and floats. */
#if @MVE
#include <arm_mve.h>
#define $_mve 1
#else
#define $_mve 0
#endif";

pub const NARROW_4: &str = r#"
#if @MVE
/* Four vectors of 32 bits as one of bytes: byte i of word k is element k of vector i. */
static inline int8x16_t $_narrow_4(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d, int32_t zero) {
    int16x8_t even = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(a), a), c);
    int16x8_t odd = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(b), b), d);
    even = vqaddq_n_s16(even, (int16_t)zero);
    odd = vqaddq_n_s16(odd, (int16_t)zero);
    return vqmovntq_s16(vqmovnbq_s16(vreinterpretq_s8_s16(even), even), odd);
}
#endif"#;

pub const STORE_4: &str = r#"
#if @MVE
/* Four channels of n pixels from sums to 8 bits: scaled, rounded half to even, moved by zero, saturated. Of each four
 * pixels, sums holds channels 0 and 2, odd channels 1 and 3. Pixels are step bytes apart. */
$_ASSEMBLY
static void $_store_4(int8_t *out $_UNUSED, int32_t step $_UNUSED, const int32_t *sums $_UNUSED,
                      const int32_t *odd $_UNUSED, const float *scale $_UNUSED, int32_t zero $_UNUSED,
                      int32_t n $_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "vpush {d8-d11}\n\t"
        "ldr r4, [sp, #68]\n\t"
        "ldm r4, {r4-r7}\n\t"
        "ldr r8, [sp, #72]\n\t"
        "mov.w r10, #0\n\t"
        "vidup.u32 q5, r10, #1\n\t"
        "vmul.i32 q5, q5, r1\n\t"
        "lsls r1, r1, #2\n\t"
        "ldr r9, [sp, #76]\n\t"
        "dlstp.32 lr, r9\n"
        "1:\n\t"
        "vldrw.u32 q0, [r2], #16\n\tvldrw.u32 q1, [r3], #16\n\t"
        "vcvt.f32.s32 q0, q0\n\tvcvt.f32.s32 q1, q1\n\t"
        "vldrw.u32 q2, [r2], #16\n\tvldrw.u32 q3, [r3], #16\n\t"
        "vcvt.f32.s32 q2, q2\n\tvcvt.f32.s32 q3, q3\n\t"
        "vmul.f32 q0, q0, r4\n\tvmul.f32 q1, q1, r5\n\tvmul.f32 q2, q2, r6\n\tvmul.f32 q3, q3, r7\n\t"
        "vcvtn.s32.f32 q0, q0\n\tvcvtn.s32.f32 q1, q1\n\tvcvtn.s32.f32 q2, q2\n\tvcvtn.s32.f32 q3, q3\n\t"
        "vqmovnb.s32 q0, q0\n\tvqmovnb.s32 q1, q1\n\tvqmovnt.s32 q0, q2\n\tvqmovnt.s32 q1, q3\n\t"
        "vqadd.s16 q0, q0, r8\n\tvqadd.s16 q1, q1, r8\n\t"
        "vqmovnb.s16 q0, q0\n\tvqmovnt.s16 q0, q1\n\t"
        "vstrw.32 q0, [r0, q5]\n\t"
        "add r0, r1\n\t"
        "letp lr, 1b\n\t"
        "vpop {d8-d11}\n\t"
        "pop {r4-r11, pc}");
}
#endif"#;

pub const STORE_ADD_4: &str = r##"
#if @MVE
/* Four channels of n pixels as $_store_4; then what stands at other is added. With a scaled, rounded and clamped to k[0] to
 * k[1], the result is a * k[2] + (other * k[3] + k[4]), rounded, moved by zero and clamped to 8 bits. */
#define $_ADD_4(sums, scale, next) \
    "vldrw.u32 q1, [" sums "], #16\n\tvldrb.s32 q3, [r9, q5]\n\t" \
    "vcvt.f32.s32 q1, q1\n\tvcvt.f32.s32 q3, q3\n\t" \
    "vmul.f32 q1, q1, " scale "\n\tvfmas.f32 q3, q6, r10\n\tadd r9, " next "\n\t" \
    "vrintn.f32 q1, q1\n\tvmaxnm.f32 q1, q1, q7\n\tvminnm.f32 q1, q1, q4\n\t" \
    "vfma.f32 q3, q1, r11\n\tvcvtn.s32.f32 q3, q3\n\t"
$_ASSEMBLY
static void $_store_add_4(int8_t *out $_UNUSED, const int8_t *other $_UNUSED, const int32_t *sums $_UNUSED,
                          const int32_t *odd $_UNUSED, int32_t step $_UNUSED, const float *scale $_UNUSED,
                          const float *k $_UNUSED, int32_t zero $_UNUSED, int32_t n $_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "vpush {d8-d15}\n\t"
        "mov r9, r1\n\t"
        "ldr r1, [sp, #100]\n\t"
        "mov.w r10, #0\n\t"
        "vidup.u32 q5, r10, #1\n\t"
        "vmul.i32 q5, q5, r1\n\t"
        "lsls r1, r1, #2\n\t"
        "sub r12, r1, #3\n\t"
        "ldr r4, [sp, #108]\n\t"
        "ldr r5, [r4]\n\tvdup.32 q7, r5\n\t"
        "ldr r5, [r4, #4]\n\tvdup.32 q4, r5\n\t"
        "ldr r11, [r4, #8]\n\t"
        "ldr r5, [r4, #12]\n\tvdup.32 q6, r5\n\t"
        "ldr r10, [r4, #16]\n\t"
        "ldr r4, [sp, #104]\n\t"
        "ldm r4, {r4-r7}\n\t"
        "ldr r8, [sp, #116]\n\t"
        "dlstp.32 lr, r8\n\t"
        "ldr r8, [sp, #112]\n"
        "1:\n\t"
        $_ADD_4("r2", "r4", "#2") "vqmovnb.s32 q0, q3\n\t"
        $_ADD_4("r2", "r6", "#-1") "vqmovnt.s32 q0, q3\n\t"
        $_ADD_4("r3", "r5", "#2") "vqmovnb.s32 q2, q3\n\t"
        $_ADD_4("r3", "r7", "r12") "vqmovnt.s32 q2, q3\n\t"
        "vqadd.s16 q0, q0, r8\n\tvqadd.s16 q2, q2, r8\n\t"
        "vqmovnb.s16 q0, q0\n\tvqmovnt.s16 q0, q2\n\t"
        "vstrw.32 q0, [r0, q5]\n\t"
        "add r0, r1\n\t"
        "letp lr, 1b\n\t"
        "vpop {d8-d15}\n\t"
        "pop {r4-r11, pc}");
}
#endif"##;

pub const STORE_1: &str = r#"
#if @MVE
/* One channel of n pixels from sums to 8 bits: scaled, rounded half to even, moved by zero, clamped. Of each eight sums, the
 * first four are the channel's. Pixels are step bytes apart. */
__attribute__((noinline))
static void $_store_1(int8_t *out, int32_t step, const int32_t *sums, float scale, int32_t zero, int32_t lo, int32_t hi,
                      int32_t n) {
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0u, 1), (uint32_t)step);
    const int32x4_t least = vdupq_n_s32(lo), most = vdupq_n_s32(hi);
    for (; n > 0; n -= 4, sums += 8, out += 4 * step) {
        int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vcvtq_f32_s32(vldrwq_s32(sums)), scale));
        q = vminq_s32(vmaxq_s32(vqaddq_n_s32(q, zero), least), most);
        vstrbq_scatter_offset_p_s32(out, at, q, vctp32q((uint32_t)n));
    }
}
#endif"#;

pub const SUM: &str = r#"
#if @MVE
/* An addition of real numbers: bounds and scale of the first, zero and scale of the other, zero, scale and its inverse,
 * and bounds of the result. */
typedef struct {
    float lo, hi, scale, other_scale, last, inverse;
    int32_t other_zero, last_zero, last_lo, last_hi;
} $_sum;
#endif"#;

pub const STORE_SUM_4: &str = r#"
#if @MVE
/* Four channels of n pixels from sums to 8 bits: of each four pixels, sums holds channels 0 and 2, odd channels 1 and 3.
 * Pixels are step bytes apart. What stands at other is added. Both are real numbers by their zeros and scales; the sum is rounded to the scale last. The division is exact: the residue corrects the first quotient. */
static inline int32x4_t $_summed(const int32_t *sums, float scale, const int8_t *other, uint32x4_t at, mve_pred16_t p,
                                 const $_sum *k) {
    float32x4_t a = vrndnq_f32(vmulq_n_f32(vcvtq_f32_s32(vldrwq_s32(sums)), scale));
    a = vminnmq_f32(vmaxnmq_f32(a, vdupq_n_f32(k->lo)), vdupq_n_f32(k->hi));
    a = vmulq_n_f32(a, k->scale);
    const int32x4_t b = vsubq_n_s32(vldrbq_gather_offset_z_s32(other, at, p), k->other_zero);
    /* The product rounds: no fused addition. */
    float32x4_t c = vmulq_n_f32(vcvtq_f32_s32(b), k->other_scale);
    __asm__("" : "+w"(c));
    const float32x4_t x = vaddq_f32(a, c), q = vmulq_n_f32(x, k->inverse);
    return vcvtnq_s32_f32(vfmaq_n_f32(q, vfmaq_n_f32(x, q, -k->last), k->inverse));
}

__attribute__((noinline))
static void $_store_sum_4(int8_t *out, const int8_t *other, const int32_t *sums, const int32_t *odd, int32_t step,
                          const float scale[4], const $_sum *k, int32_t n) {
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0u, 1), (uint32_t)step);
    const int8x16_t least = vdupq_n_s8((int8_t)k->last_lo), most = vdupq_n_s8((int8_t)k->last_hi);
    for (; n > 0; n -= 4, sums += 8, odd += 8, out += 4 * step, other += 4 * step) {
        const mve_pred16_t p = vctp32q((uint32_t)n);
        const int8x16_t q = $_narrow_4($_summed(sums, scale[0], other, at, p, k),
                                       $_summed(odd, scale[1], other + 1, at, p, k),
                                       $_summed(sums + 4, scale[2], other + 2, at, p, k),
                                       $_summed(odd + 4, scale[3], other + 3, at, p, k), k->last_zero);
        const int32x4_t words = vreinterpretq_s32_s8(vminq_s8(vmaxq_s8(q, least), most));
        vstrwq_scatter_offset_p_s32((int32_t *)(void *)out, at, words, p);
    }
}
#endif"#;

pub const COPY_BYTES: &str = r#"
/* Copies n bytes; for short pieces a call of memcpy would take longer. */
static inline void $_copy_bytes(int8_t *to, const int8_t *from, int32_t n) {
#if @MVE
    __asm__ volatile(
        "wlstp.8 lr, %2, 2f\n"
        "1:\n\tvldrb.u8 q0, [%1], #16\n\tvstrb.8 q0, [%0], #16\n\tletp lr, 1b\n"
        "2:"
        : "+r"(to), "+r"(from)
        : "r"(n)
        : "lr", "d0", "d1", "cc", "memory");
#else
    memcpy(to, from, (size_t)n);
#endif
}"#;

pub const FILL_BYTES: &str = r#"
/* Sets n bytes. */
static inline void $_fill_bytes(int8_t *to, int32_t value, int32_t n) {
#if @MVE
    __asm__ volatile(
        "vdup.8 q0, %2\n\twlstp.8 lr, %1, 2f\n"
        "1:\n\tvstrb.8 q0, [%0], #16\n\tletp lr, 1b\n"
        "2:"
        : "+r"(to)
        : "r"(n), "r"(value)
        : "lr", "d0", "d1", "cc", "memory");
#else
    memset(to, value & 255, (size_t)n);
#endif
}"#;

pub const DOTS: &str = r#"
/* Dot products of one row with eight channels' weights at a time, plus what lies at from: groups of eight channels. w: of
 * each channel as many vectors of sixteen bytes as x has. */
#if !(@MVE)
static void $_dots(const int32_t *from, int32_t *to, const int8_t *x, const int8_t *w, int32_t groups, int32_t vectors) {
    for (int32_t c = 0; c < 8 * groups; c++) {
        uint32_t sum = (uint32_t)from[c];
        for (int32_t k = 0; k < 16 * vectors; k++) {
            sum += (uint32_t)(x[k] * *w++);
        }
        to[c] = (int32_t)sum;
    }
}
#endif"#;

/// The function of [`DOTS`] for a number of vectors, at most 7: x stays in registers while the weights stream by.
pub fn dots(vectors: usize) -> String {
    let params = "const int32_t *from$u, int32_t *to$u, const int8_t *x$u, const int8_t *w$u,\n                       \
                  int32_t groups$u";
    let mut text = format!(
        "\n/* Dot products of {vectors} vectors: see $_dots. */\n#if @MVE\n$_ASSEMBLY\nstatic void $_dots_{vectors}({}) {{\n    \
         __asm__ volatile(\n",
        params.replace("$u", " $_UNUSED")
    );
    let mut s = String::from("push {r4-r11, lr}\nvpush {d8-d15}\nmov r9, r0\nldr r7, [sp, #100]\n");
    for q in 0..vectors {
        let _ = writeln!(s, "vldrb.u8 q{q}, [r2, #{}]", 16 * q);
    }
    s.push_str("1:\nldm r9!, {r0, r2, r4, r6, r8, r10, r12, lr}\n");
    let mut q = 7;
    for sum in ["r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr"] {
        for x in 0..vectors {
            let _ = write!(s, "vldrw.u32 q{q}, [r3], #16\nvmladava.s8 {sum}, q{q}, q{x}\n");
            q = if vectors < 7 { 13 - q } else { 7 };
        }
    }
    s.push_str("stm r1!, {r0, r2, r4, r6, r8, r10, r12, lr}\nsubs r7, #1\nbne.w 1b\nvpop {d8-d15}\npop {r4-r11, pc}\n");
    for line in s.lines() {
        let _ = writeln!(text, "        \"{line}\\n\\t\"");
    }
    let _ = write!(
        text,
        "    );\n}}\n#else\nstatic inline void $_dots_{vectors}({}) {{\n    \
         $_dots(from, to, x, w, groups, {vectors});\n}}\n#endif",
        params.replace("$u", "")
    );
    text
}

pub const STORE_ROW: &str = r#"
#if @MVE
/* n sums to 8 bits: scaled, rounded half to even, moved by zero, clamped. One scale, or one for each. */
static inline void $_store_row(int8_t *out, const int32_t *sums, const float *scale, int32_t many, int32_t zero,
                               int32_t lo, int32_t hi, int32_t n) {
    const int32x4_t least = vdupq_n_s32(lo), most = vdupq_n_s32(hi);
    float32x4_t s = vdupq_n_f32(scale[0]);
    for (; n > 0; n -= 4, sums += 4, out += 4, scale += 4) {
        const mve_pred16_t p = vctp32q((uint32_t)n);
        if (many) {
            s = vldrwq_z_f32(scale, p);
        }
        const float32x4_t x = vcvtq_f32_s32(vldrwq_s32(sums));
        const int32x4_t q = vqaddq_n_s32(vcvtnq_s32_f32(vmulq_f32(x, s)), zero);
        vstrbq_p_s32(out, vminq_s32(vmaxq_s32(q, least), most), p);
    }
}
#endif"#;

pub const ADD_REALS: &str = r#"
/* Sums over rows and columns, pixel after pixel, of (x - zero) * scale for each of n channels; 8 divides n. Rows are row bytes
 * apart. */
static void $_add_reals(float *sums, const int8_t *x, int32_t n, int32_t rows, int32_t row, int32_t columns, int32_t zero,
                        float scale) {
#if @MVE
    for (int32_t c = 0; c < n; c += 8) {
        float32x4_t a = vdupq_n_f32(0.0f), b = a;
        for (int32_t y = 0; y < rows; y++) {
            const int8_t *at = x + y * row + c;
            for (int32_t k = columns; k > 0; k--, at += n) {
                float32x4_t u = vmulq_n_f32(vcvtq_f32_s32(vsubq_n_s32(vldrbq_s32(at), zero)), scale);
                float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(vsubq_n_s32(vldrbq_s32(at + 4), zero)), scale);
                /* The products round: no fused additions. */
                __asm__("" : "+w"(u), "+w"(v));
                a = vaddq_f32(a, u);
                b = vaddq_f32(b, v);
            }
        }
        vstrwq_f32(sums + c, a);
        vstrwq_f32(sums + c + 4, b);
    }
#else
    for (int32_t c = 0; c < n; c++) {
        float sum = 0.0f;
        for (int32_t y = 0; y < rows; y++) {
            for (int32_t k = 0; k < columns; k++) {
                sum += $_mul((float)(x[y * row + k * n + c] - zero), scale);
            }
        }
        sums[c] = sum;
    }
#endif
}"#;
