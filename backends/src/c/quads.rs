//! The helpers that make whole output pixels, two at a time: all channels, four by four, requantised to bytes.
//!
//! As in [`super::pairs`], two channels share each half-word of the weights, and each function is assembly alone. What
//! waits for its turn lies in registers of the FPU, from where it comes back in one cycle. The table of a layer holds eight
//! words for four channels: where their sums start (256 * a + b and b of each pair), then a factor or scale for each
//! channel. The difference of the two sums of a pair is 256 * a, which is requantised as it is.

/// What a layer is to these helpers.
pub const LAYER: &str = r#"
/* A layer of channels by fours: its weights, its table to its end, groups of four values in a row, bytes from one output
 * pixel to the next (0: only the first is kept) and the zero point of the output. */
struct $_layer {
    const int8_t *weights;
    const uint32_t *table;
    const uint32_t *end;
    int32_t groups;
    int32_t step;
    int32_t zero;
};"#;

/// One sum to a byte, as the assembly does it.
pub const RESCALE: &str = r#"
/* A sum to a byte by a scale, of which the negative is given: few channels have to, so no place of use has a copy. */
#if defined(__GNUC__)
__attribute__((noinline))
#endif
static int8_t $_by_scale(int32_t sum, uint32_t scale, int32_t zero) {
    return (int8_t)$_round_to_s8(-$_mul((float)sum, $_f_of_bits(scale)), zero);
}

/* A sum to a byte: sum * factor / 2^(32 + shift), rounded half up, or by a scale, of which the negative is given. */
static inline int8_t $_rescale(int32_t sum, uint32_t factor, int32_t zero, int32_t shift) {
    if (factor >> 31 != 0u) {
        return $_by_scale(sum, factor, zero);
    }
    const int32_t scaled = (int32_t)((int64_t)sum * (int32_t)factor >> 32);
    const int32_t start = (int32_t)((uint32_t)(2 * zero + 1) << (shift - 1));
    return (int8_t)$_max($_min((scaled + start) >> shift, 127), -128);
}"#;

/// The pieces that the functions of assembly are made of.
pub const PIECES: &str = r#"
#if @THUMB_DSP && @ARM_FP
/* Registers: r0 the rows, r1 the weights; r4, r5 and r6, r7 the first pair of channels of both pixels, r8 to r11 the
 * second one; the rest for what is loaded. s2 table, s5 and s6 where both pixels go, s7 end, s8 and s10 zero point. Between
 * the sums of four channels, r0 is the table. */
#define $_QUAD_LAYER \
    "push {r4-r11, lr}\n\t" \
    "ldm r2, {r4-r9}\n\t" \
    "add r10, r8, r1\n\tvmov s2, r5\n\tvmov s5, r1\n\tvmov s6, r10\n\tvmov s7, r6\n\tvmov s10, r9\n\t" \
    "lsls r9, r9, #@SHIFT\n\tadds r9, #(1 << (@SHIFT - 1))\n\tvmov s8, r9\n\tmov r1, r4\n\t"
#define $_QUAD_START \
    "ldmia r0!, {r4, r5, r8, r9}\n\tvmov s2, r0\n\t"
#define $_QUAD_COPY \
    "mov r6, r4\n\tmov r7, r5\n\tmov r10, r8\n\tmov r11, r9\n\t"
#define $_QUAD_WEIGHTS(at) \
    "ldr.w r2, [r1, #" at "]\n\tldr.w r3, [r1, #" at "+4]\n\t"
#define $_QUAD_SUMS(x, y) \
    "smlad r4, r2, " x ", r4\n\tsmlad r6, r2, " y ", r6\n\tsxtb16 r2, r2\n\t" \
    "smlad r8, r3, " x ", r8\n\tsmlad r10, r3, " y ", r10\n\tsxtb16 r3, r3\n\t" \
    "smlad r5, r2, " x ", r5\n\tsmlad r7, r2, " y ", r7\n\t" \
    "smlad r9, r3, " x ", r9\n\tsmlad r11, r3, " y ", r11\n\t"
/* The first products, of sums that start alike for both pixels. */
#define $_QUAD_FIRST(x, y) \
    "smlad r6, r2, " y ", r4\n\tsmlad r4, r2, " x ", r4\n\tsxtb16 r2, r2\n\t" \
    "smlad r10, r3, " y ", r8\n\tsmlad r8, r3, " x ", r8\n\tsxtb16 r3, r3\n\t" \
    "smlad r7, r2, " y ", r5\n\tsmlad r5, r2, " x ", r5\n\t" \
    "smlad r11, r3, " y ", r9\n\tsmlad r9, r3, " x ", r9\n\t"
/* A channel of both pixels, by factor or by scale. */
#define $_QUAD_FACTOR(x, y, m, start) \
    "smmla " x ", " x ", " m ", " start "\n\tsmmla " y ", " y ", " m ", " start "\n\t"
#define $_QUAD_BYTES(x, y, shift) \
    "ssat " x ", #8, " x ", asr #(" shift ")\n\tssat " y ", #8, " y ", asr #(" shift ")\n\t"
#define $_QUAD_SCALE(x, y, m) \
    "vmov s12, " x "\n\tvmov s13, " y "\n\tvmov s14, " m "\n\tvmov " m ", s10\n\t" \
    "vcvt.f32.s32 s12, s12\n\tvcvt.f32.s32 s13, s13\n\tvnmul.f32 s12, s12, s14\n\tvnmul.f32 s13, s13, s14\n\t" \
    "vcvtr.s32.f32 s12, s12\n\tvcvtr.s32.f32 s13, s13\n\tvmov " x ", s12\n\tvmov " y ", s13\n\t" \
    "qadd " x ", " x ", " m "\n\tqadd " y ", " y ", " m "\n\tssat " x ", #8, " x "\n\tssat " y ", #8, " y "\n\t"
/* A pair of channels of both pixels; where one of them has a scale, it goes another way. */
#define $_QUAD_PAIR(n, xa, ya, xb, yb) \
    "ldmia r0!, {r2, r3}\n\torrs.w lr, r2, r3\n\tbmi.w 6" n "f\n\tlsl lr, r12, #8\n\t" \
    $_QUAD_FACTOR(xa, ya, "r2", "lr") $_QUAD_FACTOR(xb, yb, "r3", "r12") \
    $_QUAD_BYTES(xa, ya, "8 + @SHIFT") $_QUAD_BYTES(xb, yb, "@SHIFT") "7" n ":\n\t"
#define $_QUAD_PAIR_BY_SCALE(n, xa, ya, xb, yb) \
    "6" n ":\n\tlsl lr, r12, #8\n\tcmp r2, #0\n\tbmi 8" n "f\n\t" \
    $_QUAD_FACTOR(xa, ya, "r2", "lr") $_QUAD_BYTES(xa, ya, "8 + @SHIFT") "b 9" n "f\n" \
    "8" n ":\n\t" $_QUAD_SCALE(xa, ya, "r2") \
    "9" n ":\n\tcmp r3, #0\n\tbmi 8" n "f\n\t" \
    $_QUAD_FACTOR(xb, yb, "r3", "r12") $_QUAD_BYTES(xb, yb, "@SHIFT") "b 7" n "b\n" \
    "8" n ":\n\t" $_QUAD_SCALE(xb, yb, "r3") "b 7" n "b\n\t"
/* Ends four channels; goes back to 2 for the next ones, or on with what is done after the last ones. The second pixel comes
 * first, as it may be a dummy at the same place. */
#define $_QUAD_END $_QUAD_END_BY("")
#define $_QUAD_END_BY(done) \
    "vmov r0, s2\n\tvmov r12, s8\n\t" \
    "subs r4, r4, r5\n\tsubs r6, r6, r7\n\tsub r8, r8, r9\n\tsub r10, r10, r11\n\t" \
    $_QUAD_PAIR("0", "r4", "r6", "r5", "r7") $_QUAD_PAIR("1", "r8", "r10", "r9", "r11") \
    "vmov r12, s5\n\tvmov lr, s6\n\t" \
    "strb r6, [lr], #4\n\tstrb r7, [lr, #-3]\n\tstrb r10, [lr, #-2]\n\tstrb r11, [lr, #-1]\n\t" \
    "strb r4, [r12], #4\n\tstrb r5, [r12, #-3]\n\tstrb r8, [r12, #-2]\n\tstrb r9, [r12, #-1]\n\t" \
    "vmov s5, r12\n\tvmov s6, lr\n\tvmov r2, s7\n\tcmp r0, r2\n\tbne.w 2b\n\t" \
    done "pop {r4-r11, pc}\n" \
    $_QUAD_PAIR_BY_SCALE("0", "r4", "r6", "r5", "r7") $_QUAD_PAIR_BY_SCALE("1", "r8", "r10", "r9", "r11")
#else
/* Sums of two pixels and four channels: of each pair and pixel 256 * a + b, then b. */
struct $_quad {
    int32_t both[4];
    int32_t low[4];
};

static inline void $_quad_start(struct $_quad *q, const uint32_t *table) {
    for (int32_t i = 0; i < 4; i++) {
        q->both[i] = (int32_t)table[i / 2 * 2];
        q->low[i] = (int32_t)table[i / 2 * 2 + 1];
    }
}

static inline void $_quad_sums(struct $_quad *q, const int8_t *w, const uint32_t x[2]) {
    for (int32_t i = 0; i < 4; i++) {
        const uint32_t pair = $_load_4(w + i / 2 * 4);
        q->both[i] = $_smlad(pair, x[i % 2], q->both[i]);
        q->low[i] = $_smlad($_sxtb16(pair), x[i % 2], q->low[i]);
    }
}

static inline void $_quad_end(const struct $_quad *q, const uint32_t *factors, int8_t *out, int32_t step, int32_t zero) {
    for (int32_t i = 3; i >= 0; i--) {
        int8_t *const to = out + i % 2 * step + i / 2 * 2;
        const int32_t high = (int32_t)((uint32_t)q->both[i] - (uint32_t)q->low[i]);
        to[0] = $_rescale(high, factors[i / 2 * 2], zero, 8 + @SHIFT);
        to[1] = $_rescale(q->low[i], factors[i / 2 * 2 + 1], zero, @SHIFT);
    }
}
#endif"#;

pub const QUADS: &str = r#"
/* Output pixels of a layer, two by two, each two from two interleaved widened rows. */
#if @THUMB_DSP && @ARM_FP
#define $_QUAD_GROUP(at) \
    $_QUAD_WEIGHTS(at "+4") "ldr.w r12, [r0, #" at "+4]\n\tldr.w lr, [r0, #" at "+12]\n\t" $_QUAD_SUMS("r12", "lr") \
    $_QUAD_WEIGHTS(at "+12") "ldr.w r12, [r0, #" at "+8]\n\tldr.w lr, [r0, #" at "+16]\n\t" $_QUAD_SUMS("r12", "lr")
$_ASSEMBLY
static void $_quads(const uint32_t *rows $_UNUSED, int8_t *out $_UNUSED, const struct $_layer *layer $_UNUSED,
                    int32_t pairs $_UNUSED) {
    __asm__ volatile(
        $_QUAD_LAYER
        /* Both pointers stand four bytes before what is read, so that the last loads of a round move them on. */
        "subs r0, #4\n\tsubs r1, #4\n\tvmov s1, r1\n\tvmov s9, r5\n\tvmov s15, r3\n\t"
        "add r10, r0, r7, lsl #4\n\tvmov s3, r10\n\t"
        /* The groups that the first round skips, of 112 bytes of code each. */
        "rsb r7, r7, #0\n\t"
        "and r7, r7, #7\n\t"
        "lsls r2, r7, #4\n\tvmov s11, r2\n\t"
        "subs r0, r0, r2\n\tvmov s0, r0\n\t"
        "rsb r7, r7, r7, lsl #3\n\tlsls r7, r7, #4\n\tvmov s4, r7\n\t"
        "mov r0, r5\n"
        "2:\n\t"
        $_QUAD_START $_QUAD_COPY
        "vmov r0, s0\n\tvmov r2, s11\n\tvmov r12, s4\n\t"
        "subs r1, r1, r2\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        $_QUAD_GROUP("0") $_QUAD_GROUP("16") $_QUAD_GROUP("32") $_QUAD_GROUP("48")
        $_QUAD_GROUP("64") $_QUAD_GROUP("80") $_QUAD_GROUP("96")
        $_QUAD_WEIGHTS("116") "ldr.w r12, [r0, #116]\n\tldr.w lr, [r0, #124]\n\t" $_QUAD_SUMS("r12", "lr")
        "ldr.w r2, [r1, #124]\n\tldr.w r12, [r0, #120]\n\tldr r3, [r1, #128]!\n\tldr lr, [r0, #128]!\n\t"
        $_QUAD_SUMS("r12", "lr")
        "vmov r2, s3\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        /* The next two pixels begin where these have ended, and so do their rows. */
        $_QUAD_END_BY(
            "vmov r2, s15\n\tsubs r2, #1\n\tbeq.w 5f\n\tvmov s15, r2\n\t"
            "sub r3, lr, r12\n\tvmov s5, lr\n\tadd lr, r3\n\tvmov s6, lr\n\t"
            "vmov r2, s3\n\tvmov r3, s11\n\tvmov r0, s0\n\tsubs r3, r2, r3\n\tvmov s0, r3\n\t"
            "subs r3, r3, r0\n\tadd r2, r3\n\tvmov s3, r2\n\tvmov r1, s1\n\tvmov r0, s9\n\tb.w 2b\n"
            "5:\n\t"));
}
#else
static inline void $_quads(const uint32_t *rows, int8_t *out, const struct $_layer *layer, int32_t pairs) {
    for (; pairs > 0; pairs--, rows += 4 * layer->groups, out += 2 * layer->step) {
        const int8_t *w = layer->weights;
        int8_t *to = out;
        for (const uint32_t *table = layer->table; table != layer->end; table += 8, to += 4) {
            struct $_quad q;
            $_quad_start(&q, table);
            for (int32_t k = 0; k < 2 * layer->groups; k++, w += 8) {
                const uint32_t x[2] = {rows[k / 2 * 4 + k % 2], rows[k / 2 * 4 + k % 2 + 2]};
                $_quad_sums(&q, w, x);
            }
            $_quad_end(&q, table + 4, to, layer->step, layer->zero);
        }
    }
}
#endif"#;

/// The portable form of all functions that [`window`] makes.
pub const WINDOW: &str = r#"
#if !(@THUMB_DSP && @ARM_FP)
/* Two output pixels from the rows of their windows, each from word first on: height x width taps of as many words. */
static inline void $_window(const uint32_t *const *rows, int8_t *out, const struct $_layer *layer, int32_t first,
                            int32_t height, int32_t width, int32_t words, int32_t stride) {
    const int8_t *w = layer->weights;
    for (const uint32_t *table = layer->table; table != layer->end; table += 8, out += 4) {
        struct $_quad q;
        $_quad_start(&q, table);
        for (int32_t ky = 0; ky < height; ky++) {
            const uint32_t *const row = rows[ky] + first;
            for (int32_t k = 0; k < width * words; k++, w += 8) {
                const uint32_t x[2] = {row[k], row[k + stride * words]};
                $_quad_sums(&q, w, x);
            }
        }
        $_quad_end(&q, table + 4, out, layer->step, layer->zero);
    }
}
#endif"#;

/// A function of the kind of [`WINDOW`] for one shape.
pub struct Window {
    /// Bytes of the list of rows.
    pub list: usize,
    /// Bytes of a pixel, where the inner loop takes several rounds for them.
    pub row: Option<usize>,
    /// Bytes of a pixel that one round takes.
    pub step: usize,
    /// Bytes of weights from the last round of one row to the next row.
    pub next: usize,
    /// The body of a round.
    pub macs: Vec<String>,
}

/// Prints a function; `portable` is the call that does the same.
pub fn window(name: &str, window: &Window, portable: &str) -> String {
    let Window { list, row, step, next, macs } = window;
    let (enter, again) = match row {
        Some(row) => (
            format!("\"add r3, r0, #{row}\\n\\tvmov s11, r3\\n1:\\n\\t\""),
            format!(
                "\"adds r0, #{step}\\n\\tadds r1, #{}\\n\\tvmov r2, s11\\n\\tcmp r0, r2\\n\\tbne.w 1b\\n\\t\"",
                2 * step
            ),
        ),
        None => (String::new(), String::new()),
    };
    let body = macs.join("\n        ");
    format!(
        r#"
/* Two output pixels from the rows of their windows, each from word first on. */
#if @THUMB_DSP && @ARM_FP
$_ASSEMBLY
static void $_{name}(const uint32_t *const *rows $_UNUSED, int8_t *out $_UNUSED, const struct $_layer *layer $_UNUSED,
                     int32_t first $_UNUSED) {{
    __asm__ volatile(
        $_QUAD_LAYER
        "vmov s0, r0\n\tvmov s3, r3\n\tadds r0, #{list}\n\tvmov s4, r0\n\tmov r0, r5\n"
        "2:\n\t"
        $_QUAD_START $_QUAD_COPY
        "vmov r12, s0\n"
        "3:\n\t"
        "ldr r0, [r12], #4\n\tvmov r3, s3\n\tadd r0, r0, r3, lsl #2\n\tvmov s9, r12\n\t"
        {enter}
        {body}
        {again}
        "addw r1, r1, #{next}\n\tvmov r12, s9\n\tvmov r2, s4\n\tcmp r12, r2\n\tbne.w 3b\n\t"
        $_QUAD_END);
}}
#else
static inline void $_{name}(const uint32_t *const *rows, int8_t *out, const struct $_layer *layer, int32_t first) {{
    {portable}
}}
#endif"#
    )
}

/// The portable form of all functions of [`Runs`].
pub const RUNS: &str = r#"
#if !(@THUMB_DSP && @ARM_FP)
/* Output pixels, two by two, from rows of half-words: windows of so many rows of so many words, half-words from one row and
 * from one window to the next. */
static inline void $_runs(const int16_t *rows, int8_t *out, const struct $_layer *layer, int32_t pairs, int32_t height,
                          int32_t words, int32_t row, int32_t next) {
    for (; pairs > 0; pairs--, rows += 2 * next, out += 2 * layer->step) {
        const int8_t *w = layer->weights;
        int8_t *to = out;
        for (const uint32_t *table = layer->table; table != layer->end; table += 8, to += 4) {
            struct $_quad q;
            $_quad_start(&q, table);
            for (int32_t k = 0; k < height * words; k++, w += 8) {
                const int16_t *const at = rows + k / words * row + k % words * 2;
                const uint32_t x[2] = {$_load_4(at), $_load_4(at + next)};
                $_quad_sums(&q, w, x);
            }
            $_quad_end(&q, table + 4, to, layer->step, layer->zero);
        }
    }
}
#endif"#;

/// A function of the kind of [`RUNS`] for one shape; distances in bytes.
pub struct Runs {
    /// Rows of a window.
    pub height: usize,
    /// Words of a row.
    pub words: usize,
    /// From one row to the next.
    pub row: usize,
    /// From one window to the next.
    pub next: usize,
}

impl Runs {
    /// Whether all distances are immediate operands.
    pub fn fits(&self) -> bool {
        (self.height - 1) * self.row + 4 * self.words + self.next <= 4095 && 2 * self.next <= 4095
    }

    pub fn name(&self) -> String {
        let Runs { height, words, row, next } = self;
        format!("runs_{height}x{words}_{row}_{next}")
    }

    pub fn text(&self) -> String {
        let Runs { height, words, row, next } = self;
        let name = self.name();
        let places = (0..*height).flat_map(|y| (0..*words).map(move |k| y * row + 4 * k));
        let macs = places.enumerate().map(|(i, at)| {
            let sums = if i == 0 { "FIRST" } else { "SUMS" };
            format!(
                "$_QUAD_WEIGHTS(\"{}\") \"ldr.w r12, [r0, #{at}]\\n\\tldr.w lr, [r0, #{}]\\n\\t\" $_QUAD_{sums}(\"r12\", \"lr\")",
                8 * i,
                at + next
            )
        });
        let macs = macs.collect::<Vec<_>>().join("\n        ");
        format!(
            r#"
/* Output pixels, two by two, from rows of half-words. */
#if @THUMB_DSP && @ARM_FP
$_ASSEMBLY
static void $_{name}(const int16_t *rows $_UNUSED, int8_t *out $_UNUSED, const struct $_layer *layer $_UNUSED,
                     int32_t pairs $_UNUSED) {{
    __asm__ volatile(
        $_QUAD_LAYER
        "vmov s0, r0\n\tvmov s1, r1\n\tvmov s4, r3\n\tvmov s9, r5\n\tvmov s11, r8\n\tmov r0, r5\n"
        "2:\n\t"
        $_QUAD_START
        "vmov r0, s0\n\t"
        {macs}
        "addw r1, r1, #{}\n\t"
        /* The next two pixels begin where these have ended. */
        $_QUAD_END_BY(
            "vmov r2, s4\n\tsubs r2, #1\n\tbeq.w 5f\n\tvmov s4, r2\n\t"
            "vmov r3, s11\n\tvmov s5, lr\n\tadd lr, r3\n\tvmov s6, lr\n\t"
            "vmov r0, s0\n\taddw r0, r0, #{}\n\tvmov s0, r0\n\tvmov r1, s1\n\tvmov r0, s9\n\tb.w 2b\n"
            "5:\n\t"));
}}
#else
static inline void $_{name}(const int16_t *rows, int8_t *out, const struct $_layer *layer, int32_t pairs) {{
    $_runs(rows, out, layer, pairs, {height}, {words}, {}, {});
}}
#endif"#,
            8 * height * words,
            2 * next,
            row / 2,
            next / 2,
        )
    }
}

/// The loop over pixels whose rows lie in x one after the other; BITS, BYTE and EXTEND stand for the type of x.
const PIXELS: &str = r#"
/* Output pixels of a layer from contiguous rows of x, whose number of values 4 divides, an even number of them at a time;
 * from the last ones down, if so asked. */
$_SHARED
static void $_pixels_BITS(const BYTE *x, uint32_t *rows, int8_t *out, const struct $_layer *layer, int32_t pixels,
                         int32_t block, int down) {
    const int32_t depth = 4 * layer->groups;
    for (int32_t done = 0; done < pixels; done += block) {
        const int32_t p = down ? (pixels - 1) / block * block - done : done;
        const int32_t n = pixels - p < block ? pixels - p : block;
        const BYTE *at = x + p * depth;
        uint32_t *to = rows;
        for (int32_t i = 0; i < n; i += 2, at += depth) {
            /* A last pixel by itself is there twice. */
            const BYTE *from = i + 1 == n ? at : at + depth;
            const BYTE *const end = at + (depth & ~7);
            for (; at != end; at += 8, from += 8, to += 8) {
                const uint32_t a = $_load_4(at), b = $_load_4(at + 4), c = $_load_4(from), d = $_load_4(from + 4);
                to[0] = $_EXTEND(a);
                to[1] = $_EXTEND_ror8(a);
                to[2] = $_EXTEND(c);
                to[3] = $_EXTEND_ror8(c);
                to[4] = $_EXTEND(b);
                to[5] = $_EXTEND_ror8(b);
                to[6] = $_EXTEND(d);
                to[7] = $_EXTEND_ror8(d);
            }
            if ((depth & 4) != 0) {
                const uint32_t a = $_load_4(at), c = $_load_4(from);
                to[0] = $_EXTEND(a);
                to[1] = $_EXTEND_ror8(a);
                to[2] = $_EXTEND(c);
                to[3] = $_EXTEND_ror8(c);
                at += 4;
                to += 4;
            }
        }
        int8_t *const pixel = out + p * layer->step;
        if (n > 1) {
            $_quads(rows, pixel, layer, n / 2);
        }
        if (n % 2 != 0) {
            struct $_layer last = *layer;
            last.step = 0;
            $_quads(rows + n / 2 * depth, pixel + (n - 1) * layer->step, &last, 1);
        }
    }
}"#;

/// The helper for signed or unsigned bytes.
pub fn pixels(unsigned: bool) -> String {
    let [bits, byte, extend] = if unsigned { ["u8", "uint8_t", "uxtb16"] } else { ["s8", "int8_t", "sxtb16"] };
    PIXELS.replace("BITS", bits).replace("BYTE", byte).replace("EXTEND", extend)
}
