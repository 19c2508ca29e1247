//! The helpers that multiply by weights in pairs ([`mcc_ir::packing::Packing::Pairs`]).
//!
//! They are functions of assembly alone, as each needs all fourteen registers. A group is four values of each row. The
//! loop is entered in its middle where the number of groups is no multiple of eight or four. Loads stand in runs, which the
//! core pipelines. The plan of registers follows from two facts: the raw word is dead once it is widened, so it is widened
//! in place; and a word of weights serves all rows, a word of a row all channels.

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

pub const PAIRS_1X8: &str = r#"
/* Products of a widened row with eight channels of paired weights, plus first[channel]. */
#if @THUMB_DSP
#define $_BOTH_1X8(q, x, both, low) \
    "smlad " both ", " q ", " x ", " both "\n\tsxtb16 " q ", " q "\n\tsmlad " low ", " q ", " x ", " low "\n\t"
#define $_GROUP_1X8(x, w) \
    "ldr.w r2, [r0, #" x "]\n\tldr.w r3, [r1, #" w "]\n\tldr.w r12, [r1, #" w "+4]\n\tldr.w lr, [r1, #" w "+8]\n\t" \
    $_BOTH_1X8("r3", "r2", "r4", "r5") $_BOTH_1X8("r12", "r2", "r6", "r7") $_BOTH_1X8("lr", "r2", "r8", "r9") \
    "ldr.w r3, [r1, #" w "+12]\n\tldr.w r12, [r0, #" x "+4]\n\tldr.w lr, [r1, #" w "+16]\n\t" \
    $_BOTH_1X8("r3", "r2", "r10", "r11") $_BOTH_1X8("lr", "r12", "r4", "r5") \
    "ldr.w r2, [r1, #" w "+20]\n\tldr.w r3, [r1, #" w "+24]\n\tldr.w lr, [r1, #" w "+28]\n\t" \
    $_BOTH_1X8("r2", "r12", "r6", "r7") $_BOTH_1X8("r3", "r12", "r8", "r9") $_BOTH_1X8("lr", "r12", "r10", "r11")
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
