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
static void $_winograd_4_in_@N(uint32_t *v, const uint8_t *x, uint32_t flip) {
    /* Flipped bytes are larger by 128, which frequency 1 sees -6 times. */
    const uint32_t less = flip != 0u ? 768u * 0x10001u : 0u;
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
            o[1] += less;
            for (int32_t i = 0; i < 6; i++) {
                t[i][j] = o[i];
            }
        }
        for (int32_t i = 0; i < 6; i++) {
            uint32_t o[6];
            $_winograd_4_axis(o, t[i][0], t[i][1], t[i][2], t[i][3], t[i][4] + 0x8000u, t[i][5] + 0x8000u);
            for (int32_t j = 0; j < 6; j++) {
                v[((i * 6 + j) * @N + k) * 4] = o[j] ^ 0x8000u;
            }
        }
    }
}"#;

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

static void $_winograd_4_out(int32_t *m, int32_t first) {
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
