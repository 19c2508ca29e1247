#!/usr/bin/env python3
"""Prints what the MLPerf Tiny models take on emulated microcontrollers, beside what others take.

    scripts/mcu-table.py [--mcc target/release/mcc] [--shared ../shared] [--goals balanced,time,size]
    scripts/mcu-table.py --models VWW --types int8 --cores m4 --goals balanced --profile 12

Compiles each model, int8 and float, for cortex-m4, cortex-m7 and cortex-m55, and int8 also for riscv32imc; runs it on the
stored input and compares the output with the stored one: int8 byte by byte, floats within 1e-4 of the largest. On
Cortex-M the measuring tool of the shared folder counts; on RISC-V the processor's own counter of instructions, in QEMU
with `-icount`. Peers' figures are read from the shared peers.md; the limits of the float models are the project's own.
`--profile N` prints the N costliest functions of every run on Cortex-M below the table. Needs numpy, the cross compilers
and emulators of `make tools`, and gcc.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy

MODELS = ["IC", "KWS", "VWW", "AD"]
CORES = {
    "int8": {"m4": "cortex-m4", "m7": "cortex-m7", "m55": "cortex-m55", "rv32imc": "riscv32imc"},
    "float": {"m4": "cortex-m4", "m7": "cortex-m7", "m55": "cortex-m55"},
}
COLUMNS = ["instructions", "m4_cycles", "flash_bytes", "ram_bytes"]
# Bytes of RAM that a float model may take; of instructions it may take half of the best peer's.
FLOAT_RAM = {"IC": 140_000, "KWS": 70_000, "VWW": 165_000, "AD": 3_900}
TOLERANCE = 1e-4
BOARD = pathlib.Path(__file__).resolve().parent.parent / "backends" / "src" / "c" / "board"


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def wrong(kind, expected, outputs):
    """How many bytes (int8) or elements (float) of the outputs are not as stored."""
    count = 0
    for key, found in zip((k for k in expected if k.startswith("out:")), outputs):
        stored = expected[key].ravel()
        found = numpy.frombuffer(found, stored.dtype)
        if kind == "float":
            count += int((abs(found - stored) > TOLERANCE * abs(stored).max()).sum())
        else:
            count += int((found.view(numpy.uint8) != stored.view(numpy.uint8)).sum())
    return count


def measure(args, name, kind, core, goal, folder):
    """The figures of one model on one core, and its profile."""
    model = f"mlperf_{name.lower()}_" + {"int8": "int8_qdq", "float": "float"}[kind]
    case = numpy.load(args.shared / "models" / "io" / f"{model}.npz")
    inputs = [case[key] for key in case if key.startswith("in:")]
    paths = [folder / f"in{i}.bin" for i in range(len(inputs))]
    for path, tensor in zip(paths, inputs):
        tensor.tofile(path)
    short = name.lower()
    onnx = args.shared / "models" / f"{model}.onnx"
    command = [args.mcc, "compile", onnx, "--target", CORES[kind][core], "-O", goal, "-o", folder, "--name", short, "--json"]
    report = json.loads(run(*command).stdout)
    if core == "rv32imc":
        found, outputs = on_risc_v(report, short, inputs, folder)
        profile = ""
    else:
        command = [args.shared / "tools" / "mcu" / "measure", folder / f"{short}.c", "--name", short, "--core", core]
        done = run(*command, "--input", *paths, "--profile", str(args.profile))
        found, profile = json.loads(done.stdout), done.stderr
        outputs = [bytes.fromhex(text) for text in found["outputs"]]
    return found | {"wrong": wrong(kind, case, outputs)}, profile


def on_risc_v(report, name, inputs, folder):
    """Runs the C on QEMU's RV32IMC processor with the start-up code of the tests, and reads its counter of instructions."""
    ports = report["report"]
    place = lambda port: f"(void *)(arena + {port['offset']})"
    each = lambda call, ports: "".join(f"if (!{call}({place(p)}, {p['bytes']})) return 97;\n" for p in ports)
    places = ", ".join(["arena", *map(place, ports["inputs"]), *map(place, ports["outputs"])])
    (folder / "driver.c").write_text(f"""
#include <stddef.h>
#include "{name}.h"
int io_read(void *to, size_t bytes);
int io_write(const void *from, size_t bytes);
int driver_main(void);
static _Alignas(16) unsigned char arena[{ports["totals"]["arena_bytes"]}];
static unsigned instructions(void) {{
    unsigned n;
    __asm volatile(".option push\\n .option arch, +zicsr\\n csrr %0, instret\\n .option pop" : "=r"(n)::"memory");
    return n;
}}
int driver_main(void) {{
    {each("io_read", ports["inputs"])}
    unsigned counts[2] = {{instructions()}};
    const int code = {name}_run({places});
    counts[1] = instructions();
    if (code != 0 || !io_write(counts, 8)) return 1;
    {each("io_write", ports["outputs"])}
    return 0;
}}
""")
    script = (BOARD / "bare.ld").read_text()
    for word, value in [("FLASH_ORIGIN", 0x80000000), ("RAM_ORIGIN", 0x81000000), ("FLASH_BYTES", 1 << 24), ("RAM_BYTES", 1 << 24)]:
        script = script.replace(word, str(value))
    (folder / "board.ld").write_text(script)
    (folder / "in.bin").write_bytes(b"".join(t.tobytes() for t in inputs))
    command = ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "-O3", "--specs=picolibc.specs", "-nostartfiles"]
    command += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-T", "board.ld", BOARD / "bare.c"]
    run(*command, "driver.c", f"{name}.c", "-o", "program", cwd=folder)
    command = ["qemu-system-riscv32", "-M", "virt", "-cpu", "lowrisc-ibex", "-bios", "none", "-nographic", "-icount", "shift=0"]
    command += ["-monitor", "none", "-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", "program"]
    run(*command, cwd=folder, stdin=subprocess.DEVNULL)
    written = (folder / "out.bin").read_bytes()
    begin, end = numpy.frombuffer(written[:8], numpy.uint32)
    outputs, at = [], 8
    for port in ports["outputs"]:
        outputs.append(written[at : at + port["bytes"]])
        at += port["bytes"]
    built = report["built"]
    ram = ports["totals"]["ram_bytes"] + built["stack_bytes"]
    return {"instructions": int(end - begin), "m4_cycles": None, "flash_bytes": built["flash_bytes"], "ram_bytes": ram}, outputs


def int8_peers(text):
    """TensorFlow Lite Micro's rows: by model, instructions on M4, cycles, instructions on M55, flash, RAM."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1].startswith("TFLite Micro"):
            rows[cells[0].split()[0]] = cells[2:]
    return rows


def float_peers(text):
    """By model, instructions and bytes of RAM of emx-onnx-cgen and of onnx2c."""
    rows = {}
    text = text[text.find("Float peers") :].split("\n\n")[0]
    for name, part in re.findall(r"\bon (\w+):((?:.(?!\bon \w+:))*)", text, re.I | re.S):
        millions = [float(n) for n in re.findall(r"([\d.]+) M\b", part)]
        sizes = [float(n) * {"k": 1e3, "M": 1e6}[unit] for n, unit in re.findall(r"([\d.]+) ([kM])B", part)]
        if millions and len(sizes) >= 2:
            rows[name] = [(millions[0], sizes[0]), (millions[-1], sizes[1])]
    return rows


def others(kind, name, peers):
    """Rows of the table: what others take, and the limits."""
    if name not in peers[kind]:
        return
    if kind == "int8":
        m4, cycles, m55, flash, ram = peers[kind][name]
        yield f"m4 | TFLite Micro | {m4} | {cycles} | {flash} | {ram}"
        yield f"m55 | TFLite Micro | {m55} | | {flash} | {ram}"
        return
    rows = peers[kind][name]
    for peer, (millions, ram) in zip(["emx-onnx-cgen", "onnx2c"], rows):
        yield f"m4 | {peer} | {millions} M | | | {ram:,.0f}"
    yield f"m4 | limit | {min(m for m, _ in rows) / 2:.3f} M | | | {FLOAT_RAM[name]:,}"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda text: text.split(",")
    args.add_argument("--mcc", type=pathlib.Path, default="target/release/mcc")
    args.add_argument("--shared", type=pathlib.Path, default="../shared")
    args.add_argument("--goals", type=listed, default="balanced,time,size")
    args.add_argument("--models", type=listed, default=",".join(MODELS))
    args.add_argument("--types", type=listed, default="int8,float")
    args.add_argument("--cores", type=listed, default="m4,m7,m55,rv32imc")
    args.add_argument("--profile", type=int, default=0, metavar="N")
    args = args.parse_args()
    args.mcc = args.mcc.resolve()
    text = (args.shared / "peers.md").read_text()
    peers = {"int8": int8_peers(text), "float": float_peers(text)}
    print("| model | type | core | goal or peer | instructions | M4 cycles | flash B | RAM B | wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    faults, profiles = 0, []
    for kind, name in ((kind, name) for kind in args.types for name in args.models):
        for core, goal in ((core, goal) for core in args.cores if core in CORES[kind] for goal in args.goals):
            with tempfile.TemporaryDirectory() as folder:
                found, profile = measure(args, name, kind, core, goal, pathlib.Path(folder))
            faults += found["wrong"]
            figures = " | ".join("" if found[column] is None else f"{found[column]:,}" for column in COLUMNS)
            print(f"| {name} | {kind} | {core} | {goal} | {figures} | {found['wrong']} |", flush=True)
            if profile:
                profiles.append(f"\n{name} {kind} on {core}, {goal}:\n\n{profile}")
        for row in others(kind, name, peers):
            print(f"| {name} | {kind} | {row} | |")
    print("".join(profiles), end="")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
