/* What this machine can do, for host-bench.py: probe THREADS BYTES prints, as JSON, the operations a second of a loop of
 * multiply-adds in f32 and int8 (a multiply-add is two operations), and the bytes a second of reading BYTES bytes, a share
 * for each thread, again and again. Each is the best of several tries. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

typedef float floats __attribute__((vector_size(WIDTH)));
typedef int64_t words __attribute__((vector_size(WIDTH)));

enum { TRIES = 7, SUMS = 12, STEPS = 100000, MAX_THREADS = 64 };

static pthread_barrier_t together;
static size_t share;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* The compiler may neither drop nor reorder what goes through here. */
#define KEEP(value) __asm__ volatile("" : "+m"(value));

/* Twelve sums that do not depend on each other hide the latency. Named one by one they stay in registers. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

static double multiply_floats(void) {
    floats a = {0}, b = {0};
    KEEP(a)
    KEEP(b)
#define ZERO(i)         \
    floats sum##i = b;  \
    KEEP(sum##i)
    EACH(ZERO)
    for (int step = 0; step < STEPS; step++) {
#define STEP(i) sum##i = sum##i * a + b;
        EACH(STEP)
    }
#define USE(i) KEEP(sum##i)
    EACH(USE)
    return 2.0 * STEPS * SUMS * (WIDTH / sizeof(float));
}

static double multiply_bytes(void) {
#if defined(__AVX512VNNI__)
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#define ZERO_BYTES(i) __m512i sum##i = _mm512_setzero_si512(); KEEP(sum##i)
#define STEP_BYTES(i) sum##i = _mm512_dpbusd_epi32(sum##i, a, b);
    const double products = 64;
#elif defined(__AVX2__)
    /* Widened to 16 bits: products added in pairs, and the pairs to the sum. */
    __m256i a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(5);
#define ZERO_BYTES(i) __m256i sum##i = _mm256_setzero_si256(); KEEP(sum##i)
#define STEP_BYTES(i)                                                                                                 \
    {                                                                                                                 \
        __m256i product = _mm256_madd_epi16(a, b);                                                                    \
        __asm__ volatile("" : "+x"(product));                                                                         \
        sum##i = _mm256_add_epi32(sum##i, product);                                                                   \
    }
    const double products = 16;
#else
    return multiply_floats();
#endif
#if defined(__AVX2__)
    KEEP(a)
    KEEP(b)
    EACH(ZERO_BYTES)
    for (int step = 0; step < STEPS; step++) {
        EACH(STEP_BYTES)
    }
    EACH(USE)
    return 2.0 * STEPS * SUMS * products;
#endif
}

static void *buffer_of(size_t bytes) {
    void *buffer = NULL;
    if (posix_memalign(&buffer, 4096, bytes) != 0) {
        exit(1);
    }
    memset(buffer, 1, bytes);
    return buffer;
}

static double read_all(const words *buffer, size_t bytes) {
    size_t count = bytes / sizeof(words) / 8 * 8, times = (1 << 24) / bytes + 1;
    words sums[8];
    memset(sums, 0, sizeof sums);
    for (size_t t = 0; t < times; t++) {
        __asm__ volatile("" : : "r"(buffer) : "memory");
        for (size_t i = 0; i < count; i += 8) {
            for (int k = 0; k < 8; k++) {
                sums[k] += buffer[i + k];
            }
        }
    }
    KEEP(sums)
    return (double)times * count * sizeof(words);
}

/* Work and seconds of the slowest part: all threads begin together and wait for each other. */
struct result {
    double work[3], seconds[3];
};

static void *thread(void *argument) {
    struct result *result = argument;
    words *buffer = buffer_of(share);
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < TRIES; i++) {
            pthread_barrier_wait(&together);
            double start = now();
            double work = kind == 0 ? multiply_floats() : kind == 1 ? multiply_bytes() : read_all(buffer, share);
            pthread_barrier_wait(&together);
            double seconds = now() - start;
            if (i == 0 || seconds < result->seconds[kind]) {
                result->seconds[kind] = seconds;
            }
            result->work[kind] = work;
        }
    }
    free(buffer);
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 1 << 20;
    if (threads < 1 || threads > MAX_THREADS) {
        return 64;
    }
    share = bytes / threads < 8 * sizeof(words) ? 8 * sizeof(words) : bytes / threads;
    pthread_barrier_init(&together, NULL, threads);
    pthread_t handles[MAX_THREADS];
    struct result results[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&handles[i], NULL, thread, &results[i]) != 0) {
            return 1;
        }
    }
    double rates[3] = {0, 0, 0};
    for (int i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        for (int kind = 0; kind < 3; kind++) {
            rates[kind] += results[i].work[kind] / results[i].seconds[kind];
        }
    }
    printf("{\"f32\": %.6g, \"int8\": %.6g, \"read\": %.6g}\n", rates[0], rates[1], rates[2]);
    return 0;
}
