"""Make tests/fuzz/corpus/gguf: small GGUF files, right and wrong, from which fuzzing starts.

The files are written with struct alone, not with the code under test. Running it twice gives the same
bytes.
"""

import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "gguf"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODE = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
# id: (elements, bytes) of a block
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2)}


def text(s):
    raw = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(raw)) + raw


def fixed(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + CODE[kind], value)


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + fixed(kind, value)


def array(name, kind, values):
    head = text(name) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(fixed(kind, v) for v in values)


def model(keys, tensors=(), version=3, alignment=32, cut=0):
    """tensors: (name, type id, dims); data are a byte counter."""
    infos, offset = b"", 0
    for name, kind, dims in tensors:
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        elements, size = BLOCKS[kind]
        count = 1
        for d in dims:
            count *= d
        end = offset + count // elements * size
        offset = (end + alignment - 1) // alignment * alignment
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + infos
    if tensors:
        head += b"\0" * (-len(head) % alignment) + bytes(i * 7 & 255 for i in range(end))
    return head[:len(head) - cut]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    arch = key("general.architecture", STRING, "llama")
    vocab = [array("tokenizer.ggml.tokens", STRING, ["<s>", "</s>", "a", "", "\u4e09"]),
             array("tokenizer.ggml.scores", F32, [0.0, -1.0, -2.5, float("nan"), float("-inf")]),
             array("tokenizer.ggml.token_type", I32, [3, 3, 1, 1, 6])]
    scalars = [key("k.u8", U8, 255), key("k.i8", I8, -1), key("k.u16", U16, 9), key("k.i16", I16, -9),
               key("k.u32", U32, 1 << 31), key("k.i32", I32, -5), key("k.f32", F32, 1e-6),
               key("k.bool", BOOL, 1), key("k.u64", U64, 1 << 63), key("k.i64", I64, -(1 << 63)),
               key("k.f64", F64, 0.1)]
    every_type = [(f"t{kind}.weight", kind, (elements, 2) if elements > 1 else (3, 2, 1, 2))
                  for kind, (elements, _) in BLOCKS.items()]
    files = {
        "empty_v3": model([]),
        "empty_v2": model([], version=2),
        "scalars": model([arch, *scalars]),
        "vocabulary": model([arch, *vocab]),
        "arrays": model([array(f"a.{k}", k, [1, 0, 1]) for k in CODE] + [array("a.none", STRING, [])]),
        "one_tensor": model([arch], [("token_embd.weight", 0, (4, 3))]),
        "every_type": model([arch], every_type),
        "aligned_64": model([key("general.alignment", U32, 64)],
                            [("a", 8, (32,)), ("b", 30, (5, 1, 2))], alignment=64),
        "split_part": model([key("split.no", U16, 0), key("split.count", U16, 3),
                             key("split.tensors.count", I32, 3)], [("a", 0, (1,))]),
        "truncated": model([arch, *vocab], [("a", 0, (8,))], cut=5),
        "twice": model([arch, arch]),
        "nested": model([text("n") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + struct.pack("<IQ", ARRAY, 1)]),
        "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "not_gguf": b"GGML\1\0\0\0",
    }
    for name, data in files.items():
        (OUT / name).write_bytes(data)
        print(f"{name:12} {len(data):6}")


if __name__ == "__main__":
    main()
