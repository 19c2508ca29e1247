/* Compiles a model for this machine, runs it on a file of raw floats and prints what comes out, one number a line:
 *
 *     classify MODEL.onnx INPUT.f32
 *
 * docs/embedding.md says how to build it. It feeds models of one f32 input and one f32 output. */

#include "mcc.h"

#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: error[%s]: %s\n", what, mcc_last_error_code(), mcc_last_error_message());
    return 1;
}

/* Fills `bytes` bytes from the file; 0 where it has another size. */
static int load(const char *path, void *to, size_t bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        return 0;
    }
    int whole = fread(to, 1, bytes, file) == bytes && fgetc(file) == EOF;
    fclose(file);
    return whole;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.onnx INPUT.f32\n", argv[0]);
        return 64;
    }
    MccSession *session = NULL;
    if (mcc_session_from_file(argv[1], NULL, &session) != MCC_STATUS_OK) {
        return failed(argv[1]);
    }
    const MccPort *in = mcc_session_input(session, 0), *out = mcc_session_output(session, 0);
    if (mcc_session_input_count(session) != 1 || mcc_session_output_count(session) != 1 ||
        mcc_port_dtype(in) != MCC_DTYPE_F32 || mcc_port_dtype(out) != MCC_DTYPE_F32) {
        fprintf(stderr, "%s: this example feeds models of one f32 input and one f32 output\n", argv[1]);
        mcc_session_free(session);
        return 1;
    }
    fprintf(stderr, "%s: %zu elements -> %s: %zu elements; arena %zu bytes\n", mcc_port_name(in), mcc_port_elements(in),
            mcc_port_name(out), mcc_port_elements(out), mcc_session_arena_bytes(session));

    size_t in_bytes = mcc_port_bytes(in), out_bytes = mcc_port_bytes(out);
    float *input = malloc(in_bytes), *output = calloc(1, out_bytes);
    int status = 1;
    if (!input || !output || !load(argv[2], input, in_bytes)) {
        fprintf(stderr, "%s: not a file of %zu bytes\n", argv[2], in_bytes);
    } else {
        /* The session reads and writes the caller's memory. */
        const void *inputs[] = {input};
        void *outputs[] = {output};
        if (mcc_session_run(session, inputs, &in_bytes, 1, outputs, &out_bytes, 1) != MCC_STATUS_OK) {
            failed("run");
        } else {
            for (size_t i = 0; i < mcc_port_elements(out); i++) {
                printf("%.9g\n", output[i]);
            }
            status = 0;
        }
    }
    free(input);
    free(output);
    mcc_session_free(session);
    return status;
}
