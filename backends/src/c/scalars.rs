//! The helpers on one scalar.
//!
//! They give [`mcc_ir::scalar`] its exact meaning on any C11 compiler: integers wrap without undefined behaviour, rounding
//! needs no libm, and nothing depends on whether the compiler contracts `a * b + c`.

use super::helpers::Helper;

/// In an order in which each comes after what it needs.
pub const SCALARS: &[Helper] = &[
    Helper {
        name: "bits_of_f",
        needs: &[],
        text: "
static inline int32_t $_bits_of_f(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}",
    },
    Helper {
        name: "f_of_bits",
        needs: &[],
        text: "
static inline float $_f_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}",
    },
    Helper {
        name: "mul",
        needs: &[],
        text: "
/* The rounded product: opaque to the compiler, so that no fused multiply-add can swallow its rounding. */
static inline float $_mul(float a, float b) {
#if @ARM_FP
    float r = a * b;
    __asm__(\"\" : \"+t\"(r));
#elif @SSE
    float r = a * b;
    __asm__(\"\" : \"+x\"(r));
#elif defined(__GNUC__) && defined(__aarch64__)
    float r = a * b;
    __asm__(\"\" : \"+w\"(r));
#elif defined(__GNUC__) && defined(__arm__)
    const float r = a * b;
#else
    volatile float r = a * b;
#endif
    return r;
}",
    },
    Helper {
        name: "min_f",
        needs: &[],
        text: "
static inline float $_min_f(float a, float b) {
    return b < a ? b : a;
}",
    },
    Helper {
        name: "max_f",
        needs: &[],
        text: "
static inline float $_max_f(float a, float b) {
    return b > a ? b : a;
}",
    },
    Helper {
        name: "abs_f",
        needs: &["bits_of_f", "f_of_bits"],
        text: "
static inline float $_abs_f(float x) {
    return $_f_of_bits((uint32_t)$_bits_of_f(x) & 0x7fffffffu);
}",
    },
    Helper {
        name: "nibble",
        needs: &[],
        text: "
/* Element i of an array of four-bit numbers, the first in the low half of a byte. */
static inline int32_t $_nibble(const uint8_t *from, int32_t i) {
    return from[i / 2] >> i % 2 * 4 & 15;
}",
    },
    Helper {
        name: "add",
        needs: &[],
        text: "
static inline int32_t $_add(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}",
    },
    Helper {
        name: "sub",
        needs: &[],
        text: "
static inline int32_t $_sub(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a - (uint32_t)b);
}",
    },
    Helper {
        name: "mul_i",
        needs: &[],
        text: "
static inline int32_t $_mul_i(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a * (uint32_t)b);
}",
    },
    Helper {
        name: "div_i",
        needs: &[],
        text: "
static inline int32_t $_div_i(int32_t a, int32_t b) {
    if (b == 0) {
        return 0;
    }
    return b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}",
    },
    Helper {
        name: "min",
        needs: &[],
        text: "
static inline int32_t $_min(int32_t a, int32_t b) {
    return b < a ? b : a;
}",
    },
    Helper {
        name: "max",
        needs: &[],
        text: "
static inline int32_t $_max(int32_t a, int32_t b) {
    return b > a ? b : a;
}",
    },
    Helper {
        name: "mul_high_round",
        needs: &[],
        text: "
static inline int32_t $_mul_high_round(int32_t a, int32_t b) {
#if @ARM_DSP
    int32_t r;
    __asm__(\"smmulr %0, %1, %2\" : \"=r\"(r) : \"r\"(a), \"r\"(b));
    return r;
#else
    return (int32_t)(((int64_t)a * b + 0x80000000) >> 32);
#endif
}",
    },
    Helper {
        name: "round_to_i",
        needs: &["bits_of_f"],
        text: "
/* To the nearest integer, half to even. The result must fit. */
static inline int32_t $_round_to_i(float x) {
#if @ARM_FP
    __asm__(\"vcvtr.s32.f32 %0, %0\" : \"+t\"(x));
    return $_bits_of_f(x);
#elif @SSE
    int32_t r;
    __asm__(\"cvtss2si %1, %0\" : \"=r\"(r) : \"x\"(x));
    return r;
#elif defined(__GNUC__) && defined(__aarch64__)
    int32_t r;
    __asm__(\"fcvtns %w0, %s1\" : \"=r\"(r) : \"w\"(x));
    return r;
#else
    const uint32_t bits = (uint32_t)$_bits_of_f(x);
    const uint32_t exponent = bits >> 23 & 255u;
    const uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    uint32_t r = 0u;
    if (exponent > 158u) {
        r = 0x80000000u;
    } else if (exponent >= 150u) {
        r = mantissa << (exponent - 150u);
    } else if (exponent >= 126u) {
        const uint32_t shift = 150u - exponent;
        const uint32_t rest = mantissa & ((1u << shift) - 1u);
        const uint32_t half = 1u << (shift - 1u);
        r = mantissa >> shift;
        r += rest > half || (rest == half && (r & 1u) != 0u) ? 1u : 0u;
    }
    return (int32_t)(bits >> 31 != 0u ? 0u - r : r);
#endif
}",
    },
    Helper {
        name: "round_clamp",
        needs: &["round_to_i", "min", "max", "min_f", "max_f"],
        text: "
/* Rounded half to even and clamped to lo..hi; any x. */
static inline int32_t $_round_clamp(float x, int32_t lo, int32_t hi) {
#if @ARM_FP
    /* The conversion saturates. */
    return $_max($_min($_round_to_i(x), hi), lo);
#else
    return $_round_to_i($_max_f($_min_f(x, (float)hi), (float)lo));
#endif
}",
    },
    Helper {
        name: "round_to_s8",
        needs: &["round_clamp", "round_to_i"],
        text: "
/* Rounded half to even, moved by zero and clamped to -128..127; any x. */
static inline int32_t $_round_to_s8(float x, int32_t zero) {
#if @ARM_FP && @ARM_DSP
    int32_t r = $_round_to_i(x);
    __asm__(\"qadd %0, %0, %1\\n\\tssat %0, #8, %0\" : \"+r\"(r) : \"r\"(zero) : \"cc\");
    return r;
#else
    return $_round_clamp(x, -128 - zero, 127 - zero) + zero;
#endif
}",
    },
    Helper {
        name: "round_to_u8",
        needs: &["round_clamp", "round_to_i"],
        text: "
/* Rounded half to even, moved by zero and clamped to 0..255; any x. */
static inline int32_t $_round_to_u8(float x, int32_t zero) {
#if @ARM_FP && @ARM_DSP
    int32_t r = $_round_to_i(x);
    __asm__(\"qadd %0, %0, %1\\n\\tusat %0, #8, %0\" : \"+r\"(r) : \"r\"(zero) : \"cc\");
    return r;
#else
    return $_round_clamp(x, -zero, 255 - zero) + zero;
#endif
}",
    },
    Helper {
        name: "trunc_to_i",
        needs: &[],
        text: "
/* Towards zero, saturating; 0 for NaN. */
static inline int32_t $_trunc_to_i(float x) {
    if (x >= 0x1p31f) {
        return INT32_MAX;
    }
    if (x < -0x1p31f) {
        return INT32_MIN;
    }
    return x == x ? (int32_t)x : 0;
}",
    },
    Helper {
        name: "integral",
        needs: &["bits_of_f", "f_of_bits"],
        text: "
/* Whether x has no fraction, is infinite or NaN. */
static inline int32_t $_integral(float x) {
    return ($_bits_of_f(x) & 0x7f800000) >= 0x4b000000;
}

/* The integer r as a float with the sign of x, which matters where r is 0. */
static inline float $_with_sign(int32_t r, float x) {
    const float y = (float)r;
    return $_f_of_bits((uint32_t)$_bits_of_f(y) | ((uint32_t)$_bits_of_f(x) & 0x80000000u));
}",
    },
    Helper {
        name: "floor",
        needs: &["integral"],
        text: "
static inline float $_floor(float x) {
    if ($_integral(x)) {
        return x;
    }
    const int32_t r = (int32_t)x;
    return $_with_sign(r - ((float)r > x), x);
}",
    },
    Helper {
        name: "ceil",
        needs: &["integral"],
        text: "
static inline float $_ceil(float x) {
    if ($_integral(x)) {
        return x;
    }
    const int32_t r = (int32_t)x;
    return $_with_sign(r + ((float)r < x), x);
}",
    },
    Helper {
        name: "round",
        needs: &["integral", "round_to_i"],
        text: "
/* Half to even. */
static inline float $_round(float x) {
    return $_integral(x) ? x : $_with_sign($_round_to_i(x), x);
}",
    },
    Helper {
        name: "sqrt",
        needs: &["bits_of_f", "f_of_bits"],
        text: "
/* The correctly rounded square root. */
static inline float $_sqrt(float x) {
#if @ARM_FP
    float r;
    __asm__(\"vsqrt.f32 %0, %1\" : \"=t\"(r) : \"t\"(x));
    return r;
#elif @SSE
    float r;
    __asm__(\"sqrtss %1, %0\" : \"=x\"(r) : \"x\"(x));
    return r;
#elif defined(__GNUC__) && defined(__aarch64__)
    float r;
    __asm__(\"fsqrt %s0, %s1\" : \"=w\"(r) : \"w\"(x));
    return r;
#else
    const uint32_t bits = (uint32_t)$_bits_of_f(x);
    if ((bits << 1) == 0u || (bits >= 0x7f800000u && bits < 0x80000000u)) {
        return x;
    }
    if (bits > 0x80000000u) {
        return $_f_of_bits(0x7fc00000u);
    }
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t mantissa = bits & 0x7fffffu;
    if (exponent == 0) {
        for (exponent = 1; (mantissa & 0x800000u) == 0u; exponent--) {
            mantissa <<= 1;
        }
    } else {
        mantissa |= 0x800000u;
    }
    /* x = mantissa * 2^exponent, moved to an even exponent and a mantissa of 25 or 26 bits. */
    exponent -= 151;
    mantissa <<= 1;
    if ((exponent & 1) != 0) {
        exponent -= 1;
        mantissa <<= 1;
    }
    const uint64_t square = (uint64_t)mantissa << 24;
    uint32_t root = 0u;
    for (uint32_t bit = 1u << 24; bit != 0u; bit >>= 1) {
        const uint64_t next = root | bit;
        if (next * next <= square) {
            root = (uint32_t)next;
        }
    }
    /* 25 bits of the root; it is never half way between two floats. */
    const uint32_t rounded = (root + 1u) >> 1;
    return $_f_of_bits(((uint32_t)(exponent / 2 + 139) << 23) + (rounded - 0x800000u));
#endif
}",
    },
    Helper {
        name: "from_f16",
        needs: &["bits_of_f", "f_of_bits"],
        text: "
/* An IEEE half-precision number by its bits. */
static inline float $_from_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (uint32_t)half >> 10 & 31u;
    const uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0u) {
        const float x = (float)(int32_t)mantissa * 0x1p-24f;
        return $_f_of_bits((uint32_t)$_bits_of_f(x) | sign);
    }
    if (exponent == 31u) {
        return $_f_of_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa != 0u ? 0x400000u : 0u));
    }
    return $_f_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}",
    },
    Helper {
        name: "to_f16",
        needs: &["bits_of_f"],
        text: "
/* The bits of the nearest IEEE half-precision number, half to even. */
static inline uint16_t $_to_f16(float x) {
    const uint32_t bits = (uint32_t)$_bits_of_f(x);
    const uint32_t size = bits & 0x7fffffffu;
    uint32_t half;
    if (size > 0x7f800000u) {
        half = 0x7e00u | (size >> 13 & 0x3ffu);
    } else if (size >= 0x477ff000u) {
        half = 0x7c00u;
    } else if (size >= 0x38800000u) {
        half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    } else if (size < 0x33000000u) {
        half = 0u;
    } else {
        const uint32_t shift = 126u - (size >> 23);
        const uint32_t mantissa = (size & 0x7fffffu) | 0x800000u;
        const uint32_t rest = mantissa & ((1u << shift) - 1u);
        const uint32_t middle = 1u << (shift - 1u);
        half = mantissa >> shift;
        half += rest > middle || (rest == middle && (half & 1u) != 0u) ? 1u : 0u;
    }
    return (uint16_t)(bits >> 16 & 0x8000u) | (uint16_t)half;
}",
    },
    Helper {
        name: "from_bf16",
        needs: &["f_of_bits"],
        text: "
/* A bfloat16 number by its bits. */
static inline float $_from_bf16(uint16_t bits) {
    const uint32_t quiet = (bits & 0x7fffu) > 0x7f80u ? 0x400000u : 0u;
    return $_f_of_bits((uint32_t)bits << 16 | quiet);
}",
    },
    Helper {
        name: "to_bf16",
        needs: &["bits_of_f"],
        text: "
/* The bits of the nearest bfloat16 number, half to even. */
static inline uint16_t $_to_bf16(float x) {
    const uint32_t bits = (uint32_t)$_bits_of_f(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}",
    },
    Helper {
        name: "mac",
        needs: &[],
        text: "
static inline int32_t $_mac(int32_t sum, int32_t a, int32_t b) {
    return (int32_t)((uint32_t)sum + (uint32_t)(a * b));
}",
    },
];
