#!/usr/bin/env python3
"""Makes the quantised test models with int4 weights and int16 activations from a float model of this project.

    narrow_models.py MODEL.onnx CALIBRATION.npz OUTPUT_FOLDER

For each of a8w4, a16w8 and a16w4 it writes OUTPUT_FOLDER/MODEL_<kind>_qdq.onnx and beside it, as .npz, one input and the
output that ONNX Runtime gives without optimisations. Weights are symmetric with a scale for each output channel, chosen
for the least squared error; int8 activations are asymmetric, int16 ones symmetric; biases are int32.
CALIBRATION.npz holds x: uint8 [N, 28, 28]. Needs onnx, onnxruntime and numpy.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

KINDS = {"a8w4": (8, 4), "a16w8": (16, 8), "a16w4": (16, 4)}
TYPES = {None: np.float32, 8: np.int8, 16: np.int16, 32: np.int32}
# These hand the integers on under the scale of their input.
MOVERS = {"MaxPool", "Flatten", "Reshape"}


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ranges(model, samples):
    """The smallest and largest value of every tensor over the samples."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    names = [n.output[0] for n in model.graph.node]
    del wide.graph.output[:]
    wide.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    source = model.graph.input[0].name
    run = session(wide)
    found = {source: (float(samples.min()), float(samples.max()))}
    for x in samples:
        for name, value in zip(names, run.run(None, {source: x})):
            lo, hi = found.get(name, (0.0, 0.0))
            found[name] = (min(lo, float(value.min())), max(hi, float(value.max())))
    return found


def weight_scales(w, bits):
    """One scale a row, of the least squared error."""
    top = 2 ** (bits - 1) - 1
    rows = w.reshape(w.shape[0], -1)
    most = np.maximum(np.abs(rows).max(1), 1e-8)
    best, error = most / top, np.full(len(rows), np.inf)
    for share in np.linspace(0.4, 1.0, 61):
        scale = most * share / top
        q = np.clip(np.rint(rows / scale[:, None]), -top - 1, top)
        e = ((q * scale[:, None] - rows) ** 2).sum(1)
        best, error = np.where(e < error, scale, best), np.minimum(e, error)
    return best.astype(np.float32)


class Quantiser:
    def __init__(self, model, found, activation_bits, weight_bits):
        self.model, self.found = model, found
        self.activation_bits, self.weight_bits = activation_bits, weight_bits
        self.values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes, self.initializers, self.scale_of = [], [], {}

    def constant(self, name, values, bits=None):
        values = np.asarray(values)
        if bits == 4:
            tensor = helper.make_tensor(name, TensorProto.INT4, values.shape, values.astype(int).flatten().tolist())
        else:
            tensor = numpy_helper.from_array(values.astype(TYPES[bits]), name)
        self.initializers.append(tensor)
        return name

    def weights(self, name, bits, scale, axis=0):
        """A constant as dequantised integers."""
        w = self.values[name]
        shape = [-1 if i == axis else 1 for i in range(w.ndim)]
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        q = np.clip(np.rint(w / scale.reshape(shape)), lo, hi)
        inputs = [self.constant(f"{name}_q", q, bits), self.constant(f"{name}_scale", scale)]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], axis=axis))
        return f"{name}_dq"

    def activation(self, name, params, result):
        """Quantises a tensor and reads it back under the name `result`."""
        bits = self.activation_bits
        scale, zero = params
        inputs = [self.constant(f"{result}_scale", np.float32(scale)), self.constant(f"{result}_zero", zero, bits)]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *inputs], [f"{result}_q"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{result}_q", *inputs], [result]))

    def params(self, name):
        lo, hi = self.found[name]
        if self.activation_bits == 16:
            return np.float32(max(-lo, hi) / 32767), 0
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        scale = np.float32((hi - lo) / 255)
        return scale, int(np.clip(np.rint(-128 - lo / scale), -128, 127))

    def run(self):
        graph = self.model.graph
        output = graph.output[0].name
        source = graph.input[0].name
        quantised = {source: f"{source}_dq"}
        self.scale_of[source] = self.params(source)
        self.activation(source, self.scale_of[source], f"{source}_dq")
        users = {}
        for node in graph.node:
            for i in node.input:
                users.setdefault(i, []).append(node.op_type)
        for node in graph.node:
            new = onnx.NodeProto()
            new.CopyFrom(node)
            for i, name in enumerate(node.input):
                new.input[i] = quantised.get(name, name)
            if node.op_type in ("Conv", "Gemm"):
                scale = weight_scales(self.values[node.input[1]], self.weight_bits)
                new.input[1] = self.weights(node.input[1], self.weight_bits, scale)
                new.input[2] = self.weights(node.input[2], 32, scale * self.scale_of[node.input[0]][0])
            name = node.output[0]
            # A ReLU is quantised with what it belongs to.
            if users.get(name) == ["Relu"]:
                self.nodes.append(new)
                continue
            last = name == output
            raw = f"{name}_raw"
            new.output[0] = raw
            self.nodes.append(new)
            moved = node.op_type in MOVERS
            self.scale_of[name] = self.scale_of[node.input[0]] if moved else self.params(name)
            quantised[name] = name if last else f"{name}_dq"
            self.activation(raw, self.scale_of[name], quantised[name])
        used = {i for n in self.nodes for i in n.input}
        kept = [t for t in graph.initializer if t.name in used]
        new = helper.make_graph(self.nodes, graph.name, graph.input, graph.output, kept + self.initializers)
        model = helper.make_model(new, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model)
        return model


def main():
    path, data, folder = map(Path, sys.argv[1:])
    model = onnx.load(path)
    x = np.load(data)["x"][:64].astype(np.float32)[:, None, None] / 255
    found = ranges(model, x)
    source, output = model.graph.input[0].name, model.graph.output[0].name
    for kind, (activation_bits, weight_bits) in KINDS.items():
        quantised = Quantiser(model, found, activation_bits, weight_bits).run()
        y = session(quantised).run(None, {source: x[0]})[0]
        name = f"{path.stem}_{kind}_qdq"
        onnx.save(quantised, folder / f"{name}.onnx")
        np.savez(folder / f"{name}.npz", **{f"in:{source}": x[0], f"out:{output}": y})


if __name__ == "__main__":
    main()
