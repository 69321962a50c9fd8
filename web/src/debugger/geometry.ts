/* Where the parts of the grid lie: layer numbers at the left, ranks at the right, strips above, tokens below; cells
 * between them, which scroll. */

export const STRIP = 21; // height of a strip
export const HEAD = 2 * STRIP + 10;
export const FOOT = 22;
export const GUTTER = 46;

export interface Geometry {
  width: number; // of the canvas
  height: number;
  columns: number;
  layers: number;
  column: number; // width of a column
  row: number; // height of a row
  rank: number; // width of the rank lines, 0: none
  left: number; // how far the cells are scrolled
  top: number;
}

export function geometryOf(
  width: number,
  height: number,
  columns: number,
  layers: number,
  left: number,
  top: number
): Geometry {
  const rank = width >= 560 ? 132 : width >= 300 ? 86 : 0;
  const room = width - GUTTER - rank;
  const column = Math.max(46, Math.min(84, Math.floor(room / Math.max(1, columns))));
  const row = Math.max(13, Math.min(26, Math.floor((height - HEAD - FOOT) / Math.max(1, layers))));
  return { width, height, columns, layers, column, row, rank, left, top };
}

export const wide = (g: Geometry): number => GUTTER + g.columns * g.column + g.rank;
export const tall = (g: Geometry): number => HEAD + g.layers * g.row + FOOT;

export const xOf = (g: Geometry, position: number): number => GUTTER + position * g.column - g.left;
export const yOf = (g: Geometry, layer: number): number =>
  HEAD + (g.layers - 1 - layer) * g.row - g.top;

/* Positions that can be seen, as [first, end). */
export function seen(g: Geometry): [number, number] {
  const room = g.width - GUTTER - g.rank;
  return [
    Math.max(0, Math.floor(g.left / g.column)),
    Math.min(g.columns, Math.ceil((g.left + room) / g.column)),
  ];
}

export interface Spot {
  position: number;
  layer: number;
}

/* The cell at a point of the canvas; strips and tokens belong to the column's last layer. */
export function spotAt(g: Geometry, x: number, y: number): Spot | null {
  if (x < GUTTER || x >= g.width - g.rank) return null;
  const position = Math.floor((x - GUTTER + g.left) / g.column);
  if (position < 0 || position >= g.columns) return null;
  const bottom = Math.min(g.height - FOOT, HEAD + g.layers * g.row);
  if (y < HEAD || y >= bottom) return null;
  const layer = g.layers - 1 - Math.floor((y - HEAD + g.top) / g.row);
  return layer >= 0 && layer < g.layers ? { position, layer } : null;
}

/* How far to scroll so that a cell is in sight, with its neighbours. */
export function scrollTo(g: Geometry, { position, layer }: Spot): { left: number; top: number } {
  const room = g.width - GUTTER - g.rank;
  const x = position * g.column;
  const margin = Math.min(1.5 * g.column, room / 3);
  let { left, top } = g;
  if (x - margin < left) left = x - margin;
  else if (x + g.column + margin > left + room) left = x + g.column + margin - room;
  const high = g.height - HEAD - FOOT;
  const y = (g.layers - 1 - layer) * g.row;
  if (y < top) top = y;
  else if (y + g.row > top + high) top = y + g.row - high;
  return { left: Math.max(0, left), top: Math.max(0, top) };
}
