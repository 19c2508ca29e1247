#!/bin/sh
# Installs what the tests need beside Rust: compilers for the host, Arm and RISC-V, QEMU, and the ONNX project's node tests.
# Does nothing where all are there.
set -eu

missing=""
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 || { shift; missing="$missing $*"; }
}
need gcc gcc libc6-dev
need arm-none-eabi-gcc gcc-arm-none-eabi
need qemu-system-arm qemu-system-arm
need riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf
need qemu-system-riscv32 qemu-system-misc
# newlib's headers come in a package of their own.
if ! arm-none-eabi-gcc -print-file-name=libc.a 2>/dev/null | grep -q /; then
    missing="$missing libnewlib-arm-none-eabi"
fi
# For RISC-V there is picolibc; its specs tell the compiler where it is.
if ! riscv64-unknown-elf-gcc -print-file-name=picolibc.specs 2>/dev/null | grep -q /; then
    missing="$missing picolibc-riscv64-unknown-elf"
fi
python3 -c "import ensurepip" >/dev/null 2>&1 || missing="$missing python3 python3-venv"
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    echo "installing:$missing"
    $as_root apt-get update
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $missing
fi

if [ ! -d target/onnx-node-tests ]; then
    mkdir -p target
    python3 -m venv target/python
    target/python/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2
    target/python/bin/python -W ignore scripts/onnx-node-tests.py target/onnx-node-tests
fi
