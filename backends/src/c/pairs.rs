//! The helpers that multiply by weights in pairs ([`mcc_ir::packing::Packing::Pairs`]).
//!
//! They are functions of assembly alone, as each needs all fourteen registers. A group is four values of each row. The
//! loop is entered in its middle where the number of groups is no multiple of eight or four. Loads stand in runs, which the
//! core pipelines. The plan of registers follows from two facts: the raw word is dead once it is widened, so it is widened
//! in place; and a word of weights serves all rows, a word of a row all channels.

/// How a function that many layers share is declared: that it is there once.
pub const SHARED: &str = r#"
#if defined(__clang__)
#define $_SHARED __attribute__((noinline))
#elif defined(__GNUC__)
#define $_SHARED __attribute__((noipa))
#else
#define $_SHARED
#endif"#;

/// How a function that is only assembly is declared.
pub const ASSEMBLY: &str = r#"
#if @THUMB_DSP
#if defined(__clang__)
#define $_ASSEMBLY __attribute__((naked, noinline))
#else
#define $_ASSEMBLY __attribute__((naked, noipa))
#endif
#define $_UNUSED __attribute__((unused))
#endif"#;

pub const PAIRS_2X4: &str = r#"
/* Products of two interleaved widened rows with four channels of paired weights, plus first[channel].
 * s: channels 0, 1 of row 0, then of row 1; channels 2, 3 of row 0, then of row 1. */
#if @THUMB_DSP
#define $_PAIR_2X4(at) \
    "ldr.w r2, [r1, #" at "]\n\tldr.w r3, [r1, #" at "+4]\n\t"
#define $_ROWS_2X4(at) \
    "ldr.w r12, [r0, #" at "]\n\tldr.w lr, [r0, #" at "+8]\n\t" \
    "smlad r4, r2, r12, r4\n\tsmlad r6, r2, lr, r6\n\tsxtb16 r2, r2\n\t" \
    "smlad r8, r3, r12, r8\n\tsmlad r10, r3, lr, r10\n\tsxtb16 r3, r3\n\t" \
    "smlad r5, r2, r12, r5\n\tsmlad r7, r2, lr, r7\n\t" \
    "smlad r9, r3, r12, r9\n\tsmlad r11, r3, lr, r11\n\t"
#define $_GROUP_2X4(at) $_PAIR_2X4(at) $_ROWS_2X4(at) $_PAIR_2X4(at "+8") $_ROWS_2X4(at "+4")
$_ASSEMBLY
static void $_pairs_2x4(const uint32_t *a $_UNUSED, const int8_t *w $_UNUSED, int32_t *s $_UNUSED,
                        const int32_t *first $_UNUSED, int32_t groups $_UNUSED) {
    __asm__ volatile(
        "push {r2-r11, lr}\n\t"
        "ldr r12, [sp, #44]\n\t"
        "add r4, r0, r12, lsl #4\n\t"
        "str r4, [sp, #-4]!\n\t"
        /* The groups that the first round skips, of 112 bytes of code each. */
        "rsb r12, r12, #0\n\t"
        "and r12, r12, #7\n\t"
        "sub r0, r0, r12, lsl #4\n\t"
        "sub r1, r1, r12, lsl #4\n\t"
        "rsb r12, r12, r12, lsl #3\n\t"
        "lsl r12, r12, #4\n\t"
        "mov.w r4, #0\n\tmov r5, r4\n\tmov r6, r4\n\tmov r7, r4\n\t"
        "mov r8, r4\n\tmov r9, r4\n\tmov r10, r4\n\tmov r11, r4\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        $_GROUP_2X4("0") $_GROUP_2X4("16") $_GROUP_2X4("32") $_GROUP_2X4("48")
        $_GROUP_2X4("64") $_GROUP_2X4("80") $_GROUP_2X4("96") $_GROUP_2X4("112")
        "ldr r2, [sp]\n\t"
        "adds r0, #128\n\t"
        "adds r1, #128\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, #4\n\t"
        "pop {r2, r3}\n\t"
        "ldrd r12, lr, [r3]\n\t"
        "subs r4, r4, r5\n\tadd.w r4, r12, r4, asr #8\n\tadd r5, lr\n\t"
        "subs r6, r6, r7\n\tadd.w r6, r12, r6, asr #8\n\tadd r7, lr\n\t"
        "ldrd r12, lr, [r3, #8]\n\t"
        "sub r8, r8, r9\n\tadd.w r8, r12, r8, asr #8\n\tadd r9, lr\n\t"
        "sub r10, r10, r11\n\tadd.w r10, r12, r10, asr #8\n\tadd r11, lr\n\t"
        "stmia r2, {r4-r11}\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_pairs_2x4(const uint32_t *a, const int8_t *w, int32_t *s, const int32_t *first, int32_t groups) {
    int32_t both[4] = {0}, low[4] = {0};
    for (; groups > 0; groups--, a += 4, w += 16) {
        for (int32_t k = 0; k < 4; k++) {
            const uint32_t q = $_load_4(w + 4 * k);
            for (int32_t i = 0; i < 2; i++) {
                const int32_t at = k % 2 * 2 + i;
                both[at] = $_smlad(q, a[2 * i + k / 2], both[at]);
                low[at] = $_smlad($_sxtb16(q), a[2 * i + k / 2], low[at]);
            }
        }
    }
    for (int32_t i = 0; i < 4; i++) {
        const int32_t high = (int32_t)((uint32_t)both[i] - (uint32_t)low[i]) / 256;
        s[2 * i] = (int32_t)((uint32_t)first[i / 2 * 2] + (uint32_t)high);
        s[2 * i + 1] = (int32_t)((uint32_t)first[i / 2 * 2 + 1] + (uint32_t)low[i]);
    }
}
#endif"#;

/// The products of a row with eight channels, for [`PAIRS_1X8`] and [`ROW`].
pub const GROUP_1X8: &str = r#"
#if @THUMB_DSP
#define $_BOTH_1X8(q, x, both, low) \
    "smlad " both ", " q ", " x ", " both "\n\tsxtb16 " q ", " q "\n\tsmlad " low ", " q ", " x ", " low "\n\t"
/* x and y: where the row's two words are, and what is done to them. */
#define $_GROUP_1X8_BY(x, to_x, y, to_y, w) \
    "ldr.w r2, " x "\n\tldr.w r3, [r1, #" w "]\n\tldr.w r12, [r1, #" w "+4]\n\tldr.w lr, [r1, #" w "+8]\n\t" to_x \
    $_BOTH_1X8("r3", "r2", "r4", "r5") $_BOTH_1X8("r12", "r2", "r6", "r7") $_BOTH_1X8("lr", "r2", "r8", "r9") \
    "ldr.w r3, [r1, #" w "+12]\n\tldr.w r12, " y "\n\tldr.w lr, [r1, #" w "+16]\n\t" to_y \
    $_BOTH_1X8("r3", "r2", "r10", "r11") $_BOTH_1X8("lr", "r12", "r4", "r5") \
    "ldr.w r2, [r1, #" w "+20]\n\tldr.w r3, [r1, #" w "+24]\n\tldr.w lr, [r1, #" w "+28]\n\t" \
    $_BOTH_1X8("r2", "r12", "r6", "r7") $_BOTH_1X8("r3", "r12", "r8", "r9") $_BOTH_1X8("lr", "r12", "r10", "r11")
#define $_GROUP_1X8(x, w) $_GROUP_1X8_BY("[r0, #" x "]", "", "[r0, #" x "+4]", "", w)
#endif"#;

pub const PAIRS_1X8: &str = r#"
/* Products of a widened row with eight channels of paired weights, plus first[channel]. */
#if @THUMB_DSP
$_ASSEMBLY
static void $_pairs_1x8(const uint32_t *a $_UNUSED, const int8_t *w $_UNUSED, int32_t *s $_UNUSED,
                        const int32_t *first $_UNUSED, int32_t groups $_UNUSED) {
    __asm__ volatile(
        "push {r2-r11, lr}\n\t"
        "ldr r12, [sp, #44]\n\t"
        "add r4, r0, r12, lsl #3\n\t"
        "str r4, [sp, #-4]!\n\t"
        /* The groups that the first round skips, of 136 bytes of code each. */
        "rsb r12, r12, #0\n\t"
        "and r12, r12, #3\n\t"
        "sub r0, r0, r12, lsl #3\n\t"
        "sub r1, r1, r12, lsl #5\n\t"
        "add r12, r12, r12, lsl #4\n\t"
        "lsl r12, r12, #3\n\t"
        "mov.w r4, #0\n\tmov r5, r4\n\tmov r6, r4\n\tmov r7, r4\n\t"
        "mov r8, r4\n\tmov r9, r4\n\tmov r10, r4\n\tmov r11, r4\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        $_GROUP_1X8("0", "0") $_GROUP_1X8("8", "32") $_GROUP_1X8("16", "64") $_GROUP_1X8("24", "96")
        "ldr r2, [sp]\n\t"
        "adds r0, #32\n\t"
        "adds r1, #128\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, #4\n\t"
        "pop {r2, r3}\n\t"
        "ldrd r12, lr, [r3]\n\t"
        "subs r4, r4, r5\n\tadd.w r4, r12, r4, asr #8\n\tadd r5, lr\n\t"
        "ldrd r12, lr, [r3, #8]\n\t"
        "subs r6, r6, r7\n\tadd.w r6, r12, r6, asr #8\n\tadd r7, lr\n\t"
        "ldrd r12, lr, [r3, #16]\n\t"
        "sub r8, r8, r9\n\tadd.w r8, r12, r8, asr #8\n\tadd r9, lr\n\t"
        "ldrd r12, lr, [r3, #24]\n\t"
        "sub r10, r10, r11\n\tadd.w r10, r12, r10, asr #8\n\tadd r11, lr\n\t"
        "stmia r2, {r4-r11}\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_pairs_1x8(const uint32_t *a, const int8_t *w, int32_t *s, const int32_t *first, int32_t groups) {
    int32_t both[4] = {0}, low[4] = {0};
    for (; groups > 0; groups--, a += 2, w += 32) {
        for (int32_t k = 0; k < 8; k++) {
            const uint32_t q = $_load_4(w + 4 * k);
            both[k % 4] = $_smlad(q, a[k / 4], both[k % 4]);
            low[k % 4] = $_smlad($_sxtb16(q), a[k / 4], low[k % 4]);
        }
    }
    for (int32_t i = 0; i < 4; i++) {
        const int32_t high = (int32_t)((uint32_t)both[i] - (uint32_t)low[i]) / 256;
        s[2 * i] = (int32_t)((uint32_t)first[2 * i] + (uint32_t)high);
        s[2 * i + 1] = (int32_t)((uint32_t)first[2 * i + 1] + (uint32_t)low[i]);
    }
}
#endif"#;

/// The parts of [`ROW`] that do not depend on how the row lies.
pub const ROW_PIECES: &str = r#"
/* A layer of channels by eights from one row. A block of its table: of each pair of channels 256 * a + b and b, where
 * their sums start. All are requantised by one factor, or by a scale, of which the negative is given. */
#if @THUMB_DSP && @ARM_FP
#define $_ROW_BY_SCALE(x) \
    "vmov s12, " x "\n\tvcvt.f32.s32 s12, s12\n\tvnmul.f32 s12, s12, s9\n\tvcvtr.s32.f32 s12, s12\n\t" \
    "vmov " x ", s12\n\tqadd " x ", " x ", r3\n\tssat " x ", #8, " x "\n\t"
#endif"#;

/// The function for one kind of row.
const ROW: &str = r#"
#if @THUMB_DSP && @ARM_FP
$_ASSEMBLY
static void $_row_KIND(const ELEMENT *row $_UNUSED, int8_t *out $_UNUSED, const struct $_layer *layer $_UNUSED,
                  uint32_t factor $_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r2, {r4-r9}\n\t"
        "vmov s5, r1\n\tvmov s7, r6\n\tvmov s9, r3\n\tvmov s10, r9\n\t"
        "lsls r9, r9, #@SHIFT\n\tadds r9, #(1 << (@SHIFT - 1))\n\tvmov s8, r9\n\t"
        /* The row's pointer stands four bytes before what is read, so that the last load of a round moves it on. */
        "subs r0, #4\n\tadd r10, r0, r7, lsl #LOG\n\tvmov s3, r10\n\t"
        /* The groups that the first round skips, of SIZE bytes of code each. */
        "rsb r7, r7, #0\n\tand r7, r7, #7\n\t"
        "sub r0, r0, r7, lsl #LOG\n\tvmov s0, r0\n\tlsls r2, r7, #5\n\tvmov s11, r2\n\t"
        "movs r2, #SIZE\n\tmuls r7, r2\n\tvmov s4, r7\n\t"
        "mov r1, r4\n\tmov r0, r5\n"
        "2:\n\t"
        "ldmia r0!, {r4-r11}\n\tvmov s2, r0\n\t"
        "vmov r0, s0\n\tvmov r2, s11\n\tvmov r12, s4\n\tsubs r1, r1, r2\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        GROUPS
        "add.w r1, r1, #256\n\t"
        "vmov r2, s3\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "subs r4, r4, r5\n\tsubs r6, r6, r7\n\tsub r8, r8, r9\n\tsub r10, r10, r11\n\t"
        "vmov r2, s9\n\tcmp r2, #0\n\tbmi.w 5f\n\tvmov r3, s8\n\tlsl r12, r3, #8\n\t"
        "smmla r4, r4, r2, r12\n\tsmmla r5, r5, r2, r3\n\tsmmla r6, r6, r2, r12\n\tsmmla r7, r7, r2, r3\n\t"
        "smmla r8, r8, r2, r12\n\tsmmla r9, r9, r2, r3\n\tsmmla r10, r10, r2, r12\n\tsmmla r11, r11, r2, r3\n\t"
        "ssat r4, #8, r4, asr #(8 + @SHIFT)\n\tssat r5, #8, r5, asr #@SHIFT\n\t"
        "ssat r6, #8, r6, asr #(8 + @SHIFT)\n\tssat r7, #8, r7, asr #@SHIFT\n\t"
        "ssat r8, #8, r8, asr #(8 + @SHIFT)\n\tssat r9, #8, r9, asr #@SHIFT\n\t"
        "ssat r10, #8, r10, asr #(8 + @SHIFT)\n\tssat r11, #8, r11, asr #@SHIFT\n"
        "3:\n\t"
        "vmov r3, s5\n\t"
        "strb r4, [r3]\n\tstrb r5, [r3, #1]\n\tstrb r6, [r3, #2]\n\tstrb r7, [r3, #3]\n\t"
        "strb.w r8, [r3, #4]\n\tstrb.w r9, [r3, #5]\n\tstrb.w r10, [r3, #6]\n\tstrb.w r11, [r3, #7]\n\t"
        "adds r3, #8\n\tvmov s5, r3\n\t"
        "vmov r0, s2\n\tvmov r2, s7\n\tcmp r0, r2\n\tbne.w 2b\n\t"
        "pop {r4-r11, pc}\n"
        "5:\n\t"
        "vmov r3, s10\n\tasrs r4, r4, #8\n\tasrs r6, r6, #8\n\tasr r8, r8, #8\n\tasr r10, r10, #8\n\t"
        $_ROW_BY_SCALE("r4") $_ROW_BY_SCALE("r5") $_ROW_BY_SCALE("r6") $_ROW_BY_SCALE("r7")
        $_ROW_BY_SCALE("r8") $_ROW_BY_SCALE("r9") $_ROW_BY_SCALE("r10") $_ROW_BY_SCALE("r11")
        "b 3b");
}
#else
static inline void $_row_KIND(const ELEMENT *row, int8_t *out, const struct $_layer *layer, uint32_t factor) {
    const int8_t *w = layer->weights;
    for (const uint32_t *table = layer->table; table != layer->end; table += 8, out += 8) {
        int32_t both[4], low[4];
        for (int32_t i = 0; i < 4; i++) {
            both[i] = (int32_t)table[2 * i];
            low[i] = (int32_t)table[2 * i + 1];
        }
        for (int32_t k = 0; k < 8 * layer->groups; k++, w += 4) {
            const uint32_t q = $_load_4(w), x = WORD;
            both[k % 4] = $_smlad(q, x, both[k % 4]);
            low[k % 4] = $_smlad($_sxtb16(q), x, low[k % 4]);
        }
        for (int32_t i = 0; i < 4; i++) {
            const int32_t high = (int32_t)((uint32_t)both[i] - (uint32_t)low[i]);
            out[2 * i] = $_rescale(high / 256, factor, layer->zero, @SHIFT);
            out[2 * i + 1] = $_rescale(low[i], factor, layer->zero, @SHIFT);
        }
    }
}
#endif"#;

/// The helper for a row that is widened (`None`), or that is read as it lies: of signed or unsigned bytes.
pub fn row(bytes: Option<bool>) -> (&'static str, String) {
    let (kind, element) = match bytes {
        None => ("widened", "uint32_t"),
        Some(false) => ("s8", "int8_t"),
        Some(true) => ("u8", "uint8_t"),
    };
    let extend = if bytes == Some(true) { "uxtb16" } else { "sxtb16" };
    let step = if bytes.is_none() { 8 } else { 4 };
    // The last load of a round moves the pointer on.
    let group = |i: usize| {
        let at = |place: usize| match place {
            place if place == 8 * step => format!("\"[r0, #{place}]!\""),
            place => format!("\"[r0, #{place}]\""),
        };
        let [first, second] = if bytes.is_none() { [4, 8] } else { [4, 4] };
        let (x, y) = (step * i + first, at(step * i + second));
        let widen = |r: &str, more: &str| match bytes {
            None => "\"\"".into(),
            Some(_) => format!("\"{extend} {r}, {r}{more}\\n\\t\""),
        };
        let (to_x, to_y) = (widen("r2", ""), widen("r12", ", ror #8"));
        format!("$_GROUP_1X8_BY(\"[r0, #{x}]\", {to_x}, {y}, {to_y}, \"{}\")", 32 * i)
    };
    let groups = (0..8).map(group).collect::<Vec<_>>().join("\n        ");
    let word = match bytes {
        None => "row[k / 4]".into(),
        Some(_) => format!(
            "k % 8 / 4 == 0 ? $_{extend}($_load_4(row + k / 8 * 4)) : $_{extend}_ror8($_load_4(row + k / 8 * 4))"
        ),
    };
    let text = ROW.replace("KIND", kind).replace("ELEMENT", element).replace("GROUPS", &groups).replace("WORD", &word);
    let (log, size) = if bytes.is_none() { ("3", "136") } else { ("2", "144") };
    (kind, text.replace("LOG", log).replace("SIZE", size))
}
