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
