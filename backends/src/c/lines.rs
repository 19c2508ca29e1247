//! The helpers that make lines of four channels of a depthwise 3x3 convolution from lines of half-words.
//!
//! See [`super::kernels`] for how the lines lie. Three lines of words, the weights and two sums take all registers but
//! two; what waits lies in registers of the FPU. A channel's nine weights are bytes in a row, of which three overlapping
//! words make all pairs that are needed; its two words are where its sums start, and its factor or scale as in
//! [`super::quads`].

use super::kernels::rescale::SHIFT;

/// Pairs of outputs, or outputs at stride 2, that the body of a loop makes.
const UNROLLED: usize = 4;

/// What a function depends on; distances in bytes.
pub struct Lines {
    /// Outputs of a line.
    pub length: usize,
    /// Pixels from one output to the next: 1 or 2.
    pub stride: usize,
    /// Words of a line in working memory.
    pub words: usize,
    /// Words of a channel in working memory.
    pub plane: usize,
    /// Lines from one line of output to the next.
    pub line_stride: usize,
    /// From one output to the next, and from one line of output to the next.
    pub steps: [usize; 2],
    /// Whether lines run down the image, across the rows of weights.
    pub down: bool,
    /// The zero point of the output.
    pub zero: i32,
}

/// The portable form of all functions.
pub const LINES: &str = r#"
#if !(@THUMB_DSP && @ARM_FP)
/* Half-word number at of a line. */
static inline int32_t $_half(const uint32_t *line, int32_t at) {
    return (int16_t)(line[at / 2] >> at % 2 * 16 & 0xffffu);
}

/* Lines of output of four channels of a depthwise 3x3 convolution. */
static inline void $_lines(const uint32_t *from, int8_t *out, const int8_t *taps, const uint32_t *channel, int32_t lines,
                           int32_t length, int32_t stride, int32_t words, int32_t plane, int32_t line_stride,
                           int32_t step, int32_t line_step, int32_t down, int32_t zero) {
    for (int32_t j = 0; j < 4; j++, from += plane, taps += 9, channel += 2) {
        for (int32_t i = 0; i < lines * length; i++) {
            const int32_t l = i / length, at = i % length * stride;
            uint32_t sum = channel[0];
            for (int32_t k = 0; k < 9; k++) {
                const int32_t y = down != 0 ? k % 3 : k / 3, x = down != 0 ? k / 3 : k % 3;
                sum += (uint32_t)($_half(from + (l * line_stride + y) * words, at + x) * taps[k]);
            }
            out[l * line_step + i % length * step + j] = $_rescale((int32_t)sum, channel[1], zero, @SHIFT);
        }
    }
}
#endif"#;

impl Lines {
    /// Whether all distances are immediate operands.
    pub fn fits(&self) -> bool {
        let line = 4 * self.words;
        let all = [2 * line + 4, line * self.line_stride, 4 * self.plane, 2 * self.steps[0], self.steps[1]];
        self.length > 0 && all.iter().all(|d| *d <= 4095)
    }

    /// Turns of the loop over a line.
    fn turns(&self) -> usize {
        if self.stride == 1 { self.length / 2 } else { self.length }
    }

    /// How many of them the loop's body makes.
    pub fn unrolled(&self) -> usize {
        (1..=UNROLLED).rev().find(|n| self.turns().is_multiple_of(*n)).unwrap_or(1)
    }

    pub fn name(&self) -> String {
        let Lines { length, stride, words, plane, line_stride, steps: [step, line_step], down, zero } = self;
        let zero = if *zero < 0 { format!("m{}", -zero) } else { zero.to_string() };
        let down = if *down { "_down" } else { "" };
        format!("lines_{length}_{stride}_{words}_{plane}_{line_stride}_{step}_{line_step}_{zero}{down}")
    }

    pub fn text(&self) -> String {
        let Lines { length, stride, words, plane, line_stride, steps: [step, line_step], down, zero } = self;
        let name = self.name();
        let [factor, scale] = [true, false].map(|factor| self.lines(factor).join("\n        "));
        let begin = string(self.weights());
        let by = if *stride == 1 { "r8" } else { "r7" };
        let half = self.start() as u32;
        let rest = match stride {
            1 => "vmov s0, r12".into(),
            _ => format!("mov r8, r12\\n\\tmovw lr, #{}\\n\\tmovt lr, #{}", half & 0xffff, half >> 16),
        };
        format!(
            r#"
/* Lines of output of four channels of a depthwise 3x3 convolution. */
#if @THUMB_DSP && @ARM_FP
$_ASSEMBLY
static void $_{name}(const uint32_t *from $_UNUSED, int8_t *out $_UNUSED, const int8_t *taps $_UNUSED,
                     const uint32_t *channel $_UNUSED, int32_t lines $_UNUSED) {{
    __asm__ volatile(
        "push {{r4-r11, lr}}\n\t"
        "ldr r12, [sp, #36]\n\tvmov s4, r12\n\tmov r12, #4\n\tvmov s9, r12\n"
        "6:\n\t"
        "vmov s2, r0\n\tvmov s6, r1\n\tvmov s3, r1\n\tvmov.f32 s1, s4\n\t"
        "ldr r9, [r2]\n\tldr r10, [r2, #3]\n\tldr r11, [r2, #5]\n\tldr r12, [r3], #4\n\tldr r4, [r3], #4\n\t"
        "vmov s8, r3\n\tadds r2, #9\n\tvmov s7, r2\n\tvmov s10, r4\n\t"
        /* Weights 0 and 2, 1 and 3, 3 and 5, 4 and 6, 5 and 7, 6 and 8. */
        "sxtb16 lr, r9\n\tsxtb16 r9, r9, ror #8\n\tsxtb16 r8, r10\n\tsxtb16 r10, r10, ror #8\n\t"
        "sxtb16 r3, r11\n\tsxtb16 r11, r11, ror #8\n\t"
        {begin}
        "{rest}\n\tvmov {by}, s10\n\tcmp {by}, #0\n\tbmi.w 5f\n\t"
        {factor}
        "b.w 7f\n"
        "5:\n\t"
        "vmov s14, {by}\n\t"
        {scale}
        "7:\n\t"
        "vmov r9, s9\n\tsubs r9, #1\n\tvmov s9, r9\n\t"
        "ittt ne\n\tvmovne r0, s2\n\tvmovne r1, s6\n\tvmovne r2, s7\n\t"
        "ittt ne\n\tvmovne r3, s8\n\taddne r1, #1\n\taddwne r0, r0, #{plane_bytes}\n\t"
        "bne.w 6b\n\t"
        "pop {{r4-r11, pc}}");
}}
#else
static inline void $_{name}(const uint32_t *from, int8_t *out, const int8_t *taps, const uint32_t *channel,
                            int32_t lines) {{
    $_lines(from, out, taps, channel, lines, {length}, {stride}, {words}, {plane}, {line_stride}, {step}, {line_step},
            {down}, {zero});
}}
#endif"#,
            plane_bytes = 4 * plane,
            down = *down as u8,
        )
    }

    /// What a scaled sum is added to.
    fn start(&self) -> i32 {
        (2 * self.zero + 1) << (SHIFT - 1)
    }

    /// Makes pairs of weights: at stride 1 of each line taps 0 and 1, then 1 and 2, in r2 to r7; else of each line taps 0
    /// and 1 in r2 to r4, then taps 2 of the first two lines in r5 and that of the last one in the upper half of r6.
    fn weights(&self) -> &'static str {
        match (self.stride, self.down) {
            (1, false) => {
                "pkhtb r7, r11, r3, asr #16; pkhbt r6, r11, r3; pkhbt r5, r10, r8; pkhbt r4, r8, r10, lsl #16; \
                 pkhbt r3, r9, lr; pkhbt r2, lr, r9, lsl #16"
            }
            (1, true) => {
                "pkhbt r7, r3, r11; pkhtb r6, r8, lr, asr #16; pkhbt r5, r10, r3; pkhbt r4, r9, r10, lsl #16; \
                 pkhbt r3, r8, r10; pkhbt r2, lr, r9"
            }
            (_, false) => {
                "mov r6, r11; pkhtb r5, r8, lr, asr #16; pkhbt r4, r11, r3; pkhbt r3, r8, r10, lsl #16; \
                 pkhbt r2, lr, r9, lsl #16"
            }
            (_, true) => {
                "mov r6, r11; pkhbt r5, r11, r3; pkhtb r4, r8, lr, asr #16; pkhbt r3, r9, r10, lsl #16; pkhbt r2, lr, r9"
            }
        }
    }

    /// All lines, by factor or by scale.
    fn lines(&self, factor: bool) -> Vec<String> {
        let line = 4 * self.words;
        let load = |first: &str, more: usize| {
            format!("{first}; ldr.w r10, [r0, #{}]; ldr.w r11, [r0, #{}]", line + more, 2 * line + more)
        };
        let [step, line_step] = self.steps;
        let mut all = Vec::new();
        let label = |n: usize| if factor { n } else { n + 2 };
        let turns = self.turns();
        let body = if factor { self.unrolled() } else { 1 };
        let loops = turns > body;
        let begin_loop = |all: &mut Vec<String>| {
            if loops {
                all.push(string(&format!("addw r9, r0, #{}; vmov s5, r9", 4 * turns)));
            }
        };
        let again = |all: &mut Vec<String>, by: &str| {
            if loops {
                all.push(string(&format!("vmov {by}, s5; cmp r0, {by}; bne.w {}b", label(2))));
            }
        };
        // The first of the loads of a word moves on.
        let next = format!("ldr.w r9, [r0, #4]!; ldr.w r10, [r0, #{line}]; ldr.w r11, [r0, #{}]", 2 * line);
        all.push(format!("\"{}:\\n\\t\"", label(1)));
        let mut moved = [4 * turns, turns * step];
        if self.stride == 1 {
            moved[1] *= 2;
            let start = "vmov r12, s0; smlatb lr, r9, r2, r12; smlad r12, r9, r2, r12; smlatb lr, r10, r4, lr; \
                         smlad r12, r10, r4, r12; smlatb lr, r11, r6, lr; smlad r12, r11, r6, r12";
            let end = "smlabt r12, r9, r3, r12; smlad lr, r9, r3, lr; smlabt r12, r10, r5, r12; \
                       smlad lr, r10, r5, lr; smlabt r12, r11, r7, r12; smlad lr, r11, r7, lr";
            begin_loop(&mut all);
            all.push(string(&load("ldr.w r9, [r0]", 0)));
            all.push(string(start));
            if loops {
                all.push(format!("\"{}:\\n\\t\"", label(2)));
            }
            for i in 0..body.min(turns) {
                all.push(string(&next));
                all.push(string(end));
                all.push(string(&self.bytes(factor, &["r12", "lr"], "r8")));
                all.push(string(&match step {
                    0..=255 => format!("strb r12, [r1], #{step}; strb lr, [r1], #{step}"),
                    _ => format!("strb.w r12, [r1]; strb.w lr, [r1, #{step}]; addw r1, r1, #{}", 2 * step),
                }));
                if loops || i + 1 < body || self.length % 2 == 1 {
                    all.push(string(start));
                }
            }
            again(&mut all, "r9");
            if self.length % 2 == 1 {
                moved[0] += 4;
                all.push(string(&next));
                all.push(string("smlabt r12, r9, r3, r12; smlabt r12, r10, r5, r12; smlabt r12, r11, r7, r12"));
                all.push(string(&self.bytes(factor, &["r12"], "r8")));
                all.push(string("strb.w r12, [r1]"));
            }
        } else {
            begin_loop(&mut all);
            all.push(string(&load("ldr.w r9, [r0]", 0)));
            if loops {
                all.push(format!("\"{}:\\n\\t\"", label(2)));
            }
            for _ in 0..body {
                all.push(string("smlad r12, r9, r2, r8; smlad r12, r10, r3, r12; smlad r12, r11, r4, r12"));
                all.push(string(&next));
                all.push(string("smlabb r12, r9, r5, r12; smlabt r12, r10, r5, r12; smlabt r12, r11, r6, r12"));
                all.push(string(&self.bytes(factor, &["r12"], "r7")));
                all.push(string(&match step {
                    0..=255 => format!("strb r12, [r1], #{step}"),
                    _ => format!("strb.w r12, [r1]; addw r1, r1, #{step}"),
                }));
            }
            again(&mut all, "r12");
        }
        all.push(string(&format!("addw r0, r0, #{}", line * self.line_stride - moved[0])));
        all.push(string(&match line_step.checked_signed_diff(moved[1]).unwrap_or(isize::MAX) {
            d @ 0..=4095 => format!("addw r1, r1, #{d}"),
            d @ -4095..0 => format!("subw r1, r1, #{}", -d),
            _ => format!("vmov r1, s3; addw r1, r1, #{line_step}; vmov s3, r1"),
        }));
        all.push(string(&format!("vmov r9, s1; subs r9, #1; vmov s1, r9; bne.w {}b", label(1))));
        all
    }

    /// Turns sums into bytes.
    fn bytes(&self, factor: bool, sums: &[&str], by: &str) -> String {
        let add = |n: i32| format!("{} R, R, #{}", if n < 0 { "subw" } else { "addw" }, n.abs());
        // R stands for a sum, S for a register of the FPU.
        let steps = if factor {
            let mut steps = match self.stride {
                1 => vec![format!("smmul R, R, {by}"), add(self.start())],
                _ => vec![format!("smmla R, R, {by}, lr")],
            };
            steps.push(format!("ssat R, #8, R, asr #{SHIFT}"));
            steps
        } else {
            let float = ["vmov S, R", "vcvt.f32.s32 S, S", "vnmul.f32 S, S, s14", "vcvtr.s32.f32 S, S", "vmov R, S"];
            // Far from overflow, the zero point can be added.
            let mut steps: Vec<String> = float.into_iter().chain(["ssat R, #16, R"]).map(String::from).collect();
            steps.extend([add(self.zero), "ssat R, #8, R".into()]);
            steps
        };
        // Each step for all sums in turn, so that none waits for the one before.
        let one = |step: &String, (i, r): (usize, &&str)| step.replace('S', &format!("s{}", 12 + i)).replace('R', r);
        let all: Vec<String> =
            steps.iter().flat_map(|step| sums.iter().enumerate().map(move |sum| one(step, sum))).collect();
        all.join("; ")
    }
}

/// Instructions between semicolons as a string of C.
fn string(text: &str) -> String {
    format!("\"{}\\n\\t\"", text.replace("; ", "\\n\\t"))
}
