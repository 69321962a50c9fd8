"""Make tests/golden/train: ten training losses of the tiny model of every family, and the gradients of the first step.

The models are those of tests/golden/families, as transformers loads them from the folders, trained in double precision by
torch's AdamW; what is trained on, and what the files hold, is in tests/golden/train/README.md. The same is done once more
in float32, which must come to the same losses, so that 1e-4 is a fair demand; gradients are held against differences of
the loss. Names are GGUF's.

    golden_train.py [--check] [NAME ...]      --check: writes nothing, compares with what is there
"""

import argparse
import json
import math
import pathlib
import re
import sys

import torch
import transformers

import golden_families

FOLDERS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "families"
OUT = FOLDERS.parent / "train"
STEPS, B, T, TARGETS = 10, 2, 24, 16
RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.999), 1e-8, 0.01
SINGLE = torch.float32
FAIR = 2e-5  # how far float32 may be from float64, relative to the loss

# ---- what is trained on: formulas that any language can repeat ----


def number(n):
    """A hash of 32 bits."""
    x = n * 2654435761 & 0xFFFFFFFF
    x = (x ^ x >> 15) * 2246822519 & 0xFFFFFFFF
    return x ^ x >> 13


def ids(step, count, salt=0):
    """[B][count], none of them a marker of any of these vocabularies."""
    return torch.tensor([[10 + number(salt + (step * B + b) * count + t + 1) % 100 for t in range(count)] for b in range(B)])


def segments(family):
    """Types of tokens, where the family has them."""
    if family.expect.get("segments") == 0:
        return {}
    two = family.config.get("type_vocab_size", 2) > 1
    return {"token_type_ids": torch.tensor([[int(two and t >= T // 2) for t in range(T)]] * B)}


def cross_entropy(logits, labels):
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def next_token(family, model, step):
    batch = ids(step, T)
    return cross_entropy(model(batch).logits[:, :-1], batch[:, 1:])


def masked(family, model, step):
    labels = ids(step, T)
    hidden = torch.arange(T) % 5 == 2
    batch = labels.clone()
    batch[:, hidden] = family.mask
    logits = model(batch, **segments(family)).logits
    return cross_entropy(logits[:, hidden], labels[:, hidden])


def spans(family, model, step):
    out = model(ids(step, T), **segments(family))
    starts = torch.tensor([(3 + 5 * b + step) % T for b in range(B)])
    ends = torch.tensor([(6 + 7 * b + step) % T for b in range(B)])
    return (cross_entropy(out.start_logits, starts) + cross_entropy(out.end_logits, ends)) / 2


def states(family, model, step):
    """The mean square of the distance to a fixed pattern."""
    if family.task == "t5-encoder":
        rows = model(ids(step, T)).last_hidden_state
    else:
        base = getattr(model, model.base_model_prefix, model)
        rows = base(ids(step, T), **segments(family)).last_hidden_state
    b, t, d = (torch.arange(n) for n in rows.shape)
    wanted = ((5 * b[:, None, None] + 7 * t[None, :, None] + 3 * d) % 11 - 5) / 5
    return ((rows - wanted) ** 2).mean()


def answers(family, model, step):
    """The decoder writes what follows its start."""
    labels = ids(step, TARGETS, salt=100000)
    start = torch.full((B, 1), family.config["decoder_start_token_id"])
    logits = model(input_ids=ids(step, T), decoder_input_ids=torch.cat([start, labels[:, :-1]], 1)).logits
    return cross_entropy(logits, labels)


LOSSES = {"causal": [next_token], "mlm": [masked, states], "qa": [spans, states], "embed": [states], "t5": [answers],
          "t5-encoder": [states]}

# ---- names ----

COMMON = [
    (r"^distilbert\.transformer\.layer\.", "blk."), (r"^distilbert\.", ""),
    (r"^(model|transformer|gpt_neox|bert|roberta)\.", ""),
    (r"^layers\.", "blk."), (r"^h\.", "blk."), (r"^encoder\.layer\.", "blk."),
    (r"^(embed_tokens|wte|embed_in|shared)\.", "token_embd."), (r"^wpe\.", "position_embd."),
    (r"^(norm|ln_f|final_layer_norm)\.", "output_norm."), (r"^(lm_head|embed_out)\.(?=weight)", "output."),
    (r"\.(input_layernorm|ln_1)\.", ".attn_norm."), (r"\.(ln_2|pre_feedforward_layernorm)\.", ".ffn_norm."),
    (r"\.post_feedforward_layernorm\.", ".post_ffw_norm."),
    (r"\.self_attn\.(q|k|v)_proj\.", r".attn_\1."), (r"\.self_attn\.(q|k)_norm\.", r".attn_\1_norm."),
    (r"\.(self_attn\.qkv_proj|attn\.c_attn|attention\.query_key_value)\.", ".attn_qkv."),
    (r"\.(self_attn\.o_proj|attn\.c_proj|attention\.dense)\.", ".attn_output."),
    (r"\.mlp\.gate\.", ".ffn_gate_inp."), (r"\.mlp\.shared_expert_gate\.", ".ffn_gate_inp_shexp."),
    (r"\.mlp\.shared_expert\.(gate|up|down)_proj", r".ffn_\1_shexp"),
    (r"\.mlp\.experts\.down_proj$", ".ffn_down_exps.weight"),
    (r"\.mlp\.(gate_up_proj|c_fc|dense_h_to_4h)\.", ".ffn_up."), (r"\.mlp\.(c_proj|dense_4h_to_h)\.", ".ffn_down."),
    (r"\.mlp\.(gate|up|down)_proj\.", r".ffn_\1."),
    # encoders
    (r"^embeddings\.word_embeddings\.", "token_embd."), (r"^embeddings\.position_embeddings\.", "position_embd."),
    (r"^embeddings\.token_type_embeddings\.", "token_types."), (r"^embeddings\.LayerNorm\.", "token_embd_norm."),
    (r"\.attention\.self\.(q|k|v)\w+\.", r".attn_\1."), (r"\.attention\.output\.dense\.", ".attn_output."),
    (r"\.attention\.output\.LayerNorm\.", ".attn_output_norm."), (r"\.intermediate\.dense\.", ".ffn_up."),
    (r"\.output\.dense\.", ".ffn_down."), (r"(blk\.\d+)\.output\.LayerNorm\.", r"\1.layer_output_norm."),
    (r"^(cls\.predictions\.transform|lm_head)\.dense\.", "mask_dense."),
    (r"^(cls\.predictions\.transform\.LayerNorm|lm_head\.layer_norm)\.", "mask_norm."),
    (r"^(cls\.predictions|lm_head)\.bias$", "output.bias"), (r"^qa_outputs\.", "span_output."),
    # DistilBERT
    (r"\.attention\.(q|k|v)_lin\.", r".attn_\1."), (r"\.attention\.out_lin\.", ".attn_output."),
    (r"\.sa_layer_norm\.", ".attn_output_norm."), (r"\.output_layer_norm\.", ".layer_output_norm."),
    (r"\.ffn\.lin1\.", ".ffn_up."), (r"\.ffn\.lin2\.", ".ffn_down."), (r"^vocab_transform\.", "mask_dense."),
    (r"^vocab_layer_norm\.", "mask_norm."), (r"^vocab_projector\.", "output."),
    # T5
    (r"^(enc|dec)oder\.block\.", r"\1.blk."), (r"^(enc|dec)oder\.final_layer_norm\.", r"\1.output_norm."),
    (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".attn_rel_b."),
    (r"\.layer\.0\.SelfAttention\.", ".attn_"), (r"\.layer\.1\.EncDecAttention\.", ".cross_attn_"),
    (r"\.layer\.0\.layer_norm\.", ".attn_norm."), (r"^(dec.*)\.layer\.1\.layer_norm\.", r"\1.cross_attn_norm."),
    (r"\.layer\.[12]\.layer_norm\.", ".ffn_norm."), (r"\.layer\.[12]\.DenseReluDense\.(wi|wi_1)\.", ".ffn_up."),
    (r"\.layer\.[12]\.DenseReluDense\.wi_0\.", ".ffn_gate."), (r"\.layer\.[12]\.DenseReluDense\.wo\.", ".ffn_down."),
]


def gguf_name(family, name):
    for pattern, by in COMMON:
        name = re.sub(pattern, by, name)
    if family.name == "nomic-bert":  # what transformers holds apart, the published folders and GGUF hold in one
        name = re.sub(r"attn_[qkv]\.weight", "attn_qkv.weight", name)
        name = re.sub(r"post_attention_layernorm", "attn_output_norm", name)
        name = re.sub(r"post_mlp_layernorm", "layer_output_norm", name)
    plain = "post_attention_norm." if "gemma" in family.name else "ffn_norm."
    return name.replace("post_attention_layernorm.", plain)


def norms(family, model):
    """GGUF's name -> norm of its gradient. Experts' gates and ways up are one parameter in transformers, two in GGUF."""
    squares = {}
    for name, p in model.named_parameters():
        if p.grad is None:
            continue
        parts = [(gguf_name(family, name), p.grad)]
        if name.endswith("experts.gate_up_proj"):
            parts = [(parts[0][0].replace("mlp.experts.gate_up_proj", f"ffn_{half}_exps.weight"), part)
                     for half, part in zip(("gate", "up"), p.grad.chunk(2, 1))]
        for gguf, gradient in parts:
            squares[gguf] = squares.get(gguf, 0) + gradient.square().sum().item()
    return {name: math.sqrt(square) for name, square in sorted(squares.items())}


# ---- training ----

def load(family):
    options = {"config": family.kind.config_class(**family.config)} if family.expect.get("own_config") else {}
    model = family.kind.from_pretrained(FOLDERS / family.name, attn_implementation="eager", experts_implementation="eager",
                                        dtype=torch.float32, **options)
    return model.eval()  # without dropout


def decay_as_gguf(family, model):
    """Gemma's norms multiply by 1 + g, GGUF stores that sum, and decay acts on what is stored."""
    if "gemma" in family.name:
        for name, p in model.named_parameters():
            if "norm" in name:
                p.data.sub_(RATE * DECAY)


def train(family, model, loss_of, first=None):
    """The loss before each step; `first` is called with the gradients of the first."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, foreach=False)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(family, model, step)
        loss.backward()
        losses.append(loss.item())
        if step == 0 and first:
            first(model)
        decay_as_gguf(family, model)
        optimizer.step()
    return losses


def differences(family, model, loss_of):
    """The gradient along a random direction, and what differences of the loss say of it."""
    generator = torch.Generator().manual_seed(7)
    with_gradient = [p for p in model.parameters() if p.grad is not None]
    way = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in with_gradient]
    slope = sum((p.grad * w).sum() for p, w in zip(with_gradient, way)).item()
    values = {}
    with torch.no_grad():
        for h in (-2e-6, 2e-6):
            for p, w in zip(with_gradient, way):
                p.add_(w, alpha=h)
            values[h] = loss_of(family, model, 0).item()
            for p, w in zip(with_gradient, way):
                p.add_(w, alpha=-h)
    return abs((values[2e-6] - values[-2e-6]) / 4e-6 - slope) / abs(slope)


class Double:
    """transformers computes norms and softmax in float32 whatever the model: here that means double."""

    def __enter__(self):
        self.kept = torch.Tensor.float
        torch.float32 = torch.float = torch.float64
        torch.Tensor.float = torch.Tensor.double

    def __exit__(self, *_):
        torch.float32 = torch.float = SINGLE
        torch.Tensor.float = self.kept


def run(family, loss_of):
    found = {}

    def first(model):
        found["gradients"] = norms(family, model)
        found["error"] = differences(family, model, loss_of)

    single = train(family, load(family), loss_of)
    model = load(family).double()
    with Double():
        losses = train(family, model, loss_of, first)
    apart = max(abs(a - b) / abs(b) for a, b in zip(single, losses))
    print(f"{family.name:15} {loss_of.__name__:10} {losses[0]:.6f} -> {losses[-1]:.6f}, float32 {apart:.0e}, "
          f"differences {found['error']:.0e}, {len(found['gradients'])} tensors", flush=True)
    assert all(map(math.isfinite, losses)) and apart < FAIR, f"{family.name}: float32 is {apart:.2g} from float64"
    assert found["error"] < 1e-6, f"{family.name}: the gradient is {found['error']:.2g} from differences"
    return {"loss": loss_of.__name__.replace("_", "-"), "losses": [float(f"{x:.12g}") for x in losses],
            "gradients": {n: float(f"{x:.8g}") for n, x in found["gradients"].items()}}


def make(family):
    words = family.tokens()
    family.mask = words.marks.get("mask", -1)
    assert all(not 10 <= id < 110 for id in words.marks.values()) and words.size >= 110, family.name
    runs = [run(family, loss_of) for loss_of in LOSSES[family.task]]
    head = {"mask": family.mask} if family.task == "mlm" else {}
    return json.dumps({"family": family.name, **head, "runs": runs}, indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    OUT.mkdir(exist_ok=True)
    stale = []
    for family in golden_families.FAMILIES:
        if args.names and family.name not in args.names:
            continue
        text, path = make(family), OUT / f"{family.name}.json"
        if not args.check:
            path.write_text(text)
        elif path.read_text() != text:
            stale.append(family.name)
    if stale:
        sys.exit("differ: " + " ".join(stale))


if __name__ == "__main__":
    main()
