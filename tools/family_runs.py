"""What golden_families.py asks of a model, by task: what is run, what is checked, what is kept."""

import numpy as np
import torch

from tiny_families import ROWS, SEEN, Golden, Watch, build, check, focus, gap

SAMPLED = 24


def draw(family, words, rng, count):
    """Random ids without the marks; a stretch repeats, so that there is something to attend to."""
    ordinary = np.setdiff1d(np.arange(words.size), list(words.marks.values()))
    ids = rng.choice(ordinary, count)
    ids[20:26] = ids[4:10]
    return ids


def sample(family, rng):
    return np.sort(rng.choice(family.config["vocab_size"], SAMPLED, replace=False))


def stack_of(model):
    base = getattr(model, model.base_model_prefix, model)
    if hasattr(base, "layers"):
        return base
    return getattr(base, "encoder", getattr(base, "transformer", base))


def experts(family, model, ids):
    """Every expert is used, and no choice is a near tie."""
    margins, used = [], []

    def look(_module, _inputs, output):
        scores, _, chosen = output if isinstance(output, tuple) else (output, None, None)
        top = scores.float().softmax(-1).sort(-1, descending=True).values
        k = family.config["num_experts_per_tok"]
        margins.append((top[:, k - 1] - top[:, k]).min().item())
        used.append(set(scores.topk(k, -1).indices.flatten().tolist()))

    routers = [m for n, m in model.named_modules() if n.endswith("mlp.gate")]
    hooks = [m.register_forward_hook(look) for m in routers]
    with torch.no_grad():
        model(torch.tensor([ids.tolist()]))
    for hook in hooks:
        hook.remove()
    if not routers:
        return ""
    n = family.config.get("num_experts", family.config.get("num_local_experts"))
    assert all(len(u) == n for u in used), (family.name, used)
    assert min(margins) > 2e-4, f"{family.name}: the router's margin is {min(margins)}"
    return f", router margin {min(margins):.0e}"


def causal_golden(family, model, ids, sampled, context=0):
    rows = [r for r in ROWS if r < len(ids)]
    watch = Watch(stack_of(model))
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), output_attentions=True)
    watch.done()
    golden = Golden()
    golden.put("ids", ids)
    if context:
        golden.put("context", [context])
    golden.stream("", watch, rows)
    golden.logits(out.logits[0], sampled)
    return golden, out, watch


def causal(family, model, state, words, rng):
    ids = draw(family, words, rng, family.T)
    sampled = sample(family, rng)
    golden, out, watch = causal_golden(family, model, ids, sampled)
    want = out.logits[0]
    batch = torch.tensor([ids.tolist()])

    def answer(other, **more):
        with torch.no_grad():
            return other(batch, **more).logits[0]

    assert torch.equal(answer(build(family, state)), want), f"{family.name}: the folder holds another model"
    apart = torch.arange(family.T).reshape(1, -1).clone()
    apart[:, family.T // 2:] += 1
    limit = family.config.get("n_positions", 128)
    moved = gap(answer(build(family, state), position_ids=apart.clamp_max(limit - 1)), want)
    line = check(family, state, answer, want, positions=moved) + experts(family, model, ids)
    line += f", focus {focus(out.attentions):.2f}, spread {want.std(1).mean():.2f}"
    line += f", norms {' '.join('%.1f' % n for n in watch.states.norm(dim=-1).mean(1))}"
    assert want.std(1).mean() > 0.4 and focus(out.attentions) < 0.9, line
    goldens = {f"{family.name}.bin": golden.bytes()}
    if family.short:
        goldens[f"{family.name}-short.bin"] = causal_golden(
            family, model, ids[:family.short], sampled, context=family.short)[0].bytes()
    return goldens, line


# ---- encoders ----

def segments(family):
    """Types of tokens that the model tells apart; 0: it has no such input."""
    return family.expect.get("segments", family.config.get("type_vocab_size", 2))


def pair(family, words, rng):
    """[CLS] a [SEP] b [SEP] (of one segment where a model has one type), its types, and some masked ids."""
    m = words.marks
    ids = draw(family, words, rng, family.T)
    middle = family.T // 3
    ids[0], ids[middle], ids[-1] = m["cls"], m["sep"], m["sep"]
    if family.task == "mlm":
        ids[[5, 17, 24]] = m["mask"]
    types = (np.arange(family.T) > middle).astype(int) * (segments(family) > 1)
    return ids, types


def position_ids(family):
    """As the family counts them, and with a gap of one in the middle."""
    first = family.config["pad_token_id"] + 1 if family.task == "mlm" and "roberta" in family.name else 0
    straight = torch.arange(family.T).reshape(1, -1) + first
    apart = straight.clone()
    apart[:, family.T // 2:] += 1
    return straight, apart


def encoder(family, model, state, words, rng):
    ids, types = pair(family, words, rng)
    sampled = sample(family, rng)
    batch = dict(input_ids=torch.tensor([ids.tolist()]))
    if segments(family) > 0:
        batch["token_type_ids"] = torch.tensor([types.tolist()])

    def answer(other, cut=None, **more):
        with torch.no_grad():
            out = other(**{k: v[:, :cut] for k, v in batch.items()}, **more)
        if family.task == "qa":
            return torch.stack([out.start_logits[0], out.end_logits[0]])
        return out.logits[0] if family.task == "mlm" else out.last_hidden_state[0]

    watch = Watch(stack_of(model))
    with torch.no_grad():
        out = model(**batch, output_attentions=True)
    watch.done()
    want = answer(model)
    same = build(family, state)
    assert torch.equal(answer(same), want), f"{family.name}: the folder holds another model"
    # padding behind a mask is as if it were not there, so no golden needs a mask
    mask = torch.ones(1, family.T)
    mask[:, -7:] = 0
    padded = answer(same, attention_mask=mask)
    short = answer(same, cut=-7)
    seen = (slice(None), slice(0, -7)) if family.task == "qa" else slice(0, -7)
    assert gap(padded[seen], short) < 2e-6 and gap(padded[seen], want[seen]) > SEEN, f"{family.name}: mask"
    straight, apart = position_ids(family)
    assert torch.equal(answer(same, position_ids=straight), want)
    line = check(family, state, answer, want, positions=gap(answer(same, position_ids=apart), want))
    if segments(family) > 1:
        batch, kept = {**batch, "token_type_ids": 1 - batch["token_type_ids"]}, batch
        value = gap(answer(same), want)
        batch = kept
        assert value > SEEN, f"{family.name}: token types change the answer by {value:.2g} only"
    line += f", focus {focus(out.attentions):.2f}, spread {want.std(-1).mean():.2f}"
    assert want.std(-1).mean() > 0.4 and focus(out.attentions) < 0.92, line
    golden = Golden()
    golden.put("ids", ids)
    golden.put("types", types)
    golden.stream("", watch, ROWS)
    if family.task == "qa":
        golden.put("start", want[0].numpy())
        golden.put("end", want[1].numpy())
    elif family.task == "mlm":
        golden.logits(want, sampled)
    else:
        mean = want.double().mean(0)
        golden.put("mean", mean.numpy())
        golden.put("cls", want[0].numpy())
        golden.put("embedding", (mean / mean.norm()).numpy())
    return {f"{family.name}.bin": golden.bytes()}, line


# ---- T5 ----

def t5_encoder(family, model, state, words, rng):
    ids = draw(family, words, rng, family.T)
    ids[-1] = words.marks["eos"]
    batch = torch.tensor([ids.tolist()])

    def answer(other):
        with torch.no_grad():
            return other(batch).last_hidden_state[0]

    watch = Watch(model.encoder)
    with torch.no_grad():
        out = model(batch, output_attentions=True)
    watch.done()
    want = answer(model)
    assert torch.equal(answer(build(family, state)), want), f"{family.name}: the folder holds another model"
    line = check(family, state, answer, want) + f", focus {focus(out.attentions):.2f}"
    golden = Golden()
    golden.put("ids", ids)
    golden.stream("", watch, ROWS)
    mean = want.double().mean(0)
    golden.put("mean", mean.numpy())
    golden.put("embedding", (mean / mean.norm()).numpy())
    return {f"{family.name}.bin": golden.bytes()}, line


def generate(model, batch, beams, most):
    """Sequences without the start id, padded with -1, and their scores (None for greedy)."""
    with torch.no_grad():
        out = model.generate(batch, do_sample=False, num_beams=beams, num_return_sequences=beams, max_new_tokens=most,
                             length_penalty=1.0, early_stopping=False, use_cache=False, return_dict_in_generate=True,
                             output_scores=True)
    rows = []
    for row in out.sequences[:, 1:].tolist():
        end = row.index(1) + 1 if 1 in row else len(row)
        rows.append(row[:end] + [-1] * (most - end))
    return np.array(rows), None if beams == 1 else out.sequences_scores.numpy()


def t5(family, model, state, words, rng):
    most = family.expect["most"]
    encoder_ids = draw(family, words, rng, family.T)
    encoder_ids[-1] = words.marks["eos"]
    ids = draw(family, words, rng, 28)
    ids[0] = words.marks["pad"]
    sampled = sample(family, rng)
    batch = dict(input_ids=torch.tensor([encoder_ids.tolist()]), decoder_input_ids=torch.tensor([ids.tolist()]))

    def answer(other, **more):
        with torch.no_grad():
            return other(**{**batch, **more}).logits[0]

    watches = [Watch(model.encoder), Watch(model.decoder)]
    with torch.no_grad():
        out = model(**batch, output_attentions=True)
    for watch in watches:
        watch.done()
    want = out.logits[0]
    same = build(family, state)
    assert torch.equal(answer(same), want), f"{family.name}: the folder holds another model"
    padded = torch.cat([batch["input_ids"], torch.zeros(1, 5, dtype=torch.long)], 1)
    mask = (torch.arange(family.T + 5) < family.T).long().reshape(1, -1)
    assert gap(answer(same, input_ids=padded, attention_mask=mask), want) < 2e-6
    line = check(family, state, answer, want)
    line += f", focus {focus(out.encoder_attentions):.2f} {focus(out.decoder_attentions):.2f}"
    line += f" {focus(out.cross_attentions):.2f}, spread {want.std(-1).mean():.2f}"
    assert want.std(-1).mean() > 0.4
    greedy, _ = generate(model, batch["input_ids"], 1, most)
    beam, scores = generate(model, batch["input_ids"], 4, most)
    # the choices are clear: they stay when each weight moves by 1e-4 of itself
    for i in range(8):
        noise = np.random.default_rng(i)
        shaken = {n: t * (1 + 1e-4 * torch.from_numpy(noise.standard_normal(tuple(t.shape)).astype(np.float32)))
                  for n, t in state.items()}
        other = build(family, shaken)
        assert np.array_equal(generate(other, batch["input_ids"], 1, most)[0], greedy), f"{family.name}: greedy"
        assert np.array_equal(generate(other, batch["input_ids"], 4, most)[0], beam), f"{family.name}: beams"
    for row, score in zip(beam, scores):  # a score is the mean log-probability, the end counted
        row = row[row >= 0]
        logits = answer(model, decoder_input_ids=torch.tensor([[0, *row[:-1].tolist()]]))
        mean = logits.log_softmax(-1)[range(len(row)), row].mean().item()
        assert abs(mean - score) < 1e-5, (family.name, mean, score)
    lengths = [(r >= 0).sum() for r in [*greedy, *beam]]
    line += f", lengths {' '.join(map(str, lengths))}, scores {' '.join('%.3f' % s for s in scores)}"
    golden = Golden()
    golden.put("encoder.ids", encoder_ids)
    golden.stream("encoder.", watches[0], ROWS)
    golden.put("ids", ids)
    golden.stream("", watches[1], [r for r in ROWS if r < len(ids)])
    golden.logits(want, sampled)
    golden.put("greedy", greedy[0])
    golden.put("beam", beam)
    golden.put("beam.scores", scores)
    return {f"{family.name}.bin": golden.bytes()}, line


RUNS = {"causal": causal, "mlm": encoder, "qa": encoder, "embed": encoder, "t5": t5, "t5-encoder": t5_encoder}
