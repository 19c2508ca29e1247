# Everything that a fresh machine needs beside Rust is installed by `make tools`.

.PHONY: demo test lint tools conformance

# The main job on a model of this repository: C for an STM32H7, and the same model run by the JIT against its stored output.
demo:
	cargo run --release -- compile tests/models/fm_lenet5_int8_qdq.onnx --target stm32h7 -o out --name lenet5
	cargo run --release -- run tests/models/fm_lenet5_int8_qdq.onnx --backend jit --case tests/models/fm_lenet5_int8_qdq.npz

test: tools lint
	MCC_ONNX_NODE_TESTS=$(CURDIR)/target/onnx-node-tests cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

tools:
	scripts/install-tools.sh

# Whole data sets instead of samples; needs the shared models and data beside this folder.
conformance: tools
	MCC_FULL=1 cargo test --release --test conformance -- --nocapture
