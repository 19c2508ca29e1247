/* Bare-metal start on QEMU's Cortex-M boards: FPU and MVE on, memory set up, files of the host by semihosting. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t data_source, data_start, data_end, bss_start, bss_end, stack_top;
int driver_main(void);

static int semihost(int operation, const void *block) {
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

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
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm volatile("dsb\n isb");
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

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    &stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
