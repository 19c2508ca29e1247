//! The helpers of Winograd convolutions ([`mcc_ir::winograd`]): transforms in plain C, products in assembly.
//!
//! A transformed tile is words of two channels' half-words. Transforms work on both half-words at once. `@N` stands for
//! [`mcc_ir::winograd::Winograd::words`] of the input channels: a pixel of a tile has `2 * @N` bytes.

pub const PRODUCTS: &str = r#"
/* Sums of products of four transformed tiles with two transformed filters: eight for each frequency, up to m = end. A
 * frequency has @N words of two channels of each of them, more than 32 in equal runs. */
#if @THUMB_DSP
$_ASSEMBLY
static void $_winograd_products_@N(const uint32_t *v $_UNUSED, const int16_t *u $_UNUSED, int32_t *m $_UNUSED,
                                   const int32_t *end $_UNUSED) {
    __asm__ volatile(
        "push {r1-r11, lr}\n"
        "1:\n\t"
        ".if @N <= 32\n\t"
        $_WINOGRAD_BEGIN
        ".rept @N - 1\n\t"
        $_WINOGRAD_WORD
        ".endr\n\t"
        ".else\n\t"
        "mov.w r2, #0\n\tmov r3, r2\n\tmov r4, r2\n\tmov r5, r2\n\tmov r6, r2\n\tmov r7, r2\n\tmov r8, r2\n\tmov r9, r2\n\t"
        "mov r10, #((@N + 31) / 32)\n\t"
        "str r10, [sp]\n"
        "2:\n\t"
        ".rept @N / ((@N + 31) / 32)\n\t"
        $_WINOGRAD_WORD
        ".endr\n\t"
        "ldr r10, [sp]\n\t"
        "subs r10, #1\n\t"
        "str r10, [sp]\n\t"
        "bne.w 2b\n\t"
        ".endif\n\t"
        "ldrd r10, r11, [sp, #4]\n\t"
        "stmia r10!, {r2-r9}\n\t"
        "str r10, [sp, #4]\n\t"
        "cmp r10, r11\n\t"
        "bne.w 1b\n\t"
        "add sp, #12\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_winograd_products_@N(const uint32_t *v, const int16_t *u, int32_t *m, const int32_t *end) {
    for (; m < end; m += 8, v += 4 * @N, u += 4 * @N) {
        for (int32_t i = 0; i < 8; i++) {
            m[i] = 0;
            for (int32_t k = 0; k < @N; k++) {
                m[i] = $_smlad($_load_4(u + 4 * k + i % 2 * 2), v[4 * k + i / 2], m[i]);
            }
        }
    }
}
#endif"#;

/// The piece of [`PRODUCTS`] for one word. Loads stand in runs, which the core pipelines.
pub const WORD: &str = r#"
#if @THUMB_DSP
#define $_WINOGRAD_BEGIN \
    "ldr.w r10, [r1], #4\n\tldr.w r11, [r1], #4\n\tldr.w r12, [r0], #4\n\tldr.w lr, [r0], #4\n\t" \
    "smuad r2, r10, r12\n\tsmuad r3, r11, r12\n\tsmuad r4, r10, lr\n\tsmuad r5, r11, lr\n\t" \
    "ldr.w r12, [r0], #4\n\tldr.w lr, [r0], #4\n\t" \
    "smuad r6, r10, r12\n\tsmuad r7, r11, r12\n\tsmuad r8, r10, lr\n\tsmuad r9, r11, lr\n\t"
#define $_WINOGRAD_WORD \
    "ldr.w r10, [r1], #4\n\tldr.w r11, [r1], #4\n\tldr.w r12, [r0], #4\n\tldr.w lr, [r0], #4\n\t" \
    "smlad r2, r10, r12, r2\n\tsmlad r3, r11, r12, r3\n\tsmlad r4, r10, lr, r4\n\tsmlad r5, r11, lr, r5\n\t" \
    "ldr.w r12, [r0], #4\n\tldr.w lr, [r0], #4\n\t" \
    "smlad r6, r10, r12, r6\n\tsmlad r7, r11, r12, r7\n\tsmlad r8, r10, lr, r8\n\tsmlad r9, r11, lr, r9\n\t"
#endif"#;

pub const LANES: &str = r#"
/* Both half-words by themselves: a + b, a - b. */
static inline uint32_t $_sadd16(uint32_t a, uint32_t b) {
#if @ARM_DSP
    uint32_t r;
    __asm__("sadd16 %0, %1, %2" : "=r"(r) : "r"(a), "r"(b));
    return r;
#else
    return ((a + b) & 0xffffu) | ((a & 0xffff0000u) + (b & 0xffff0000u));
#endif
}

static inline uint32_t $_ssub16(uint32_t a, uint32_t b) {
#if @ARM_DSP
    uint32_t r;
    __asm__("ssub16 %0, %1, %2" : "=r"(r) : "r"(a), "r"(b));
    return r;
#else
    return ((a - b) & 0xffffu) | ((a & 0xffff0000u) - (b & 0xffff0000u));
#endif
}"#;

pub const F2_AXIS: &str = r#"
/* Four pixels along an axis to four frequencies. */
static inline void $_winograd_2_axis(uint32_t o[4], uint32_t d0, uint32_t d1, uint32_t d2, uint32_t d3) {
    o[0] = $_ssub16(d0, d2);
    o[1] = $_sadd16(d1, d2);
    o[2] = $_ssub16(d2, d1);
    o[3] = $_ssub16(d1, d3);
}"#;

pub const F2_IN: &str = r#"
/* Transforms a tile of 4x4 pixels x to v. */
static void $_winograd_2_in_@N(uint32_t *v, const uint8_t *x, uint32_t flip) {
    /* Flipped bytes are larger by 128, which frequency 1 sees twice. */
    const uint32_t more = flip != 0u ? 256u * 0x10001u : 0u;
    for (int32_t k = 0; k < @N; k++) {
        const uint8_t *column = x + k / 2 * 4;
        const uint32_t shift = (uint32_t)k % 2u * 8u;
        uint32_t t[4][4];
        for (int32_t j = 0; j < 4; j++, column += 2 * @N) {
            uint32_t d[4], o[4];
            for (int32_t i = 0; i < 4; i++) {
                d[i] = ($_load_4(column + i * 8 * @N) ^ flip) >> shift & 0x00ff00ffu;
            }
            $_winograd_2_axis(o, d[0], d[1], d[2], d[3]);
            t[0][j] = o[0];
            t[1][j] = $_ssub16(o[1], more);
            t[2][j] = o[2];
            t[3][j] = o[3];
        }
        for (int32_t i = 0; i < 4; i++) {
            uint32_t o[4];
            $_winograd_2_axis(o, t[i][0], t[i][1], t[i][2], t[i][3]);
            for (int32_t j = 0; j < 4; j++) {
                v[((i * 4 + j) * @N + k) * 4] = o[j];
            }
        }
    }
}"#;

pub const F2_OUT: &str = r#"
/* Turns the frequencies of one tile and filter, eight words apart, into its 2x2 sums, plus first, in their place. */
static inline void $_winograd_2_out(int32_t *m, int32_t first) {
    int32_t z[2][4];
    for (int32_t j = 0; j < 4; j++) {
        const int32_t m1 = m[8 * (4 + j)], m2 = m[8 * (8 + j)];
        z[0][j] = $_add($_add(m[8 * j], m1), m2);
        z[1][j] = $_sub($_sub(m1, m2), m[8 * (12 + j)]);
    }
    for (int32_t i = 0; i < 2; i++) {
        /* Four times the sums: the upper bits that are gone are copies of the sign. */
        m[16 * i] = $_add(first, $_add($_add(z[i][0], z[i][1]), z[i][2]) >> 2);
        m[16 * i + 8] = $_add(first, $_sub($_sub(z[i][1], z[i][2]), z[i][3]) >> 2);
    }
}"#;

pub const F4_AXIS: &str = r#"
/* Six pixels along an axis to six frequencies. */
static inline void $_winograd_4_axis(uint32_t o[6], uint32_t d0, uint32_t d1, uint32_t d2, uint32_t d3, uint32_t d4,
                                     uint32_t d5) {
    const uint32_t a = d4 - 4u * d2, b = d3 - 4u * d1, c = d4 - d2, e = d3 - d1;
    o[0] = c + 4u * (d0 - d2);
    o[1] = a + b;
    o[2] = a - b;
    o[3] = c + 2u * e;
    o[4] = c - 2u * e;
    o[5] = d5 - d3 - 4u * e;
}"#;

pub const F4_IN: &str = r#"
/* Transforms a tile of 6x6 pixels x to v. A word is 65536 times its upper plus its lower value, both signed. Its
 * half-words are made in the end, by the bit 0x8000, which all frequencies receive once from pixels 4 and 5. */
static inline void $_winograd_4_in_@N(uint32_t *v, const uint8_t *x, uint32_t flip) {
    /* Flipped bytes are larger by 128, which frequency 1 sees -6 times on each axis, the others not at all. */
    const uint32_t more = flip != 0u ? 4608u * 0x10001u : 0u;
    for (int32_t k = 0; k < @N; k++) {
        const uint8_t *column = x + k / 2 * 4;
        const uint32_t shift = (uint32_t)k % 2u * 8u;
        uint32_t t[6][6];
        for (int32_t j = 0; j < 6; j++, column += 2 * @N) {
            uint32_t d[6], o[6];
            for (int32_t i = 0; i < 6; i++) {
                d[i] = ($_load_4(column + i * 12 * @N) ^ flip) >> shift & 0x00ff00ffu;
            }
            $_winograd_4_axis(o, d[0], d[1], d[2], d[3], d[4], d[5]);
            for (int32_t i = 0; i < 6; i++) {
                t[i][j] = o[i];
            }
        }
        for (int32_t i = 0; i < 6; i++) {
            uint32_t o[6];
            $_winograd_4_axis(o, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4] + 0x8000u, t[i][5] + 0x8000u);
            o[1] -= i == 1 ? more : 0u;
            for (int32_t j = 0; j < 6; j++) {
                v[((i * 6 + j) * @N + k) * 4] = o[j] ^ 0x8000u;
            }
        }
    }
}"#;

/// The pieces of [`F4_IN_S8`].
pub const F4_PIECES: &str = r#"
#if @THUMB_DSP
/* Six values r4 to r9 to the frequencies r4, lr, r11, r5, r6, r9. */
#define $_WINOGRAD_4_AXIS \
    "sub r11, r8, r6, lsl #2\n\tsub r12, r7, r5, lsl #2\n\tadd lr, r11, r12\n\tsub r11, r11, r12\n\t" \
    "subs r4, r4, r6\n\tsub r8, r8, r6\n\tsub r12, r7, r5\n\tsub r9, r9, r7\n\t" \
    "add r4, r8, r4, lsl #2\n\tadd r5, r8, r12, lsl #1\n\tsub r6, r8, r12, lsl #1\n\tsub r9, r9, r12, lsl #2\n\t"
/* Column j of a tile at r1 to column j of the stack. */
#define $_WINOGRAD_4_COLUMN(n, j, ror) \
    "ldr.w r4, [r1, #(" j "*2*" n ")]\n\tldr.w r5, [r1, #(" j "*2*" n "+12*" n ")]\n\t" \
    "ldr.w r6, [r1, #(" j "*2*" n "+24*" n ")]\n\tldr.w r7, [r1, #(" j "*2*" n "+36*" n ")]\n\t" \
    "ldr.w r8, [r1, #(" j "*2*" n "+48*" n ")]\n\tldr.w r9, [r1, #(" j "*2*" n "+60*" n ")]\n\t" \
    "sxtab16 r4, r10, r4" ror "\n\tsxtab16 r5, r10, r5" ror "\n\tsxtab16 r6, r10, r6" ror "\n\t" \
    "sxtab16 r7, r10, r7" ror "\n\tsxtab16 r8, r10, r8" ror "\n\tsxtab16 r9, r10, r9" ror "\n\t" \
    $_WINOGRAD_4_AXIS \
    "str.w r4, [sp, #(" j "*4)]\n\tstr.w lr, [sp, #(" j "*4+24)]\n\tstr.w r11, [sp, #(" j "*4+48)]\n\t" \
    "str.w r5, [sp, #(" j "*4+72)]\n\tstr.w r6, [sp, #(" j "*4+96)]\n\tstr.w r9, [sp, #(" j "*4+120)]\n\t"
/* A row of the stack at r3 to six frequencies at r0. */
#define $_WINOGRAD_4_ROW(n, less) \
    "ldmia r3!, {r4-r9}\n\tadd r8, r8, #0x8000\n\tadd r9, r9, #0x8000\n\t" $_WINOGRAD_4_AXIS less \
    "eor r4, r4, #0x8000\n\teor lr, lr, #0x8000\n\teor r11, r11, #0x8000\n\t" \
    "eor r5, r5, #0x8000\n\teor r6, r6, #0x8000\n\teor r9, r9, #0x8000\n\t" \
    "str.w r4, [r0]\n\tstr.w lr, [r0, #(16*" n ")]\n\tstr.w r11, [r0, #(32*" n ")]\n\tadd.w r0, r0, #(48*" n ")\n\t" \
    "str.w r5, [r0]\n\tstr.w r6, [r0, #(16*" n ")]\n\tstr.w r9, [r0, #(32*" n ")]\n\tadd.w r0, r0, #(48*" n ")\n\t"
#define $_WINOGRAD_4_WORD(n, ror) \
    $_WINOGRAD_4_COLUMN(n, "0", ror) $_WINOGRAD_4_COLUMN(n, "1", ror) $_WINOGRAD_4_COLUMN(n, "2", ror) \
    $_WINOGRAD_4_COLUMN(n, "3", ror) $_WINOGRAD_4_COLUMN(n, "4", ror) $_WINOGRAD_4_COLUMN(n, "5", ror) \
    "mov r3, sp\n\t" \
    $_WINOGRAD_4_ROW(n, "") $_WINOGRAD_4_ROW(n, "sub lr, lr, #0x12001200\n\t") $_WINOGRAD_4_ROW(n, "") \
    $_WINOGRAD_4_ROW(n, "") $_WINOGRAD_4_ROW(n, "") $_WINOGRAD_4_ROW(n, "") \
    "movw r12, #(576*" n "-16)\n\tsub r0, r0, r12\n\t"
#endif"#;

pub const F4_IN_S8: &str = r#"
/* Transforms a tile of 6x6 pixels x to v: see $_winograd_4_in. */
#if @THUMB_DSP
$_ASSEMBLY
static void $_winograd_4_in_s8_@N(uint32_t *v $_UNUSED, const uint8_t *x $_UNUSED, uint32_t flip $_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "sub sp, #144\n\t"
        /* Bytes are taken as larger by 128. */
        "mov r10, #0x00800080\n\t"
        "mov r2, #(@N/2)\n"
        "1:\n\t"
        $_WINOGRAD_4_WORD("@N", "") $_WINOGRAD_4_WORD("@N", ", ror #8")
        "adds r1, #4\n\t"
        "subs r2, #1\n\t"
        "bne.w 1b\n\t"
        "add sp, #144\n\t"
        "pop {r4-r11, pc}");
}
#else
static inline void $_winograd_4_in_s8_@N(uint32_t *v, const uint8_t *x, uint32_t flip) {
    $_winograd_4_in_@N(v, x, flip);
}
#endif"#;

pub const F4_OUT: &str = r#"
/* Turns the frequencies of one tile and filter, eight words apart, into its 4x4 sums, plus first, in their place. An axis
 * gives 24, 12, 6 and 6 times its four sums. 9 divides out modulo 2^32; the upper bits that are gone are copies of the sign. */
static inline void $_winograd_4_sums(uint32_t y[4], uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3, uint32_t m4,
                                     uint32_t m5) {
    const uint32_t a = m1 + m2, b = m1 - m2, c = m3 + m4, d = m3 - m4;
    y[0] = c + 4u * a + 2u * m0;
    y[1] = d + 2u * b;
    y[2] = a + c;
    y[3] = b + 2u * (d + m5);
}

static inline void $_winograd_4_row(int32_t *m, const uint32_t z[6], int32_t first, int32_t shift) {
    uint32_t y[4];
    $_winograd_4_sums(y, z[0], z[1], z[2], z[3], z[4], z[5]);
    m[0] = $_add(first, (int32_t)(y[0] * 0x38e38e39u) >> shift);
    m[8] = $_add(first, (int32_t)(y[1] * 0x38e38e39u) >> (shift - 1));
    m[16] = $_add(first, (int32_t)(y[2] * 0x38e38e39u) >> (shift - 2));
    m[24] = $_add(first, (int32_t)(y[3] * 0x38e38e39u) >> (shift - 2));
}

static inline void $_winograd_4_out(int32_t *m, int32_t first) {
    uint32_t z[4][6];
    const int32_t *from = m;
    for (int32_t j = 0; j < 6; j++, from += 8) {
        uint32_t y[4];
        $_winograd_4_sums(y, (uint32_t)from[0], (uint32_t)from[48], (uint32_t)from[96], (uint32_t)from[144],
                          (uint32_t)from[192], (uint32_t)from[240]);
        for (int32_t i = 0; i < 4; i++) {
            z[i][j] = y[i];
        }
    }
    $_winograd_4_row(m, z[0], first, 6);
    $_winograd_4_row(m + 32, z[1], first, 5);
    $_winograd_4_row(m + 64, z[2], first, 4);
    $_winograd_4_row(m + 96, z[3], first, 4);
}"#;

pub const F4_BYTES: &str = r#"
/* As $_winograd_4_out, but the sums end as bytes. channel: where its sums start, and its factor or scale. place: elements
 * from one output to the next, from the second one of a row to the first one of the next row, and the start of
 * $_scale_to_s8. */
#if @THUMB_DSP && @ARM_FP
/* Six frequencies r4 to r9 to 24, 12, 6 and 6 times the sums in r7, r8, r10, r11. */
#define $_WINOGRAD_4_SUMS \
    "add r10, r5, r6\n\tsub r11, r5, r6\n\tadd r5, r7, r8\n\tsubs r6, r7, r8\n\t" \
    "add r7, r5, r10, lsl #2\n\tadd r7, r7, r4, lsl #1\n\tadd r8, r6, r11, lsl #1\n\t" \
    "add r10, r10, r5\n\tadd r6, r6, r9\n\tadd r11, r11, r6, lsl #1\n\t"
#define $_WINOGRAD_4_DOWN(j) \
    "ldr.w r4, [r0, #(" j "*32)]\n\tldr.w r5, [r0, #(" j "*32+192)]\n\tldr.w r6, [r0, #(" j "*32+384)]\n\t" \
    "ldr.w r7, [r0, #(" j "*32+576)]\n\tldr.w r8, [r0, #(" j "*32+768)]\n\tldr.w r9, [r0, #(" j "*32+960)]\n\t" \
    $_WINOGRAD_4_SUMS \
    "str.w r7, [sp, #(" j "*4)]\n\tstr.w r8, [sp, #(" j "*4+24)]\n\t" \
    "str.w r10, [sp, #(" j "*4+48)]\n\tstr.w r11, [sp, #(" j "*4+72)]\n\t"
#define $_WINOGRAD_4_BY_FACTOR \
    "smmla r7, r7, r3, lr\n\tsmmla r8, r8, r3, lr\n\tsmmla r10, r10, r3, lr\n\tsmmla r11, r11, r3, lr\n\t" \
    "ssat r7, #8, r7, asr #@SHIFT\n\tssat r8, #8, r8, asr #@SHIFT\n\tssat r10, #8, r10, asr #@SHIFT\n\t" \
    "ssat r11, #8, r11, asr #@SHIFT\n\t"
#define $_WINOGRAD_4_BY_SCALE \
    "vmov s0, r7\n\tvmov s1, r8\n\tvmov s2, r10\n\tvmov s3, r11\n\t" \
    "vcvt.f32.s32 s0, s0\n\tvcvt.f32.s32 s1, s1\n\tvcvt.f32.s32 s2, s2\n\tvcvt.f32.s32 s3, s3\n\t" \
    "vnmul.f32 s0, s0, s15\n\tvnmul.f32 s1, s1, s15\n\tvnmul.f32 s2, s2, s15\n\tvnmul.f32 s3, s3, s15\n\t" \
    "vcvtr.s32.f32 s0, s0\n\tvcvtr.s32.f32 s1, s1\n\tvcvtr.s32.f32 s2, s2\n\tvcvtr.s32.f32 s3, s3\n\t" \
    "vmov r7, s0\n\tvmov r8, s1\n\tvmov r10, s2\n\tvmov r11, s3\n\t" \
    "qadd r7, r7, lr\n\tqadd r8, r8, lr\n\tqadd r10, r10, lr\n\tqadd r11, r11, lr\n\t" \
    "ssat r7, #8, r7\n\tssat r8, #8, r8\n\tssat r10, #8, r10\n\tssat r11, #8, r11\n\t"
/* A row of the stack at r0 to four bytes at r1, its sums divided by 2^a, 2^b, 2^c and 2^c. */
#define $_WINOGRAD_4_ACROSS(a, b, c, end) \
    "ldmia r0!, {r4-r9}\n\t" $_WINOGRAD_4_SUMS \
    "mul r7, r7, r12\n\tmul r8, r8, r12\n\tmul r10, r10, r12\n\tmul r11, r11, r12\n\t" \
    "add r7, r2, r7, asr #" a "\n\tadd r8, r2, r8, asr #" b "\n\t" \
    "add r10, r2, r10, asr #" c "\n\tadd r11, r2, r11, asr #" c "\n\t" \
    "ldrd r4, r5, [sp, #96]\n\t" end \
    "strb r7, [r1]\n\tstrb.w r8, [r1, r4]\n\tstrb.w r10, [r1, r4, lsl #1]\n\t" \
    "add r1, r4\n\tstrb.w r11, [r1, r4, lsl #1]\n\tadd r1, r5\n\t"
#define $_WINOGRAD_4_ROWS(end) \
    $_WINOGRAD_4_ACROSS("6", "5", "4", end) $_WINOGRAD_4_ACROSS("5", "4", "3", end) \
    $_WINOGRAD_4_ACROSS("4", "3", "2", end) $_WINOGRAD_4_ACROSS("4", "3", "2", end) \
    "add sp, #104\n\tpop {r4-r11, pc}\n"
$_ASSEMBLY
static void $_winograd_4_bytes(int32_t *m $_UNUSED, int8_t *to $_UNUSED, const uint32_t *channel $_UNUSED,
                               const int32_t *place $_UNUSED) {
    __asm__ volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r3, {r4, r5, lr}\n\t"
        "ldrd r2, r3, [r2]\n\t"
        "push {r4, r5}\n\t"
        "sub sp, #96\n\t"
        "movw r12, #0x8e39\n\tmovt r12, #0x38e3\n\t"
        $_WINOGRAD_4_DOWN("0") $_WINOGRAD_4_DOWN("1") $_WINOGRAD_4_DOWN("2")
        $_WINOGRAD_4_DOWN("3") $_WINOGRAD_4_DOWN("4") $_WINOGRAD_4_DOWN("5")
        "mov r0, sp\n\t"
        "cmp r3, #0\n\t"
        "bmi.w 1f\n\t"
        $_WINOGRAD_4_ROWS($_WINOGRAD_4_BY_FACTOR)
        "1:\n\t"
        "vmov s15, r3\n\t"
        "asr lr, lr, #@SHIFT\n\t"
        $_WINOGRAD_4_ROWS($_WINOGRAD_4_BY_SCALE));
}
#else
static inline void $_winograd_4_bytes(int32_t *m, int8_t *to, const uint32_t *channel, const int32_t *place) {
    $_winograd_4_out(m, (int32_t)channel[0]);
    for (int32_t i = 0; i < 16; i++) {
        to[i % 4 * place[0] + i / 4 * (place[0] + place[1])] = $_scale_to_s8(m[8 * i], channel[1], place[2]);
    }
}
#endif"#;

pub const SCALE_TO_S8: &str = r#"
/* A sum to a byte: the upper word of sum * factor, plus start, the result with its bits below the point; or by a scale, of which the
 * negative is given. */
static inline int8_t $_scale_to_s8(int32_t sum, uint32_t factor, int32_t start) {
    if (factor >> 31 != 0u) {
        return (int8_t)$_round_to_s8(-$_mul((float)sum, $_f_of_bits(factor)), start >> @SHIFT);
    }
#if @ARM_DSP
    int32_t r;
    __asm__("smmla %0, %1, %2, %3\n\tssat %0, #8, %0, asr #@SHIFT" : "=r"(r) : "r"(sum), "r"(factor), "r"(start));
    return (int8_t)r;
#else
    const int32_t scaled = (int32_t)((int64_t)sum * (int32_t)factor >> 32);
    return (int8_t)$_max($_min((scaled + start) >> @SHIFT, 127), -128);
#endif
}"#;

pub const STRIDE_2_AXIS: &str = r#"
/* Five pixels along an axis to five frequencies. */
static inline void $_winograd_s2_axis(uint32_t o[5], uint32_t d0, uint32_t d1, uint32_t d2, uint32_t d3, uint32_t d4) {
    o[0] = $_ssub16(d0, d2);
    o[1] = d2;
    o[2] = $_ssub16(d4, d2);
    o[3] = d1;
    o[4] = d3;
}"#;

pub const STRIDE_2_IN: &str = r#"
/* Transforms a tile of 5x5 pixels x to v. */
static void $_winograd_s2_in_@N(uint32_t *v, const uint8_t *x, uint32_t flip) {
    /* Flipped bytes are larger by 128, which three frequencies see. */
    const uint32_t more = flip != 0u ? 128u * 0x10001u : 0u;
    for (int32_t k = 0; k < @N; k++) {
        const uint8_t *column = x + k / 2 * 4;
        const uint32_t shift = (uint32_t)k % 2u * 8u;
        uint32_t t[5][5];
        for (int32_t j = 0; j < 5; j++, column += 2 * @N) {
            uint32_t d[5], o[5];
            for (int32_t i = 0; i < 5; i++) {
                d[i] = ($_load_4(column + i * 10 * @N) ^ flip) >> shift & 0x00ff00ffu;
            }
            $_winograd_s2_axis(o, d[0], d[1], d[2], d[3], d[4]);
            t[0][j] = o[0];
            t[1][j] = $_ssub16(o[1], more);
            t[2][j] = o[2];
            t[3][j] = $_ssub16(o[3], more);
            t[4][j] = $_ssub16(o[4], more);
        }
        for (int32_t i = 0; i < 5; i++) {
            uint32_t o[5];
            $_winograd_s2_axis(o, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4]);
            for (int32_t j = 0; j < 5; j++) {
                v[((i * 5 + j) * @N + k) * 4] = o[j];
            }
        }
    }
}"#;

pub const STRIDE_2_OUT: &str = r#"
/* Turns the frequencies of one tile and filter, eight words apart, into its 2x2 sums, plus first, in their place. */
static inline void $_winograd_s2_out(int32_t *m, int32_t first) {
    int32_t z[2][5];
    for (int32_t j = 0; j < 5; j++) {
        const int32_t m1 = m[8 * (5 + j)];
        z[0][j] = $_add($_add(m[8 * j], m1), m[8 * (15 + j)]);
        z[1][j] = $_add($_add(m1, m[8 * (10 + j)]), m[8 * (20 + j)]);
    }
    for (int32_t i = 0; i < 2; i++) {
        m[16 * i] = $_add($_add(first, z[i][0]), $_add(z[i][1], z[i][3]));
        m[16 * i + 8] = $_add($_add(first, z[i][1]), $_add(z[i][2], z[i][4]));
    }
}"#;
