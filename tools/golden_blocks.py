"""Make tests/golden/blocks/<type>.bin: raw quantised blocks and what the gguf package makes of them.

The values are the independent truth for block dequantisation: equality is to the bit.
File format: tests/golden/README.md. The output depends on the seeds below and on nothing else.
"""

import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "blocks"

# Byte offsets of the binary16 scales inside a block. They must be finite: the bits of a NaN made by
# arithmetic belong to the processor, not to the format.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0],
}

# zero, minus zero, smallest and largest subnormal, smallest normal, largest finite, one, both signs
EXTREME_SCALES = [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x7BFF, 0x3C00, 0xFBFF, 0x83FF]
EXTREME_BYTES = [0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0]


def quantised(kind, rng):
    elems, size = GGML_QUANT_SIZES[kind]
    count = 256 if elems == 32 else 40
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[kind]:
        exponent = rng.uniform(-14, 2, count)
        sign = rng.choice([-1.0, 1.0], count)
        scale = (sign * np.exp2(exponent)).astype("<f2")
        raw[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
    for i, byte in enumerate(EXTREME_BYTES):  # uniform quants under ordinary scales
        keep = [raw[i, at:at + 2].copy() for at in SCALES[kind]]
        raw[i] = byte
        for at, scale in zip(SCALES[kind], keep):
            raw[i, at:at + 2] = scale
    for i, bits in enumerate(EXTREME_SCALES):  # extreme scales over random quants
        for j, at in enumerate(SCALES[kind]):
            other = EXTREME_SCALES[(i + 3 * j) % len(EXTREME_SCALES)]
            raw[len(EXTREME_BYTES) + i, at:at + 2] = np.array([other], "<u2").view(np.uint8)
    return raw


def halves(kind, rng):
    """4096 two-byte values: every exponent, both signs, infinities; no signalling NaN."""
    bits = rng.integers(0, 1 << 16, 4096, dtype=np.uint16)
    bits[:256] = np.arange(256, dtype=np.uint16) << 8
    bits[256:272] = [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00,
                     0x3C00, 0xBC00, 0x7F80, 0xFF80, 0x7FC0]
    if kind == T.F16:
        special = (bits & 0x7C00) == 0x7C00
        bits[special & ((bits & 0x3FF) != 0)] |= 0x0200
    else:
        special = (bits & 0x7F80) == 0x7F80
        bits[special & ((bits & 0x7F) != 0)] |= 0x0040
    return bits.astype("<u2").view(np.uint8).reshape(4096, 2)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    total = 0
    for kind in [T.F16, T.BF16, *SCALES]:
        rng = np.random.default_rng(1000 + int(kind))
        raw = quantised(kind, rng) if kind in SCALES else halves(kind, rng)
        elems, size = GGML_QUANT_SIZES[kind] if kind in SCALES else (1, 2)
        values = np.ascontiguousarray(dequantize(raw, kind), dtype="<f4").reshape(-1)
        assert values.size == len(raw) * elems
        assert kind not in SCALES or np.isfinite(values).all(), kind
        head = struct.pack("<8sIIII", b"KHBLOCK1", int(kind), len(raw), size, elems)
        data = head + raw.tobytes() + values.tobytes()
        (OUT / f"{kind.name.lower()}.bin").write_bytes(data)
        total += len(data)
        print(f"{kind.name:7} {len(raw):5} blocks  {len(data):7} bytes")
    print(f"total {total} bytes")


if __name__ == "__main__":
    main()
