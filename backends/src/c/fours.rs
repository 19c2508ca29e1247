//! The helpers that multiply by weights of four channels in a half-word ([`mcc_ir::packing::Packing::Fours`]).
//!
//! The half-word is 4096 a + 256 b + 16 c + d with b, c and d from 0 to 15. As it is, SMLAD sums all four; with the upper
//! four, eight and twelve bits cleared in turn it sums three, two and one. D is exact modulo 2^32, and so are the differences
//! 16 C, 256 B and 4096 A, which give C, B and A as long as those stay below 2^27, 2^23 and 2^19. Three ANDs serve eight
//! weights of each row. b, c and d are the weights plus 8: `s` holds what that is too much, -8 times the sum of a row's
//! values, and each sum starts from its share. Structure and register plan as in [`super::pairs`].

pub const ROW_SUM: &str = r#"
/* factor times the sum of the values of a widened row, `groups` fours of them, `step` words from one to the next. */
static inline int32_t $_row_sum(const uint32_t *a, int32_t groups, int32_t step, int32_t factor) {
    int32_t sum = 0;
    for (; groups > 0; groups--, a += step) {
        sum = $_smlad(a[1], 0x00010001u, $_smlad(a[0], 0x00010001u, sum));
    }
    return (int32_t)((uint32_t)sum * (uint32_t)factor);
}"#;

pub const FOURS_2X4: &str = r#"
/* Products of two interleaved widened rows with four channels of weights, plus first[channel]: s[2 * channel + row].
 * s[row] holds what each sum starts from. */
#if @THUMB_DSP
#define $_FOUR_2X4(q) \
    "smlad r4, " q ", r12, r4\n\tsmlad r5, " q ", lr, r5\n\tbic.w " q ", " q ", #0xf000f000\n\t" \
    "smlad r6, " q ", r12, r6\n\tsmlad r7, " q ", lr, r7\n\tand.w " q ", " q ", #0x00ff00ff\n\t" \
    "smlad r8, " q ", r12, r8\n\tsmlad r9, " q ", lr, r9\n\tand.w " q ", " q ", #0x000f000f\n\t" \
    "smlad r10, " q ", r12, r10\n\tsmlad r11, " q ", lr, r11\n\t"
#define $_FOURS_2X4(w, x) \
    "ldr.w r2, [r1, #" w "]\n\tldr.w r3, [r1, #" w "+4]\n\tldr.w r12, [r0, #" x "]\n\tldr.w lr, [r0, #" x "+8]\n\t" \
    $_FOUR_2X4("r2") "ldr.w r12, [r0, #" x "+4]\n\tldr.w lr, [r0, #" x "+12]\n\t" $_FOUR_2X4("r3")
$_ASSEMBLY
static void $_fours_2x4(const uint32_t *a $_UNUSED, const uint8_t *w $_UNUSED, int32_t *s $_UNUSED,
                        const int32_t *first $_UNUSED, int32_t groups $_UNUSED) {
    __asm__ volatile(
        "push {r2-r11, lr}\n\t"
        "ldr r12, [sp, #44]\n\t"
        "add r4, r0, r12, lsl #4\n\t"
        "ldrd r10, r11, [r2]\n\t"
        "str r4, [sp, #-4]!\n\t"
        /* The groups that the first round skips, of 112 bytes of code each. */
        "rsb r12, r12, #0\n\t"
        "and r12, r12, #7\n\t"
        "sub r0, r0, r12, lsl #4\n\t"
        "sub r1, r1, r12, lsl #3\n\t"
        "rsb r12, r12, r12, lsl #3\n\t"
        "lsl r12, r12, #4\n\t"
        "add r8, r10, r10, lsl #4\n\tadd r9, r11, r11, lsl #4\n\t"
        "add r6, r10, r8, lsl #4\n\tadd r7, r11, r9, lsl #4\n\t"
        "mov r4, r6\n\tmov r5, r7\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        $_FOURS_2X4("0", "0") $_FOURS_2X4("8", "16") $_FOURS_2X4("16", "32") $_FOURS_2X4("24", "48")
        $_FOURS_2X4("32", "64") $_FOURS_2X4("40", "80") $_FOURS_2X4("48", "96") $_FOURS_2X4("56", "112")
        "ldr r2, [sp]\n\t"
        "adds r0, #128\n\t"
        "adds r1, #64\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, #4\n\t"
        "pop {r2, r3}\n\t"
        "subs r4, r4, r6\n\tsubs r5, r5, r7\n\tsub r6, r6, r8\n\tsub r7, r7, r9\n\t"
        "sub r8, r8, r10\n\tsub r9, r9, r11\n\t"
        "ldrd r12, lr, [r3]\n\t"
        "add.w r4, r12, r4, asr #12\n\tadd.w r5, r12, r5, asr #12\n\t"
        "add.w r6, lr, r6, asr #8\n\tadd.w r7, lr, r7, asr #8\n\t"
        "ldrd r12, lr, [r3, #8]\n\t"
        "add.w r8, r12, r8, asr #4\n\tadd.w r9, r12, r9, asr #4\n\tadd r10, lr\n\tadd r11, lr\n\t"
        "stmia r2, {r4-r11}\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_fours_2x4(const uint32_t *a, const uint8_t *w, int32_t *s, const int32_t *first, int32_t groups) {
    int32_t sums[2][4];
    $_fours_begin(sums[0], s[0]);
    $_fours_begin(sums[1], s[1]);
    for (; groups > 0; groups--, a += 4, w += 8) {
        for (int32_t k = 0; k < 2; k++) {
            $_four(sums[0], $_load_4(w + 4 * k), a[k]);
            $_four(sums[1], $_load_4(w + 4 * k), a[2 + k]);
        }
    }
    for (int32_t j = 0; j < 4; j++) {
        s[2 * j] = $_fours_end(sums[0], first[j], j);
        s[2 * j + 1] = $_fours_end(sums[1], first[j], j);
    }
}
#endif"#;

pub const FOURS_1X8: &str = r#"
/* Products of a widened row with eight channels of weights, plus first[channel]. s[0] holds what each sum starts from. */
#if @THUMB_DSP
#define $_FOUR_1X8(q, a, b, c, d) \
    "smlad " a ", " q ", r12, " a "\n\tbic.w " q ", " q ", #0xf000f000\n\t" \
    "smlad " b ", " q ", r12, " b "\n\tand.w " q ", " q ", #0x00ff00ff\n\t" \
    "smlad " c ", " q ", r12, " c "\n\tand.w " q ", " q ", #0x000f000f\n\t" \
    "smlad " d ", " q ", r12, " d "\n\t"
#define $_FOURS_1X8(w, x) \
    "ldr.w r2, [r1, #" w "]\n\tldr.w r3, [r1, #" w "+4]\n\tldr.w r12, [r0, #" x "]\n\t" \
    $_FOUR_1X8("r2", "r4", "r5", "r6", "r7") $_FOUR_1X8("r3", "r8", "r9", "r10", "r11")
$_ASSEMBLY
static void $_fours_1x8(const uint32_t *a $_UNUSED, const uint8_t *w $_UNUSED, int32_t *s $_UNUSED,
                        const int32_t *first $_UNUSED, int32_t groups $_UNUSED) {
    __asm__ volatile(
        "push {r2-r11, lr}\n\t"
        "ldr r12, [sp, #44]\n\t"
        "add r4, r0, r12, lsl #3\n\t"
        "ldr r7, [r2]\n\t"
        "str r4, [sp, #-4]!\n\t"
        /* The groups that the first round skips, of 136 bytes of code each. */
        "rsb r12, r12, #0\n\t"
        "and r12, r12, #3\n\t"
        "sub r0, r0, r12, lsl #3\n\t"
        "sub r1, r1, r12, lsl #4\n\t"
        "add r12, r12, r12, lsl #4\n\t"
        "lsl r12, r12, #3\n\t"
        "add r6, r7, r7, lsl #4\n\tadd r5, r7, r6, lsl #4\n\tmov r4, r5\n\t"
        "mov r8, r4\n\tmov r9, r5\n\tmov r10, r6\n\tmov r11, r7\n\t"
        "add pc, r12\n\t"
        "nop\n"
        "1:\n\t"
        $_FOURS_1X8("0", "0") $_FOURS_1X8("8", "4") $_FOURS_1X8("16", "8") $_FOURS_1X8("24", "12")
        $_FOURS_1X8("32", "16") $_FOURS_1X8("40", "20") $_FOURS_1X8("48", "24") $_FOURS_1X8("56", "28")
        "ldr r2, [sp]\n\t"
        "adds r0, #32\n\t"
        "adds r1, #64\n\t"
        "cmp r0, r2\n\t"
        "bne.w 1b\n\t"
        "add sp, #4\n\t"
        "pop {r2, r3}\n\t"
        "subs r4, r4, r5\n\tsubs r5, r5, r6\n\tsubs r6, r6, r7\n\t"
        "sub r8, r8, r9\n\tsub r9, r9, r10\n\tsub r10, r10, r11\n\t"
        "ldrd r12, lr, [r3]\n\t"
        "add.w r4, r12, r4, asr #12\n\tadd.w r5, lr, r5, asr #8\n\t"
        "ldrd r12, lr, [r3, #8]\n\t"
        "add.w r6, r12, r6, asr #4\n\tadd r7, lr\n\t"
        "ldrd r12, lr, [r3, #16]\n\t"
        "add.w r8, r12, r8, asr #12\n\tadd.w r9, lr, r9, asr #8\n\t"
        "ldrd r12, lr, [r3, #24]\n\t"
        "add.w r10, r12, r10, asr #4\n\tadd r11, lr\n\t"
        "stmia r2, {r4-r11}\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_fours_1x8(const uint32_t *a, const uint8_t *w, int32_t *s, const int32_t *first, int32_t groups) {
    int32_t sums[2][4];
    $_fours_begin(sums[0], s[0]);
    $_fours_begin(sums[1], s[0]);
    for (; groups > 0; groups--, a += 2, w += 16) {
        for (int32_t k = 0; k < 4; k++) {
            $_four(sums[k % 2], $_load_4(w + 4 * k), a[k / 2]);
        }
    }
    for (int32_t j = 0; j < 8; j++) {
        s[j] = $_fours_end(sums[j / 4], first[j], j % 4);
    }
}
#endif"#;

/// The same in plain C, for one row and four channels.
pub const FOUR: &str = r#"
#if !(@THUMB_DSP)
static inline void $_fours_begin(int32_t sums[4], int32_t start) {
    const uint32_t from = (uint32_t)start;
    sums[3] = start;
    sums[2] = (int32_t)(17u * from);
    sums[1] = (int32_t)(273u * from);
    sums[0] = sums[1];
}

static inline void $_four(int32_t sums[4], uint32_t q, uint32_t x) {
    sums[0] = $_smlad(q, x, sums[0]);
    sums[1] = $_smlad(q & 0x0fff0fffu, x, sums[1]);
    sums[2] = $_smlad(q & 0x00ff00ffu, x, sums[2]);
    sums[3] = $_smlad(q & 0x000f000fu, x, sums[3]);
}

static inline int32_t $_fours_end(const int32_t sums[4], int32_t first, int32_t j) {
    const uint32_t rest = j < 3 ? (uint32_t)sums[j + 1] : 0u;
    return (int32_t)((uint32_t)first + (uint32_t)((int32_t)((uint32_t)sums[j] - rest) / (1 << (12 - 4 * j))));
}
#endif"#;
