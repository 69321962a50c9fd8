"""Make tests/fuzz/corpus/shard: small shards of tokens, right and wrong, from which fuzzing starts.

The files are written with struct alone, not with the code under test. Running it twice gives the same
bytes.
"""

import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "shard"


def shard(documents, width=2, flags=0, version=1, vocabulary=1000, count=None, ends=None, rest=0):
    ids = [i for document in documents for i in document]
    if ends is None:
        ends = [sum(map(len, documents[: n + 1])) for n in range(len(documents))]
    body = b"".join(i.to_bytes(width, "little") for i in ids)
    body += bytes(-len(body) % 8)
    header = struct.pack(
        "<8sIIQQQQQQ", b"khtokens", version, width, flags, len(ids) if count is None else count, len(ends),
        vocabulary, 0, rest,
    )  # fmt: skip
    return header + body + struct.pack(f"<{len(ends)}Q", *ends)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    documents = [[1, 2, 3, 4, 5], [], [6], [7, 8, 9]]
    whole = shard(documents)
    files = {
        "two_bytes": whole,
        "four_bytes": shard(documents, width=4, vocabulary=70000),
        "masked": shard([[1, 2 | 1 << 15, 3], [4, 5 | 1 << 15]], flags=1),
        "empty": shard([]),
        "cut": whole[:-3],
        "header_only": whole[:64],
        "version": shard(documents, version=2),
        "width": shard(documents, width=3),
        "flags": shard(documents, flags=2),
        "vocabulary": shard(documents, vocabulary=1 << 40),
        "huge_count": shard(documents, count=1 << 63),
        "wrapping_count": shard(documents, count=(1 << 64) - 4),
        "descending": shard(documents, ends=[5, 3, 6, 9]),
        "beyond": shard(documents, ends=[5, 5, 6, 90]),
        "short": shard(documents, ends=[5, 5, 6, 8]),
        "reserved": shard(documents, rest=1),
        "other": b"GGUF" + bytes(80),
    }
    for name, data in files.items():
        (OUT / name).write_bytes(data)


if __name__ == "__main__":
    main()
