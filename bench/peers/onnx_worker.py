"""The ONNX Runtime side of bench/peers/attention: attention, forward, timed whenever a line arrives.

    python onnx_worker.py '{"work": "gqa", "L": 2048, "heads": 12, "kv_heads": 12, "head_dim": 64, "threads": 1}'

Talks as torch_worker.py does. Operators of com.microsoft: gqa is GroupQueryAttention, its only attention with
a causal rule and key heads of their own, whose time includes copying keys and values to its outputs
present_key and present_value, which it always makes; mha is MultiHeadAttention, where every query sees all keys.
"""

import json
import re
import sys
import time

import numpy
import onnxruntime
from onnx import TensorProto, helper


def status(field):
    with open("/proc/self/status", encoding="ascii") as f:
        found = re.search(rf"^{field}:\s*(\d+) kB", f.read(), re.M)
    return int(found.group(1)) * 1024 if found else 0


F32, I32 = TensorProto.FLOAT, TensorProto.INT32


def grouped(length, heads, key_heads, width):
    """GroupQueryAttention over an empty past: its node and its inputs."""
    past = [1, key_heads, 0, width]
    inputs = {"q": (F32, [1, length, heads * width]), "k": (F32, [1, length, key_heads * width])}
    inputs |= {"v": inputs["k"], "past_k": (F32, past), "past_v": (F32, past), "last": (I32, [1]), "total": (I32, [])}
    node = helper.make_node(
        "GroupQueryAttention", list(inputs), ["out", "present_k", "present_v"], domain="com.microsoft",
        num_heads=heads, kv_num_heads=key_heads,
    )  # fmt: skip
    return node, inputs


def multi_head(length, heads, width):
    inputs = {n: (F32, [1, length, heads * width]) for n in "qkv"}
    return helper.make_node("MultiHeadAttention", list(inputs), ["out"], domain="com.microsoft", num_heads=heads), inputs


def model(case, length, heads, key_heads, width):
    mha = case.get("work") == "mha"
    node, inputs = multi_head(length, heads, width) if mha else grouped(length, heads, key_heads, width)
    outputs = [helper.make_tensor_value_info(n, F32, None) for n in node.output]
    infos = [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()]
    graph = helper.make_graph([node], "attention", infos, outputs)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()


def past(length, key_heads, width):
    empty = numpy.zeros((1, key_heads, 0, width), dtype=numpy.float32)
    last, total = numpy.array([length - 1], dtype=numpy.int32), numpy.array(length, dtype=numpy.int32)
    return {"past_k": empty, "past_v": empty, "last": last, "total": total}


def main():
    case = json.loads(sys.argv[1])
    length, heads, width = case["L"], case["heads"], case["head_dim"]
    key_heads = case.get("kv_heads", heads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case["threads"], 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model(case, length, heads, key_heads, width), options,
                                           providers=["CPUExecutionProvider"])  # fmt: skip
    random = numpy.random.default_rng(0)
    feed = {n: random.standard_normal((1, length, h * width), dtype=numpy.float32)
            for n, h in (("q", heads), ("k", key_heads), ("v", key_heads))}  # fmt: skip
    if case.get("work") != "mha":
        feed |= past(length, key_heads, width)
    before = status("VmRSS")
    out = session.run(["out"], feed)[0]
    if case.get("check"):
        numpy.savez(case["check"], out=out, **feed)
    print(json.dumps({"onnxruntime": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            session.run(["out"], feed)
            seconds.append(time.perf_counter() - start)
        peak = max(0, status("VmHWM") - before)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
