"""The ONNX Runtime side of bench/peers/attention: causal attention, forward, timed whenever a line arrives.

    python onnx_worker.py '{"L": 2048, "heads": 12, "kv_heads": 12, "head_dim": 64, "threads": 1}'

Talks as torch_worker.py does. The operator is GroupQueryAttention of com.microsoft, its only attention with
a causal rule and key heads of their own; its time includes copying keys and values to its outputs
present_key and present_value, which it always makes.
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


def model(case, length, heads, key_heads, width):
    f32, i32 = TensorProto.FLOAT, TensorProto.INT32
    past = [1, key_heads, 0, width]
    inputs = {"q": (f32, [1, length, heads * width]), "k": (f32, [1, length, key_heads * width])}
    inputs |= {"v": inputs["k"], "past_k": (f32, past), "past_v": (f32, past), "last": (i32, [1]), "total": (i32, [])}
    node = helper.make_node(
        "GroupQueryAttention", list(inputs), ["out", "present_k", "present_v"], domain="com.microsoft",
        num_heads=heads, kv_num_heads=key_heads,
    )  # fmt: skip
    outputs = [helper.make_tensor_value_info(n, f32, None) for n in node.output]
    infos = [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()]
    graph = helper.make_graph([node], "attention", infos, outputs)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()


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
    empty = numpy.zeros((1, key_heads, 0, width), dtype=numpy.float32)
    feed |= {"past_k": empty, "past_v": empty}
    feed |= {"last": numpy.array([length - 1], dtype=numpy.int32), "total": numpy.array(length, dtype=numpy.int32)}
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
