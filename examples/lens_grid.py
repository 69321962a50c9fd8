"""What every layer would say at every position, as the page's grid shows it: python3 examples/lens_grid.py MODEL TEXT

Columns are positions, rows are layers, the last one on top; a cell is the most probable token and its share."""

import sys

from keyhole_lm import KeyholeError, Model


def grid(path, text):
    with Model(path) as model:
        ids = model.tokens(text)
        cells = {(cell.layer, cell.position): cell.top[0] for cell in model.lens(ids, top=1)}
        yield [""] + [repr(model.piece(id))[1:-1] for id in ids]
        for layer in reversed(range(model.info["layers"])):
            row = [cells[layer, position] for position in range(len(ids))]
            yield [str(layer)] + [f"{repr(best.text)[1:-1]} {100 * best.probability:.1f} %" for best in row]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        for row in grid(*sys.argv[1:]):
            print("\t".join(row))
    except KeyholeError as error:
        sys.exit(f"lens_grid: {error}")
