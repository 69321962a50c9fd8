"""Add the families of tests/golden/families to tests/fuzz/corpus/model: their GGUF headers, as keyhole convert writes them.

    python tools/fuzz_corpus_families.py build/keyhole

A seed is a fill byte and a header (tests/fuzz/fuzz_model.c makes up the data of the tensors). Running it twice gives
the same bytes.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ["bert", "bert-qa", "gpt2", "gptneox", "mixtral", "nomic-bert", "phi3", "qwen2-moe", "t5", "t5-encoder", "t5-gated"]
TAME = 3


def first_data(data):
    """Where the tensors' data begins: behind the header, aligned to 32 bytes."""
    from gguf import GGUFReader

    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        return min(int(t.data_offset) for t in GGUFReader(file.name).tensors)


for name in NAMES:
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "model.gguf"
        subprocess.run([sys.argv[1], "convert", "-q", "-m", ROOT / "tests" / "golden" / "families" / name, "-o", out, "--type", "F16"],
                       check=True)
        data = out.read_bytes()
    assert data[:4] == b"GGUF" and struct.unpack_from("<I", data, 4) == (3,)
    seed = bytes([TAME]) + data[:first_data(data)]
    (ROOT / "tests" / "fuzz" / "corpus" / "model" / name).write_bytes(seed)
    print(f"{name}: {len(seed)} bytes")
