"""Names of points: the canonical ones, TransformerLens' and llama.cpp's where they mean exactly that, and for those that
almost do a sentence that says what there is instead."""

import functools
import itertools
import re

from ._library import KeyholeError, library

ALIASES = {
    "hook_resid_pre": "resid_pre", "attn.hook_in": "attn_in", "attn.hook_q": "q", "attn.hook_k": "k", "attn.hook_v": "value",
    "attn.hook_z": "z", "attn.hook_out": "attn_out", "hook_attn_out": "attn_out_post", "hook_resid_mid": "resid_mid",
    "mlp.hook_in": "mlp_in", "mlp.hook_pre": "mlp_pre", "mlp.hook_pre_linear": "mlp_pre_linear", "mlp.hook_post": "mlp_act",
    "mlp.hook_out": "mlp_out", "hook_mlp_out": "mlp_out_post", "hook_resid_post": "resid_post",
}  # fmt: skip
LLAMA = {"ffn_inp": "resid_mid", "l_out": "resid_post"}
HINTS = [
    ("hook_attn_scores", "scores are not kept: attn_rows.{} has the weights after the softmax, key by key"),
    ("hook_pattern", "attention is sparse here: attn_rows.{} has (head, position, keys, weights) of each row"),
    ("attn.hook_result", "z.{} is what each head has before the output projection, attn_out.{} what all write together"),
    ("attn.hook_rot_", "q.{} and k.{} are queries and keys before the rotation, as attn.hook_q and attn.hook_k"),
    ("ln1.hook_", "it has no gain, or is the norm's scale: attn_in.{} is the norm with its gain"),
    ("ln2.hook_", "it has no gain, or is the norm's scale: mlp_in.{} is the norm with its gain"),
    ("ln_final.hook_", "whether it has the norm's gain depends on the family: final_norm has it"),
    ("hook_attn_in", "it comes before the norm, once for each head: resid_pre.{} is that stream, attn_in.{} the norm of it"),
    ("hook_mlp_in", "it comes before the norm: resid_mid.{} is that stream, mlp_in.{} the norm of it"),
    ("hook_embed", "it comes before positions and scaling: embeddings is what the stream begins with"),
    ("hook_pos_embed", "positions are not told apart: embeddings is what the stream begins with"),
]
OUTSIDE = ("embeddings", "final_norm", "logits")  # of the blocks: they have no layer


@functools.cache
def points():
    """Name -> number, as the library has them."""
    names = itertools.takewhile(bool, map(library().kh_point_name, itertools.count()))
    return {name.decode(): number for number, name in enumerate(names)}


def canonical(text, info):
    """(point, layer) of a name; layer -1 outside the blocks."""
    point, layer = text, -1
    if found := re.fullmatch(r"(?:blocks\.(\d+)\.)(.+)", text):
        point, layer = ALIASES.get(found[2]), int(found[1])
    elif found := re.fullmatch(r"(\w+)([.-])(\d+)", text):
        point, layer = found[1] if found[2] == "." else LLAMA.get(found[1]), int(found[3])
    if point not in points():
        for part, sentence in HINTS:
            if re.search(r"(^|\.)" + re.escape(part), text):
                raise KeyholeError(f"{text} has no exact counterpart: " + sentence.replace("{}", str(max(layer, 0))))
        raise KeyholeError(f"'{text}' is no point: {', '.join(points())} exist, those of layers as resid_post.12, "
                           "and TransformerLens' names such as blocks.12.hook_resid_post")  # fmt: skip
    if point.startswith(("cross_", "resid_cross")):
        raise KeyholeError(f"{text}: a decoder has no attention to an encoder; attn_rows.0, z.0 are its own")
    if (layer < 0) != (point in OUTSIDE):
        raise KeyholeError(f"{text}: this point has no layer" if layer >= 0 else f"{text}: a layer is expected, such as {point}.0")
    if layer >= info.layers:
        raise KeyholeError(f"{text}: the model has layers 0 to {info.layers - 1}")
    if point == "resid_mid" and info.parallel:
        raise KeyholeError(f"{text}: attention and feed-forward of this model read the same stream, so there is none between them; "
                           f"resid_pre.{layer}, attn_out_post.{layer} and mlp_out_post.{layer} exist")  # fmt: skip
    if point == "mlp_pre_linear" and not info.gated and not info.experts:
        raise KeyholeError(f"{text}: neurons of this model have no second factor; mlp_pre.{layer} and mlp_act.{layer} exist")
    return point, layer
