#!/bin/sh
# Installs what the tests need beside Rust: host and Arm compilers, and QEMU. Does nothing where all are there.
set -eu

missing=""
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 || { shift; missing="$missing $*"; }
}
need gcc gcc libc6-dev
need arm-none-eabi-gcc gcc-arm-none-eabi
need qemu-system-arm qemu-system-arm
# newlib's headers come in a package of their own.
if ! arm-none-eabi-gcc -print-file-name=libc.a 2>/dev/null | grep -q /; then
    missing="$missing libnewlib-arm-none-eabi"
fi
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
echo "installing:$missing"
$as_root apt-get update
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $missing
