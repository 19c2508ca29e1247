//! The helpers that make lines of one channel of a depthwise 3x3 convolution from lines of half-words.
//!
//! See [`super::kernels`] for how the lines lie. Three lines of words, the weights and two sums take all registers but
//! two; what waits lies in registers of the FPU. A channel is eight words: its weights in pairs, where its sums start, and
//! its factor or scale as in [`super::quads`].

/// What a function depends on; distances in bytes.
pub struct Lines {
    /// Outputs of a line.
    pub length: usize,
    /// Pixels from one output to the next: 1 or 2.
    pub stride: usize,
    /// Words of a line in working memory.
    pub words: usize,
    /// Lines from one line of output to the next.
    pub line_stride: usize,
    /// From one output to the next, and from one line of output to the next.
    pub steps: [usize; 2],
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

/* Lines of output of one channel of a depthwise 3x3 convolution. */
static inline void $_lines(const uint32_t *from, int8_t *out, const uint32_t *channel, int32_t lines, int32_t length,
                           int32_t stride, int32_t words, int32_t line_stride, int32_t step, int32_t line_step,
                           int32_t zero) {
    const int32_t last[3] = {
        $_half(channel, stride == 1 ? 3 : 6), $_half(channel, 7), $_half(channel, stride == 1 ? 11 : 8)};
    for (int32_t l = 0; l < lines; l++) {
        for (int32_t i = 0; i < length; i++) {
            uint32_t sum = channel[6];
            for (int32_t k = 0; k < 3; k++) {
                const uint32_t *const line = from + (l * line_stride + k) * words;
                const int32_t first = stride == 1 ? 4 * k : 2 * k;
                sum += (uint32_t)($_half(line, i * stride) * $_half(channel, first));
                sum += (uint32_t)($_half(line, i * stride + 1) * $_half(channel, first + 1));
                sum += (uint32_t)($_half(line, i * stride + 2) * last[k]);
            }
            out[l * line_step + i * step] = $_rescale((int32_t)sum, channel[7], zero, 4);
        }
    }
}
#endif"#;

impl Lines {
    /// Whether all distances are immediate operands.
    pub fn fits(&self) -> bool {
        let line = 4 * self.words;
        let all = [2 * line, line * self.line_stride, 4 * self.length, 2 * self.steps[0], self.steps[1]];
        self.length > 0 && all.iter().all(|d| *d <= 4095)
    }

    pub fn name(&self) -> String {
        let Lines { length, stride, words, line_stride, steps: [step, line_step], zero } = self;
        let zero = if *zero < 0 { format!("m{}", -zero) } else { zero.to_string() };
        format!("lines_{length}_{stride}_{words}_{line_stride}_{step}_{line_step}_{zero}")
    }

    pub fn text(&self) -> String {
        let Lines { length, stride, words, line_stride, steps: [step, line_step], zero } = self;
        let name = self.name();
        let body = [true, false].map(|factor| self.lines(factor).join("\n        "));
        format!(
            r#"
/* Lines of output of one channel of a depthwise 3x3 convolution. */
#if @THUMB_DSP && @ARM_FP
$_ASSEMBLY
static void $_{name}(const uint32_t *from $_UNUSED, int8_t *out $_UNUSED, const uint32_t *channel $_UNUSED,
                     int32_t lines $_UNUSED) {{
    __asm__ volatile(
        "push {{r4-r11, lr}}\n\t"
        "vmov s1, r3\n\tvmov s2, r0\n\tvmov s3, r1\n\t"
        "ldm r2, {{r2-r9}}\n\t"
        "cmp r9, #0\n\t"
        "bmi.w 5f\n\t"
        {}
        "pop {{r4-r11, pc}}\n"
        "5:\n\t"
        "vmov s14, r9\n\t"
        {}
        "pop {{r4-r11, pc}}");
}}
#else
static inline void $_{name}(const uint32_t *from, int8_t *out, const uint32_t *channel, int32_t lines) {{
    $_lines(from, out, channel, lines, {length}, {stride}, {words}, {line_stride}, {step}, {line_step}, {zero});
}}
#endif"#,
            body[0], body[1]
        )
    }

    /// All lines, by factor or by scale.
    fn lines(&self, factor: bool) -> Vec<String> {
        let string = |text: &str| format!("\"{}\\n\\t\"", text.replace("; ", "\\n\\t"));
        let line = 4 * self.words;
        let load = |first: &str| format!("{first}; ldr.w r10, [r0, #{line}]; ldr.w r11, [r0, #{}]", 2 * line);
        let [step, line_step] = self.steps;
        let mut all = Vec::new();
        let label = |n: usize| if factor { n } else { n + 2 };
        if self.stride == 1 {
            let start = "smlatb lr, r9, r2, r12; smlad r12, r9, r2, r12; smlatb lr, r10, r4, lr; \
                         smlad r12, r10, r4, r12; smlatb lr, r11, r6, lr; smlad r12, r11, r6, r12";
            let end = "smlabt r12, r9, r3, r12; smlad lr, r9, r3, lr; smlabt r12, r10, r5, r12; \
                       smlad lr, r10, r5, lr; smlabt r12, r11, r7, r12; smlad lr, r11, r7, lr";
            all.push(string(if factor { "vmov s0, r8; mov r8, r9" } else { "vmov s0, r8" }));
            all.push(format!("\"{}:\\n\\t\"", label(1)));
            all.push(string(&format!(
                "vmov r0, s2; vmov r1, s3; addw r9, r0, #{}; vmov s5, r9; vmov r12, s0",
                4 * (self.length / 2)
            )));
            all.push(string(&load("ldr.w r9, [r0]")));
            all.push(string(start));
            if self.length > 1 {
                all.push(format!("\"{}:\\n\\t\"", label(2)));
                all.push(string(&load("ldr.w r9, [r0, #4]!")));
                all.push(string(end));
                all.push(string(&self.bytes(factor, &["r12", "lr"], "r8")));
                all.push(string(&format!("strb.w r12, [r1]; strb.w lr, [r1, #{step}]; addw r1, r1, #{}", 2 * step)));
                all.push(string("vmov r12, s0"));
                all.push(string(start));
                all.push(string(&format!("vmov r9, s5; cmp r0, r9; bne.w {}b", label(2))));
            }
            if self.length % 2 == 1 {
                all.push(string(&load("ldr.w r9, [r0, #4]!")));
                all.push(string("smlabt r12, r9, r3, r12; smlabt r12, r10, r5, r12; smlabt r12, r11, r7, r12"));
                all.push(string(&self.bytes(factor, &["r12"], "r8")));
                all.push(string("strb.w r12, [r1]"));
            }
        } else {
            all.push(string("mov r7, r9"));
            all.push(format!("\"{}:\\n\\t\"", label(1)));
            all.push(string(&format!("vmov r0, s2; vmov r1, s3; addw lr, r0, #{}", 4 * self.length)));
            all.push(string(&load("ldr.w r9, [r0]")));
            all.push(format!("\"{}:\\n\\t\"", label(2)));
            all.push(string("smlad r12, r9, r2, r8; smlad r12, r10, r3, r12; smlad r12, r11, r4, r12"));
            all.push(string(&load("ldr.w r9, [r0, #4]!")));
            all.push(string("smlabb r12, r9, r5, r12; smlabt r12, r10, r5, r12; smlabb r12, r11, r6, r12"));
            all.push(string(&self.bytes(factor, &["r12"], "r7")));
            all.push(string(&match step {
                0..=255 => format!("strb r12, [r1], #{step}"),
                _ => format!("strb.w r12, [r1]; addw r1, r1, #{step}"),
            }));
            all.push(string(&format!("cmp r0, lr; bne.w {}b", label(2))));
        }
        all.push(string(&format!(
            "vmov r0, s2; addw r0, r0, #{}; vmov s2, r0; vmov r1, s3; addw r1, r1, #{line_step}; vmov s3, r1",
            line * self.line_stride
        )));
        all.push(string(&format!("vmov r0, s1; subs r0, #1; vmov s1, r0; bne.w {}b", label(1))));
        all
    }

    /// Turns sums into bytes.
    fn bytes(&self, factor: bool, sums: &[&str], by: &str) -> String {
        let add = |n: i32| format!("{} R, R, #{}", if n < 0 { "subw" } else { "addw" }, n.abs());
        // R stands for a sum, S for a register of the FPU.
        let steps = if factor {
            vec![format!("smmul R, R, {by}"), add(16 * self.zero + 8), "ssat R, #8, R, asr #4".into()]
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
