"""Look into language models of GGUF files and change them while they run.

    model = Model("model.gguf")
    logits, cache = model.run_with_cache("Paris is in", ["resid_post.3", "blocks.3.attn.hook_z"])
    logits = model.logits("Paris is in", hooks={"z.3": lambda z, position: z[:, 1].fill(0)})
    print(model.generate("Paris is in", 20, edits=["L3H1:zero"]).text)

Layers, heads, neurons and positions count from 0. What cannot be done raises KeyholeError with a sentence."""

import contextlib
import ctypes
import operator
import os
from array import array
from collections import namedtuple
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_void_p, cast

import numpy

from ._library import C, KeyholeError, library
from ._pass import Guard, Watch

Token = namedtuple("Token", "id text logit probability rank")
Cell = namedtuple("Cell", "position layer tap top tracked entropy kl norm next")
Share = namedtuple("Share", "part value coefficient source source_value")
Why = namedtuple("Why", "a b total sum leftover scale embed bias heads neurons mlps edits strong_heads strong_neurons attention mlp")
Neuron = namedtuple("Neuron", "layer neuron coefficient score value")
Compared = namedtuple("Compared", "position kl base_top edited_top base_entropy edited_entropy base_next edited_next")
Generated = namedtuple("Generated", "text tokens logprobs finish")
RECORDS = {C.kh_share: Share, C.kh_neuron_here: Neuron, C.kh_compared: Compared}
PRECISIONS, CACHES, TAPS = ("default", "f32", "q8"), ("f16", "f32", "q8_0"), ("before", "between", "after")
FINISHES = ("end", "length", "stop", "context", "stopped")
SPECIAL, EDGES, NONE, BEST = 1, 2, -1, -2  # flags of tokens; in place of a token
ALL_ROWS = C.kh_read_options(logits=C.take_logits(lambda *_: 0))  # the observer sees the rows that somebody asks for


class Model(contextlib.AbstractContextManager):
    """A decoder of a GGUF file or a Hugging Face folder. One thread at a time.

    attn: which keys attention keeps, "full", "topk:k=64" ...; threads 0: all; context 0: the trained length; precision: "default",
    "f32" (every weight unpacked first), "q8" (activations in 8 bits); cache: of keys and values, "f16", "f32", "q8_0"."""

    def __init__(self, path, attn="full", threads=0, context=0, precision="default", cache="f16"):
        self._model = self._session = self._inspector = self._passing = None
        self._lib = library()
        precision, kv = self._choice("precision", precision, PRECISIONS), self._choice("cache", cache, CACHES)
        self._options = C.kh_session_options(context=context, threads=threads, k_type=kv, v_type=kv, attn=attn.encode(), precision=precision)
        self._model = self._open(self._lib.kh_model_open, os.fsencode(path))
        self._info = self._lib.kh_model_get_info(self._model)[0]
        if self._lib.kh_model_get_kind(self._model) != 0:
            raise KeyholeError(f"{path}: {self._info.architecture.decode()} is no decoder: only decoders can be looked into", -5)
        self.info = {n: v.decode("utf-8", "replace") if isinstance(v := getattr(self._info, n), bytes) else v for n, _ in C.kh_model_info._fields_}

    def _choice(self, name, value, choices):
        if value not in choices:
            raise KeyholeError(f"{name} {value!r}: {', '.join(choices)} are expected")
        return choices.index(value)

    def _open(self, function, *arguments):
        out = c_void_p()
        function(byref(out), *arguments)
        return out

    def close(self, *_):
        self._between_passes()
        for name, part in (("_inspector", "inspector"), ("_session", "session"), ("_model", "model")):
            if getattr(self, name, None):
                getattr(self._lib, f"kh_{part}_close")(getattr(self, name))
            setattr(self, name, None)

    __exit__ = __del__ = close

    def tokens(self, text, edges=True, special=True):
        """Ids; edges: with bos where the file asks for it; special: markers such as <|im_end|> are tokens."""
        raw, ids, count = text.encode(), c_void_p(), c_size_t()
        self._lib.kh_model_tokenize(self._alive(), raw, len(raw), special * SPECIAL | edges * EDGES, byref(ids), byref(count))
        out = numpy.array(cast(ids, POINTER(c_int32))[: count.value], numpy.int32)
        self._lib.kh_free_ids(ids)
        return out

    def text(self, ids, special=True):
        raw, out, size = self._ids(ids, least=0), c_void_p(), c_size_t()
        self._lib.kh_model_detokenize(self._alive(), raw, len(raw), special * SPECIAL, byref(out), byref(size))
        text = ctypes.string_at(out, size.value).decode("utf-8", "replace")
        self._lib.kh_free_text(out)
        return text

    def piece(self, id):
        """The text of one token; bytes that are no whole character as U+FFFD."""
        buffer = ctypes.create_string_buffer(256)
        return buffer[: self._lib.kh_model_piece(self._alive(), id, buffer, len(buffer))].decode("utf-8", "replace")

    def _between_passes(self):
        if self._passing:
            raise KeyholeError("a hook can neither start a pass of its own model nor close it", -9)

    def _alive(self):
        if not self._model:
            raise KeyholeError("the model is closed", -9)
        return self._model

    def _ids(self, text, least=1):
        ids = array("i", list(self.tokens(text) if isinstance(text, str) else text))  # refuses fractions, and ids beyond 32 bits
        if len(ids) < least:
            raise KeyholeError("the text has no tokens: at least one is expected")
        return (c_int32 * len(ids)).from_buffer(ids)

    def _token(self, token, otherwise):
        if not isinstance(token, str):
            return otherwise if token is None else operator.index(token)
        ids = self.tokens(token, edges=False)
        if len(ids) != 1:
            raise KeyholeError(f"{token!r}: {len(ids)} tokens, one is expected")
        return int(ids[0])

    def logits(self, text, hooks=None, edits=()):
        return self.run_with_cache(text, (), hooks, edits)[0]  # [T][V] float32: row t is what follows token t

    def run_with_cache(self, text, names, hooks=None, edits=()):
        """logits, {name: array}. q, k, value and z are [T][heads][width], others [T][width]; attn_rows.L is a list of
        (head, position, keys, weights). hooks: {name: function(array, position)}: rows of the array begin at that position of
        the text; written in place, or returned anew. What is kept is what the hooks left."""
        names, ids, lib = [names] if isinstance(names, str) else list(names), self._ids(text), self._lib
        if hooks and edits:
            raise KeyholeError("hooks and edits do not go together: what an edit does can be written as a hook")
        watch = Watch(self._info, len(ids), ["logits", *names], hooks)
        if edits:
            looked, watching = self._look(ids, edits), (len(ids), byref(watch.probe), watch.seen, None)
            watch.run(lambda: lib.kh_inspector_watch(looked, 0, *watching), lambda: lib.kh_inspector_stop(looked))
        else:
            self._between_passes()
            self._session = session = self._session or self._open(lib.kh_session_open, self._alive(), byref(self._options))
            lib.kh_session_rewind(session, 0)
            lib.kh_session_observe(session, byref(watch.probe))
            self._passing = True
            try:
                watch.run(lambda: lib.kh_session_read(session, ids, len(ids), byref(ALL_ROWS)), lambda: lib.kh_session_stop(session))
            finally:
                self._passing = None
                lib.kh_session_observe(session, None)
        cache = watch.cache()
        return cache["logits"], {name: cache[name] for name in names}

    def _look(self, text, edits=()):
        """Sets text and edits; returns the inspector."""
        ids, edits = self._ids(text), [edits] if isinstance(edits, str) else list(edits)
        if not self._inspector:
            self._inspector = self._open(self._lib.kh_inspector_open, self._alive(), byref(self._options))
        parsed = (C.kh_edit * max(len(edits), 1))()
        for i, edit in enumerate(edits):
            self._lib.kh_edit_parse(byref(parsed[i]), self._model, edit.encode())
        self._lib.kh_inspector_set(self._inspector, ids, len(ids), 0, parsed, len(edits))
        return self._inspector

    def _position(self, position):
        length = self._lib.kh_inspector_length(self._inspector)
        if not -length <= position < length:
            raise KeyholeError(f"position {position}: the text has positions 0 to {length - 1}")
        return position % length

    def _plain(self, value):
        """A struct of the library as a named tuple, a part as its name, a token with its text."""
        if isinstance(value, list):
            return [self._plain(v) for v in value]
        if isinstance(value, C.kh_lens_token):
            return Token(value.id, self.piece(value.id), value.logit, value.probability, value.rank) if value.id >= 0 else None
        if isinstance(value, C.kh_component):
            buffer = ctypes.create_string_buffer(40)
            self._lib.kh_component_text(byref(value), buffer, len(buffer))
            return buffer.value.decode()
        record = RECORDS.get(type(value))
        return record(*[self._plain(getattr(value, n)) for n in record._fields]) if record else value

    def _collect(self, kind, take, work):
        """What a callback was told, row by row."""
        rows, guard = [], Guard()
        guard.run(lambda: work(kind(lambda _, *values: guard.guarded(lambda: rows.append(take(*values))))))
        return rows

    def generate(self, text, max_tokens=20, edits=(), temperature=0, seed=1, top_k=40, top_p=0.95, min_p=0.05, stop=()):
        """Goes on with the text under the edits: text, tokens, logprobs (before any sampler), finish. stop: texts that end it."""
        stop, pieces, chosen = [t.encode() for t in ([stop] if isinstance(stop, str) else stop)], [], []
        inspector, result = self._look(text, edits), C.kh_generate_result()
        sampler = C.kh_sampler_options(temperature, top_k, top_p, min_p, seed=seed)
        options = dict(sampler=sampler, max_tokens=max_tokens, stop=(c_char_p * len(stop))(*stop), stop_count=len(stop))

        def take(data, size, choice, *_):
            pieces.append(ctypes.string_at(data, size))
            chosen.extend((t.id, t.logprob) for t in choice[: bool(choice)])

        call = self._lib.kh_inspector_generate
        self._collect(C.take_token, take, lambda f: call(inspector, byref(C.kh_generate_options(token=f, **options)), byref(result)))
        text = b"".join(pieces).decode("utf-8", "replace")
        return Generated(text, [i for i, _ in chosen], [p for _, p in chosen], FINISHES[result.finish])

    def lens(self, text, top=10, edits=(), taps=("after",), tracked=(), first=0, count=0):
        """What every layer would say at every position: cells, positions ascending, in a position layers, in a layer taps."""
        bits = sum({1 << self._choice("taps", tap, TAPS) for tap in ([taps] if isinstance(taps, str) else taps)})
        inspector, ids = self._look(text, edits), [self._token(t, BEST) for t in tracked]

        def cell(cells):
            x = cells[0]
            top, tracked = self._plain(x.top[: x.top_count]), self._plain(x.tracked[: x.tracked_count])
            return Cell(x.position, x.layer, TAPS[x.tap], top, tracked, x.entropy, x.kl, x.norm, x.next)

        options = dict(first=first, count=count, top=top, taps=bits, tracked=(c_int32 * len(ids))(*ids), tracked_count=len(ids))
        return self._collect(C.take_cell, cell, lambda f: self._lib.kh_lens(inspector, byref(C.kh_lens_options(cell=f, **options))))

    def why(self, text, a=None, b=None, position=-1, edits=(), most=12):
        """Why token a and not b comes next, as a sum over all parts. None: the most probable; b -1: the logit of a alone."""
        inspector, out = self._look(text, edits), C.kh_why()
        options = C.kh_why_options(self._position(position), self._token(a, BEST), self._token(b, BEST), most)
        self._lib.kh_why_open(byref(out), inspector, byref(options))
        try:
            lists = {"strong_heads": out.head_count, "strong_neurons": out.neuron_count, "attention": out.layers, "mlp": out.layers}
            return Why(*[self._plain(getattr(out, n)[: lists[n]] if n in lists else getattr(out, n)) for n in Why._fields])
        finally:
            self._lib.kh_why_free(byref(out))

    def neurons(self, text, position=-1, layer=None, a=None, b=None, most=10, by="score", edits=()):
        """The dominant neurons at a position, layer by layer; with a: what each gives to logit(a) [- logit(b)]."""
        by = self._choice("by", by, ("score", "value"))
        inspector, out, count = self._look(text, edits), c_void_p(), c_size_t()
        layer, a, b, at = -1 if layer is None else layer, self._token(a, NONE), self._token(b, NONE), self._position(position)
        self._lib.kh_neurons(inspector, byref(C.kh_neurons_options(at, layer, a, b, most, by)), byref(out), byref(count))
        found = self._plain(cast(out, POINTER(C.kh_neuron_here))[: count.value])
        self._lib.kh_neurons_free(out)
        return found

    def compare(self, text, edits, first=0):
        """At each position of the text: the next token without the edits and under them."""
        inspector = self._look(text, edits)
        return self._collect(C.take_compared, lambda x: self._plain(x[0]), lambda f: self._lib.kh_compare(inspector, first, f, None))
