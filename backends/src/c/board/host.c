/* The driver's files on a hosted system. */
#include <stddef.h>
#include <stdio.h>

int driver_main(void);

static FILE *input, *output;

int io_read(void *to, size_t bytes) {
    return fread(to, 1, bytes, input) == bytes;
}

int io_write(const void *from, size_t bytes) {
    return fwrite(from, 1, bytes, output) == bytes;
}

int main(void) {
    input = fopen("in.bin", "rb");
    output = fopen("out.bin", "wb");
    if (input == NULL || output == NULL) {
        return 98;
    }
    /* What was written before a crash tells where it was. */
    setvbuf(output, NULL, _IONBF, 0);
    const int code = driver_main();
    return fclose(output) == 0 ? code : 98;
}
