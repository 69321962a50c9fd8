"""Make tests/fuzz/corpus/safetensors: small safetensors files, right and wrong, from which fuzzing starts.

The files are written with struct and json alone, not with the code under test. Running it twice gives
the same bytes.
"""

import json
import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "safetensors"
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "F64": 8, "BOOL": 1, "F8_E4M3": 1}


def raw(header, size):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text)) + text + bytes(i * 7 & 255 for i in range(size))


def model(tensors, metadata=None, spaces=0):
    """tensors: (name, type, shape); data are a byte counter."""
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, kind, shape in tensors:
        size = BYTES[kind]
        for d in shape:
            size *= d
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return raw(json.dumps(header, separators=(",", ":")) + " " * spaces, at)


def entry(dtype, shape, offsets):
    return f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}'


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    layer = [("model.layers.0.self_attn.q_proj.weight", "F16", [4, 4]), ("model.norm.weight", "F16", [4]),
             ("model.embed_tokens.weight", "F16", [6, 4])]
    files = {
        "empty": model([]),
        "metadata": model([], {"format": "pt"}),
        "one": model([("a", "F32", [2, 3])], spaces=3),
        "types": model([(k, k, [2]) for k in BYTES]),
        "scalar_and_none": model([("s", "I64", []), ("n", "F32", [0, 4]), ("t", "U8", [1])]),
        "layer": model(layer, {"format": "pt"}),
        "eight_dimensions": model([("a", "U8", [1] * 8)]),
        "nine_dimensions": model([("a", "U8", [1] * 9)]),
        "unicode": model([("\u00e9\u4e09", "U8", [1])]),
        "overlap": raw('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
                       '"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', 3),
        "twice": raw('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
                     '"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2),
        "gap": raw(entry("U8", [1], [1, 2]), 2),
        "rest": raw(entry("U8", [1], [0, 1]), 2),
        "overflow": raw(entry("F32", [2**32, 2**32], [0, 0]), 0),
        "huge_number": raw(entry("F32", [10**30], [0, 4]), 4),
        "backwards": raw(entry("F32", [1], [4, 0]), 4),
        "unknown_type": raw(entry("F4", [2], [0, 1]), 1),
        "deep": raw('{"a":' + "[" * 3000, 0),
        "long_header": struct.pack("<Q", 1 << 40) + b"{}",
    }
    for name, data in files.items():
        (OUT / name).write_bytes(data)


if __name__ == "__main__":
    main()
