#!/usr/bin/env python3
"""Prints what the MLPerf Tiny int8 models take on emulated Cortex-M, beside TensorFlow Lite Micro.

    scripts/mcu-table.py [--mcc target/release/mcc] [--shared ../shared] [--goals balanced,time,size]

Compiles each model for cortex-m4, cortex-m7 and cortex-m55, runs it with the measuring tool of the shared folder on the
stored input, and compares the output with the stored one. Peers' figures are read from the shared peers.md. Needs numpy,
arm-none-eabi-gcc and qemu-system-arm.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy

MODELS = {"IC": "mlperf_ic_int8_qdq", "KWS": "mlperf_kws_int8_qdq", "VWW": "mlperf_vww_int8_qdq", "AD": "mlperf_ad_int8_qdq"}
CORES = ["m4", "m7", "m55"]
COLUMNS = ["instructions", "m4_cycles", "flash_bytes", "ram_bytes"]


def measure(mcc, shared, name, core, goal, folder):
    """The tool's figures of one model on one core."""
    model = MODELS[name]
    case = numpy.load(shared / "models" / "io" / f"{model}.npz")
    files = {}
    for kind in ("in:", "out:"):
        files[kind] = [folder / f"{kind[:-1]}{i}.bin" for i, _ in enumerate(k for k in case if k.startswith(kind))]
        for path, key in zip(files[kind], (k for k in case if k.startswith(kind))):
            case[key].tofile(path)
    short = name.lower()
    onnx = shared / "models" / f"{model}.onnx"
    command = [mcc, "compile", onnx, "--target", f"cortex-{core}", "-O", goal, "-o", folder, "--name", short]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    command = [shared / "tools" / "mcu" / "measure", folder / f"{short}.c", "--name", short, "--core", core]
    command += ["--input", *files["in:"], "--expect", *files["out:"]]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def peers(shared):
    """TensorFlow Lite Micro's rows of peers.md: by model, instructions on M4, cycles, instructions on M55, flash, RAM."""
    rows = {}
    for line in (shared / "peers.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1].startswith("TFLite Micro"):
            rows[cells[0].split()[0]] = cells[2:]
    return rows


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--mcc", type=pathlib.Path, default="target/release/mcc")
    args.add_argument("--shared", type=pathlib.Path, default="../shared")
    args.add_argument("--goals", default="balanced,time,size")
    args = args.parse_args()
    theirs = peers(args.shared)
    print("| model | core | goal | instructions | M4 cycles | flash B | RAM B | wrong bytes |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    for name in MODELS:
        for core in CORES:
            for goal in args.goals.split(","):
                with tempfile.TemporaryDirectory() as folder:
                    found = measure(args.mcc, args.shared, name, core, goal, pathlib.Path(folder))
                wrong += found["mismatches"]
                figures = " | ".join(f"{found[column]:,}" for column in COLUMNS)
                print(f"| {name} | {core} | {goal} | {figures} | {found['mismatches']} |", flush=True)
        if name in theirs:
            m4, cycles, m55, flash, ram = theirs[name]
            print(f"| {name} | m4 | TFLite Micro | {m4} | {cycles} | {flash} | {ram} | |")
            print(f"| {name} | m55 | TFLite Micro | {m55} | | {flash} | {ram} | |")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
