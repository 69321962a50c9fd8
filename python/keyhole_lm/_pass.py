"""One forward pass under observation: hooks first, then what is kept; an exception ends the pass and is raised behind it."""

import numpy

from ._library import C, KeyholeError
from ._points import canonical, points


class Guard:
    """Python called from C: an exception cannot pass through it, so it ends the call and is raised behind it."""

    error = None

    def guarded(self, work, *values):
        if self.error is None:
            try:
                work(*values)
                return 0
            except BaseException as error:
                self.error = error
                self.stop()
        return -7

    def run(self, work, stop=lambda: None):
        self.stop = stop
        try:
            work()
        except KeyholeError:
            if self.error is None:
                raise
        if self.error is not None:
            raise self.error


class Watch(Guard):
    """The observer of a pass over `count` tokens. `names`: what to keep, `hooks`: name -> function(array, position)."""

    def __init__(self, info, count, names, hooks):
        self.count, self.turned, self.hooks, self.at = count, ("q", "k") if info.paired else (), {}, {}
        self.heads = {"q": info.heads, "k": info.key_heads, "value": info.key_heads, "z": info.heads}
        self.names, numbers = list(points()), points()
        self.kept = {name: canonical(name, info) for name in names}
        for name, function in (hooks or {}).items():
            place = canonical(name, info)
            if place[0] == "attn_rows":
                raise KeyholeError(f"{name}: rows of attention cannot be changed by a hook; an edit such as L5H3K17:zero does it")
            self.hooks.setdefault(place, []).append(function)
        self.wanted, self.seen, self.base = set(self.kept.values()), C.take_block(self.block), 0
        self.arrays = {place: [] for place in self.wanted if place[0] == "attn_rows"}
        bits = sum(1 << n for n in {numbers[point] for point, _ in self.wanted | set(self.hooks)})
        self.probe = C.kh_probe(points=bits, point=C.take_point(lambda _, *v: self.guarded(self.point, *v)),
                           rows=C.take_row(lambda _, row: self.guarded(self.row, row[0])))  # fmt: skip

    def block(self, _, position, rows):
        self.at, self.base = {}, position  # where the rows that follow begin

    def point(self, point, layer, data, rows, width):
        place = self.names[point], layer
        if place not in self.wanted and place not in self.hooks:
            return
        self.at[place] = (position := self.at.get(place, self.base)) + rows
        shape = (rows, self.heads[place[0]], -1) if place[0] in self.heads else (rows, width)
        view = raw = numpy.ctypeslib.as_array(data, (rows, width)).reshape(shape)
        if place[0] in self.turned:  # the file has dimension i + half beside i
            view = numpy.concatenate((raw[..., 0::2], raw[..., 1::2]), -1)
        for function in self.hooks.get(place, ()):
            changed = function(view, position)
            view[...] = view if changed is None else changed
        if view is not raw:
            raw[..., 0::2], raw[..., 1::2] = numpy.split(view, 2, -1)
        if place in self.wanted:
            if place not in self.arrays:
                self.arrays[place] = numpy.zeros((self.count,) + view.shape[1:], numpy.float32)
            self.arrays[place][position : position + rows] = view

    def row(self, row):
        place = ("attn_rows", row.layer)
        if place in self.wanted:
            keys, weights = numpy.array(row.keys[: row.count], numpy.uint32), numpy.array(row.weights[: row.count], numpy.float32)
            self.arrays[place].append((row.head, row.position, keys, weights))

    def cache(self):
        self.probe = self.seen = None  # they refer back: what was kept would wait for the garbage collector
        for point, layer in [*self.wanted, *self.hooks]:
            if (point, layer) not in self.arrays and (point, layer) not in self.at:
                raise KeyholeError(f"{point}.{layer}: the pass of this model does not come by there (a mixture of experts has no neurons "
                                   f"that can be told apart); mlp_in.{layer} and mlp_out.{layer} exist")  # fmt: skip
        return {name: self.arrays[place] for name, place in self.kept.items()}
