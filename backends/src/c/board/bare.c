/* Bare-metal start on QEMU's Cortex-M and RISC-V boards: memory set up, FPU and MVE on, files of the host by semihosting. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t data_source, data_start, data_end, bss_start, bss_end, stack_top;
int driver_main(void);
void start(void);
void fault(void);

#if defined(__riscv)

static int semihost(int operation, const void *block) {
    register int a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = block;
    /* The three instructions must be whole words of one page. */
    __asm volatile(".option push\n .option norvc\n .balign 16\n slli zero, zero, 0x1f\n ebreak\n srai zero, zero, 7\n .option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return a0;
}

__attribute__((naked, section(".vectors"), used)) void reset(void) {
    __asm volatile(".option push\n .option arch, +zicsr\n la sp, stack_top\n la t0, trap\n csrw mtvec, t0\n j start\n"
                   " .balign 4\ntrap: j fault\n .option pop");
}

static void enable(void) {}

#else

static int semihost(int operation, const void *block) {
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    &stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};

static void enable(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm volatile("dsb\n isb");
#endif
}

#endif

static void leave(int code) {
    const uint32_t block[2] = {0x20026u, (uint32_t)code};
    semihost(0x20, block);
    for (;;) {
    }
}

static int open_file(const char *name, uint32_t mode, uint32_t length) {
    const uint32_t block[3] = {(uint32_t)name, mode, length};
    return semihost(0x01, block);
}

static int input, output;

int io_read(void *to, size_t bytes) {
    const uint32_t block[3] = {(uint32_t)input, (uint32_t)to, (uint32_t)bytes};
    return bytes == 0 || semihost(0x06, block) == 0;
}

int io_write(const void *from, size_t bytes) {
    const uint32_t block[3] = {(uint32_t)output, (uint32_t)from, (uint32_t)bytes};
    return bytes == 0 || semihost(0x05, block) == 0;
}

void start(void) {
    enable();
    for (uint32_t *from = &data_source, *to = &data_start; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end;) {
        *to++ = 0;
    }
    input = open_file("in.bin", 1, 6);
    output = open_file("out.bin", 5, 7);
    leave(input == -1 || output == -1 ? 98 : driver_main());
}

void fault(void) {
    leave(99);
}
