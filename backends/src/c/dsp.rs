//! The helpers that hold inline assembly for the DSP extension, beside their meaning in plain C.

pub const DOT_2X2: &str = r#"
/* Adds the products of two interleaved widened rows with two interleaved rows of weights, groups of four values each:
 * s[2 * row + channel]. The compiler's own schedule would spill registers. */
static inline void $_dot_2x2(int32_t s[4], const uint32_t *a, const int8_t *w, int32_t groups) {
#if @ARM_DSP
#define $_GROUP_2X2 \
    "ldrd %[q0], %[q1], [%[w]], #8\n\t" \
    "ldrd %[x0], %[x1], [%[a]], #8\n\t" \
    "sxtb16 %[v0], %[q0], ror #8\n\t" \
    "sxtb16 %[q0], %[q0]\n\t" \
    "sxtb16 %[v1], %[q1], ror #8\n\t" \
    "sxtb16 %[q1], %[q1]\n\t" \
    "smlad %[s0], %[q0], %[x0], %[s0]\n\t" \
    "smlad %[s1], %[q1], %[x0], %[s1]\n\t" \
    "smlad %[s0], %[v0], %[x1], %[s0]\n\t" \
    "smlad %[s1], %[v1], %[x1], %[s1]\n\t" \
    "ldrd %[x0], %[x1], [%[a]], #8\n\t" \
    "smlad %[s2], %[q0], %[x0], %[s2]\n\t" \
    "smlad %[s3], %[q1], %[x0], %[s3]\n\t" \
    "smlad %[s2], %[v0], %[x1], %[s2]\n\t" \
    "smlad %[s3], %[v1], %[x1], %[s3]\n\t"
#define $_STATE_2X2 \
    [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [a] "+r"(a), [w] "+r"(w), [q0] "=&r"(q0), \
        [q1] "=&r"(q1), [v0] "=&r"(v0), [v1] "=&r"(v1), [x0] "=&r"(x0), [x1] "=&r"(x1)
    int32_t s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    uint32_t q0, q1, v0, v1, x0, x1;
    if (groups >= 4) {
        const uint32_t *const end = a + groups / 4 * 16;
        __asm__ volatile(
            "1:\n\t" $_GROUP_2X2 $_GROUP_2X2 $_GROUP_2X2 $_GROUP_2X2 "cmp %[a], %[end]\n\tbne 1b"
            : $_STATE_2X2
            : [end] "r"(end)
            : "cc", "memory");
    }
    for (int32_t rest = groups % 4; rest > 0; rest--) {
        __asm__ volatile($_GROUP_2X2 : $_STATE_2X2 : : "memory");
    }
    s[0] = s0;
    s[1] = s1;
    s[2] = s2;
    s[3] = s3;
#else
    for (; groups > 0; groups--, a += 4, w += 8) {
        const uint32_t q0 = $_load_4(w), q1 = $_load_4(w + 4);
        s[0] = $_smlad($_sxtb16_ror8(q0), a[1], $_smlad($_sxtb16(q0), a[0], s[0]));
        s[1] = $_smlad($_sxtb16_ror8(q1), a[1], $_smlad($_sxtb16(q1), a[0], s[1]));
        s[2] = $_smlad($_sxtb16_ror8(q0), a[3], $_smlad($_sxtb16(q0), a[2], s[2]));
        s[3] = $_smlad($_sxtb16_ror8(q1), a[3], $_smlad($_sxtb16(q1), a[2], s[3]));
    }
#endif
}"#;

pub const DOT_1X4_S8: &str = r#"
/* Adds the products of a row of bytes with four interleaved rows of weights, groups of four values each. */
static inline void $_dot_1x4_s8(int32_t s[4], const int8_t *a, const int8_t *w, int32_t groups) {
#if @ARM_DSP
#define $_GROUP_1X4_S8 \
    "ldr %[x1], [%[a]], #4\n\t" \
    "ldrd %[q0], %[q1], [%[w]], #8\n\t" \
    "sxtb16 %[x0], %[x1]\n\t" \
    "sxtb16 %[x1], %[x1], ror #8\n\t" \
    "sxtb16 %[v], %[q0]\n\t" \
    "sxtb16 %[q0], %[q0], ror #8\n\t" \
    "smlad %[s0], %[v], %[x0], %[s0]\n\t" \
    "sxtb16 %[v], %[q1]\n\t" \
    "smlad %[s0], %[q0], %[x1], %[s0]\n\t" \
    "sxtb16 %[q1], %[q1], ror #8\n\t" \
    "smlad %[s1], %[v], %[x0], %[s1]\n\t" \
    "smlad %[s1], %[q1], %[x1], %[s1]\n\t" \
    "ldrd %[q0], %[q1], [%[w]], #8\n\t" \
    "sxtb16 %[v], %[q0]\n\t" \
    "sxtb16 %[q0], %[q0], ror #8\n\t" \
    "smlad %[s2], %[v], %[x0], %[s2]\n\t" \
    "sxtb16 %[v], %[q1]\n\t" \
    "smlad %[s2], %[q0], %[x1], %[s2]\n\t" \
    "sxtb16 %[q1], %[q1], ror #8\n\t" \
    "smlad %[s3], %[v], %[x0], %[s3]\n\t" \
    "smlad %[s3], %[q1], %[x1], %[s3]\n\t"
#define $_STATE_1X4_S8 \
    [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [a] "+r"(a), [w] "+r"(w), [q0] "=&r"(q0), \
        [q1] "=&r"(q1), [v] "=&r"(v), [x0] "=&r"(x0), [x1] "=&r"(x1)
    int32_t s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    uint32_t q0, q1, v, x0, x1;
    if (groups >= 4) {
        const int8_t *const end = a + groups / 4 * 16;
        __asm__ volatile(
            "1:\n\t" $_GROUP_1X4_S8 $_GROUP_1X4_S8 $_GROUP_1X4_S8 $_GROUP_1X4_S8
            "cmp %[a], %[end]\n\tbne 1b"
            : $_STATE_1X4_S8
            : [end] "r"(end)
            : "cc", "memory");
    }
    for (int32_t rest = groups % 4; rest > 0; rest--) {
        __asm__ volatile($_GROUP_1X4_S8 : $_STATE_1X4_S8 : : "memory");
    }
    s[0] = s0;
    s[1] = s1;
    s[2] = s2;
    s[3] = s3;
#else
    for (; groups > 0; groups--, a += 4, w += 16) {
        const uint32_t x = $_load_4(a), x0 = $_sxtb16(x), x1 = $_sxtb16_ror8(x);
        for (int32_t j = 0; j < 4; j++) {
            const uint32_t q = $_load_4(w + 4 * j);
            s[j] = $_smlad($_sxtb16_ror8(q), x1, $_smlad($_sxtb16(q), x0, s[j]));
        }
    }
#endif
}"#;

pub const DOT_1X4_U8: &str = r#"
/* Adds the products of a row of bytes with four interleaved rows of weights, groups of four values each. */
static inline void $_dot_1x4_u8(int32_t s[4], const uint8_t *a, const int8_t *w, int32_t groups) {
#if @ARM_DSP
#define $_GROUP_1X4_U8 \
    "ldr %[x1], [%[a]], #4\n\t" \
    "ldrd %[q0], %[q1], [%[w]], #8\n\t" \
    "uxtb16 %[x0], %[x1]\n\t" \
    "uxtb16 %[x1], %[x1], ror #8\n\t" \
    "sxtb16 %[v], %[q0]\n\t" \
    "sxtb16 %[q0], %[q0], ror #8\n\t" \
    "smlad %[s0], %[v], %[x0], %[s0]\n\t" \
    "sxtb16 %[v], %[q1]\n\t" \
    "smlad %[s0], %[q0], %[x1], %[s0]\n\t" \
    "sxtb16 %[q1], %[q1], ror #8\n\t" \
    "smlad %[s1], %[v], %[x0], %[s1]\n\t" \
    "smlad %[s1], %[q1], %[x1], %[s1]\n\t" \
    "ldrd %[q0], %[q1], [%[w]], #8\n\t" \
    "sxtb16 %[v], %[q0]\n\t" \
    "sxtb16 %[q0], %[q0], ror #8\n\t" \
    "smlad %[s2], %[v], %[x0], %[s2]\n\t" \
    "sxtb16 %[v], %[q1]\n\t" \
    "smlad %[s2], %[q0], %[x1], %[s2]\n\t" \
    "sxtb16 %[q1], %[q1], ror #8\n\t" \
    "smlad %[s3], %[v], %[x0], %[s3]\n\t" \
    "smlad %[s3], %[q1], %[x1], %[s3]\n\t"
#define $_STATE_1X4_U8 \
    [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [a] "+r"(a), [w] "+r"(w), [q0] "=&r"(q0), \
        [q1] "=&r"(q1), [v] "=&r"(v), [x0] "=&r"(x0), [x1] "=&r"(x1)
    int32_t s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    uint32_t q0, q1, v, x0, x1;
    if (groups >= 4) {
        const uint8_t *const end = a + groups / 4 * 16;
        __asm__ volatile(
            "1:\n\t" $_GROUP_1X4_U8 $_GROUP_1X4_U8 $_GROUP_1X4_U8 $_GROUP_1X4_U8
            "cmp %[a], %[end]\n\tbne 1b"
            : $_STATE_1X4_U8
            : [end] "r"(end)
            : "cc", "memory");
    }
    for (int32_t rest = groups % 4; rest > 0; rest--) {
        __asm__ volatile($_GROUP_1X4_U8 : $_STATE_1X4_U8 : : "memory");
    }
    s[0] = s0;
    s[1] = s1;
    s[2] = s2;
    s[3] = s3;
#else
    for (; groups > 0; groups--, a += 4, w += 16) {
        const uint32_t x = $_load_4(a), x0 = $_uxtb16(x), x1 = $_uxtb16_ror8(x);
        for (int32_t j = 0; j < 4; j++) {
            const uint32_t q = $_load_4(w + 4 * j);
            s[j] = $_smlad($_sxtb16_ror8(q), x1, $_smlad($_sxtb16(q), x0, s[j]));
        }
    }
#endif
}"#;

pub const TAPS_S8: &str = r#"
/* Adds the product of four bytes of x and four weights, channel by channel. */
static inline void $_taps_s8(int32_t s[4], const int8_t *x, const int8_t *w) {
#if @ARM_DSP
    uint32_t a, b, u, v;
    __asm__(
        "ldr %[b], %[x]\n\t"
        "ldr %[v], %[w]\n\t"
        "sxtb16 %[a], %[b]\n\t"
        "sxtb16 %[b], %[b], ror #8\n\t"
        "sxtb16 %[u], %[v]\n\t"
        "sxtb16 %[v], %[v], ror #8\n\t"
        "smlabb %[s0], %[a], %[u], %[s0]\n\t"
        "smlabb %[s1], %[b], %[v], %[s1]\n\t"
        "smlatt %[s2], %[a], %[u], %[s2]\n\t"
        "smlatt %[s3], %[b], %[v], %[s3]"
        : [s0] "+r"(s[0]), [s1] "+r"(s[1]), [s2] "+r"(s[2]), [s3] "+r"(s[3]), [a] "=&r"(a), [b] "=&r"(b),
          [u] "=&r"(u), [v] "=&r"(v)
        : [x] "m"(*(const int8_t (*)[4])(const void *)x), [w] "m"(*(const int8_t (*)[4])(const void *)w));
#else
    for (int32_t j = 0; j < 4; j++) {
        s[j] = (int32_t)((uint32_t)s[j] + (uint32_t)(x[j] * w[j]));
    }
#endif
}"#;

pub const TAPS_U8: &str = r#"
/* Adds the product of four bytes of x and four weights, channel by channel. */
static inline void $_taps_u8(int32_t s[4], const uint8_t *x, const int8_t *w) {
#if @ARM_DSP
    uint32_t a, b, u, v;
    __asm__(
        "ldr %[b], %[x]\n\t"
        "ldr %[v], %[w]\n\t"
        "uxtb16 %[a], %[b]\n\t"
        "uxtb16 %[b], %[b], ror #8\n\t"
        "sxtb16 %[u], %[v]\n\t"
        "sxtb16 %[v], %[v], ror #8\n\t"
        "smlabb %[s0], %[a], %[u], %[s0]\n\t"
        "smlabb %[s1], %[b], %[v], %[s1]\n\t"
        "smlatt %[s2], %[a], %[u], %[s2]\n\t"
        "smlatt %[s3], %[b], %[v], %[s3]"
        : [s0] "+r"(s[0]), [s1] "+r"(s[1]), [s2] "+r"(s[2]), [s3] "+r"(s[3]), [a] "=&r"(a), [b] "=&r"(b),
          [u] "=&r"(u), [v] "=&r"(v)
        : [x] "m"(*(const uint8_t (*)[4])(const void *)x), [w] "m"(*(const int8_t (*)[4])(const void *)w));
#else
    for (int32_t j = 0; j < 4; j++) {
        s[j] = (int32_t)((uint32_t)s[j] + (uint32_t)(x[j] * w[j]));
    }
#endif
}"#;

pub const TAPS_S16: &str = r#"
/* Adds the product of four half-words of x and four weights, channel by channel. */
static inline void $_taps_s16(int32_t s[4], const int16_t *x, const int8_t *w) {
#if @ARM_DSP
    uint32_t a, b, u, v;
    __asm__(
        "ldr %[a], %[x]\n\t"
        "ldr %[b], %[y]\n\t"
        "ldr %[v], %[w]\n\t"
        "sxtb16 %[u], %[v]\n\t"
        "sxtb16 %[v], %[v], ror #8\n\t"
        "smlabb %[s0], %[a], %[u], %[s0]\n\t"
        "smlatb %[s1], %[a], %[v], %[s1]\n\t"
        "smlabt %[s2], %[b], %[u], %[s2]\n\t"
        "smlatt %[s3], %[b], %[v], %[s3]"
        : [s0] "+&r"(s[0]), [s1] "+&r"(s[1]), [s2] "+&r"(s[2]), [s3] "+r"(s[3]), [a] "=&r"(a), [b] "=&r"(b),
          [u] "=&r"(u), [v] "=&r"(v)
        : [x] "m"(*(const int16_t (*)[2])(const void *)x), [y] "m"(*(const int16_t (*)[2])(const void *)(x + 2)),
          [w] "m"(*(const int8_t (*)[4])(const void *)w));
#else
    for (int32_t j = 0; j < 4; j++) {
        s[j] = (int32_t)((uint32_t)s[j] + (uint32_t)(x[j] * w[j]));
    }
#endif
}"#;

pub const TAPS_NIBBLES: &str = r#"
/* Adds the products of four channels, x 0 and 2, then 1 and 3 in pairs, and four weights of four bits, plus low each. */
static inline void $_taps_nibbles(int32_t s[4], uint32_t a, uint32_t b, const uint8_t *w, uint32_t low) {
    const uint32_t q = (uint32_t)w[0] | (uint32_t)w[1] << 8;
#if @ARM_DSP
    const uint32_t both = q | q << 8;
    uint32_t u, v;
    __asm__("sadd16 %0, %1, %2" : "=r"(u) : "r"(both & 0x000f000fu), "r"(low));
    __asm__("sadd16 %0, %1, %2" : "=r"(v) : "r"(both >> 4 & 0x000f000fu), "r"(low));
    __asm__("smlabb %0, %1, %2, %0" : "+r"(s[0]) : "r"(a), "r"(u));
    __asm__("smlabb %0, %1, %2, %0" : "+r"(s[1]) : "r"(b), "r"(v));
    __asm__("smlatt %0, %1, %2, %0" : "+r"(s[2]) : "r"(a), "r"(u));
    __asm__("smlatt %0, %1, %2, %0" : "+r"(s[3]) : "r"(b), "r"(v));
#else
    const uint32_t x[4] = {a, b, a >> 16, b >> 16};
    for (int32_t j = 0; j < 4; j++) {
        const int32_t weight = (int32_t)(q >> 4 * j & 15u) + (int16_t)(low & 0xffffu);
        s[j] = (int32_t)((uint32_t)s[j] + (uint32_t)((int16_t)(x[j] & 0xffffu) * weight));
    }
#endif
}"#;

pub const TAPS_NIBBLES_S8: &str = r#"
static inline void $_taps_nibbles_s8(int32_t s[4], const int8_t *x, const uint8_t *w, uint32_t low) {
    const uint32_t v = $_load_4(x);
    $_taps_nibbles(s, $_sxtb16(v), $_sxtb16_ror8(v), w, low);
}"#;

pub const TAPS_NIBBLES_U8: &str = r#"
static inline void $_taps_nibbles_u8(int32_t s[4], const uint8_t *x, const uint8_t *w, uint32_t low) {
    const uint32_t v = $_load_4(x);
    $_taps_nibbles(s, $_uxtb16(v), $_uxtb16_ror8(v), w, low);
}"#;

pub const TAPS_NIBBLES_S16: &str = r#"
static inline void $_taps_nibbles_s16(int32_t s[4], const int16_t *x, const uint8_t *w, uint32_t low) {
    uint32_t v[2];
    $_split(v, $_load_4(x), $_load_4(x + 2), 1);
    $_taps_nibbles(s, v[0], v[1], w, low);
}"#;

pub const ROWS_3: &str = r#"
/* Three rows of pairs of half-words under two neighbouring windows of 3x3, at stride 1. With the rows' words a, b and c,
 * finishes the windows begun in sums, v0, v1 and v2 being taps 1 and 2 of each row, and begins the next two as
 * rows_3_begin does, w0, w1 and w2 being taps 0 and 1. */
static inline void $_rows_3_begin(int32_t sums[2], uint32_t a, uint32_t b, uint32_t c, uint32_t w0, uint32_t w1,
                                  uint32_t w2, int32_t start) {
    /* Half of a pair alone: the other half meets a zero. */
    sums[0] = $_smlad(a, w0, $_smlad(b, w1, $_smlad(c, w2, start)));
    sums[1] = $_smlad(a >> 16, w0, $_smlad(b >> 16, w1, $_smlad(c >> 16, w2, start)));
}

/* The last of an odd number of windows. */
static inline int32_t $_rows_3_end(const int32_t sums[2], uint32_t a, uint32_t b, uint32_t c, uint32_t v0, uint32_t v1,
                                   uint32_t v2) {
    return $_smlad(a, v0 >> 16, $_smlad(b, v1 >> 16, $_smlad(c, v2 >> 16, sums[0])));
}

static inline void $_rows_3(int32_t sums[2], int32_t done[2], uint32_t a, uint32_t b, uint32_t c, uint32_t w0,
                            uint32_t w1, uint32_t w2, uint32_t v0, uint32_t v1, uint32_t v2, int32_t start) {
#if @ARM_DSP && @ARM_FP
    /* What waits lies in registers of the FPU: the rest takes all others. Small pieces leave the compiler a way out. */
#define $_PAIR_OF_TAPS(half, x, w, first, second) \
    __asm__(half " %0, %2, %3, %0\n\tsmlad %1, %2, %3, %1" : "+&r"(first), "+&r"(second) : "r"(x), "r"(w))
    int32_t s0 = sums[0], s1 = sums[1];
    $_PAIR_OF_TAPS("smlabt", a, v0, s0, s1);
    $_PAIR_OF_TAPS("smlabt", b, v1, s0, s1);
    $_PAIR_OF_TAPS("smlabt", c, v2, s0, s1);
    __asm__("vmov %0, %1" : "=t"(done[0]) : "r"(s0));
    __asm__("vmov %0, %1" : "=t"(done[1]) : "r"(s1));
    __asm__("vmov %0, %2\n\tsmlatb %1, %3, %4, %0\n\tsmlad %0, %3, %4, %0"
            : "=&r"(s0), "=&r"(s1)
            : "t"(start), "r"(a), "r"(w0));
    $_PAIR_OF_TAPS("smlatb", b, w1, s1, s0);
    $_PAIR_OF_TAPS("smlatb", c, w2, s1, s0);
    sums[0] = s0;
    sums[1] = s1;
#else
    done[0] = $_smlad(a, v0 >> 16, $_smlad(b, v1 >> 16, $_smlad(c, v2 >> 16, sums[0])));
    done[1] = $_smlad(a, v0, $_smlad(b, v1, $_smlad(c, v2, sums[1])));
    $_rows_3_begin(sums, a, b, c, w0, w1, w2, start);
#endif
}"#;

pub const ROW_3: &str = r#"
/* Three rows of pairs of half-words under one window of 3x3: taps 0 and 1 of the rows, then taps 2 with the next words, v0
 * being those of rows 0 and 1 and v1 that of row 2. */
static inline int32_t $_row_3_begin(uint32_t a, uint32_t b, uint32_t c, uint32_t w0, uint32_t w1, uint32_t w2,
                                    int32_t start) {
#if @ARM_DSP && @ARM_FP
    int32_t sum;
    __asm__(
        "vmov %[s], %[start]\n\t"
        "smlad %[s], %[a], %[w0], %[s]\n\t"
        "smlad %[s], %[b], %[w1], %[s]\n\t"
        "smlad %[s], %[c], %[w2], %[s]"
        : [s] "=&r"(sum)
        : [a] "r"(a), [b] "r"(b), [c] "r"(c), [w0] "r"(w0), [w1] "r"(w1), [w2] "r"(w2), [start] "t"(start));
    return sum;
#else
    return $_smlad(a, w0, $_smlad(b, w1, $_smlad(c, w2, start)));
#endif
}

static inline int32_t $_row_3_end(uint32_t a, uint32_t b, uint32_t c, uint32_t v0, uint32_t v1, int32_t sum) {
#if @ARM_DSP
    __asm__(
        "smlabb %[s], %[a], %[v0], %[s]\n\t"
        "smlabt %[s], %[b], %[v0], %[s]\n\t"
        "smlabb %[s], %[c], %[v1], %[s]"
        : [s] "+&r"(sum)
        : [a] "r"(a), [b] "r"(b), [c] "r"(c), [v0] "r"(v0), [v1] "r"(v1));
    return sum;
#else
    return $_smlad(a & 0xffffu, v0, $_smlad(b, v0 >> 16, $_smlad(c & 0xffffu, v1, sum)));
#endif
}"#;
