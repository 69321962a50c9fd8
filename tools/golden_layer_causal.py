"""Make tests/golden/layer_causal.json: a layer-causal loss of the tiny GPT-2 and the norm of every tensor's gradient.

The state is detached before every block; behind each block it goes through the final norm and the head; the loss is the
sum over layers of the mean cross-entropy. In double precision, on the ids of the first step of tools/golden_train.py.

    golden_layer_causal.py [--check]      --check: writes nothing, compares with what is there
"""

import json
import sys

import torch

import golden_families
import golden_train

OUT = golden_train.OUT.parent / "layer_causal.json"


def layer_causal_loss(family, model, step=0):
    batch = golden_train.ids(step, golden_train.T)
    body = model.transformer
    state = body.wte(batch) + body.wpe(torch.arange(batch.shape[1]))
    mask = torch.full((batch.shape[1],) * 2, -torch.inf, dtype=state.dtype).triu(1)[None, None]
    total = 0
    for block in body.h:
        state = block(state.detach(), attention_mask=mask)
        state = state[0] if isinstance(state, tuple) else state
        logits = model.lm_head(body.ln_f(state))
        total = total + golden_train.cross_entropy(logits[:, :-1], batch[:, 1:])
    usual = model(batch).logits
    assert (usual - logits).abs().max() < 1e-10, "the last layer's logits are not the model's"
    return total


def main():
    torch.set_num_threads(1)
    family = next(f for f in golden_families.FAMILIES if f.name == "gpt2")
    model = golden_train.load(family).double()
    with golden_train.Double():
        loss = layer_causal_loss(family, model)
        loss.backward()
    gradients = {name: float(f"{x:.8g}") for name, x in golden_train.norms(family, model).items()}
    text = json.dumps({"loss": float(f"{loss.item():.12g}"), "gradients": gradients}, indent=1) + "\n"
    if "--check" not in sys.argv[1:]:
        OUT.write_text(text)
    elif OUT.read_text() != text:
        sys.exit("differs: " + OUT.name)


if __name__ == "__main__":
    main()
