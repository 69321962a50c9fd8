/* The grid as pixels: some hundred cells a frame, however long the text is. */
import type { LensToken, Tap, TextToken } from './contract';
import { FOOT, GUTTER, HEAD, STRIP, seen, xOf, yOf, type Geometry, type Spot } from './geometry';
import type { Column, Lens } from './lens';
import { visible } from './names';
import type { Palette } from './theme';

export interface Scene {
  geometry: Geometry;
  palette: Palette;
  lens: Lens;
  tap: Tap;
  text: TextToken[];
  prompt: number;
  selected: Spot;
  hover: Spot | null;
  source: Spot | null; // where the open head looks to
  tracked: { column: LensToken; names: string[]; position: number } | null;
  vocabulary: number;
}

export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

const fitted = new Map<string, string>();

/* The text cut to so many pixels. */
function fit(paper: CanvasRenderingContext2D, text: string, room: number): string {
  const key = `${paper.font}|${room}|${text}`;
  const known = fitted.get(key);
  if (known !== undefined) return known;
  let cut = text;
  if (paper.measureText(cut).width > room) {
    while (cut.length > 1 && paper.measureText(`${cut}…`).width > room) cut = cut.slice(0, -1);
    cut += '…';
  }
  if (fitted.size > 20000) fitted.clear();
  fitted.set(key, cut);
  return cut;
}

function cells(paper: CanvasRenderingContext2D, scene: Scene, column: Column, x: number): void {
  const { geometry: g, palette } = scene;
  for (let layer = 0; layer < g.layers; layer++) {
    const y = yOf(g, layer);
    if (y + g.row <= HEAD || y >= g.height - FOOT) continue;
    const share = column.shares[layer]?.[0] ?? 0;
    const shade = Math.max(0, Math.min(255, Math.round(share * 255)));
    paper.fillStyle = palette.shades[shade]!;
    paper.fillRect(x, y, g.column - 1, g.row - 1);
    const text = column.texts[layer]?.[0];
    if (text === undefined) continue;
    paper.fillStyle = palette.inks[shade]!;
    paper.fillText(fit(paper, visible(text), g.column - 8), x + 4, y + g.row / 2 + 0.5);
  }
}

/* One value of each column, as a bar from the strip's foot; the scale is that of the largest in sight. */
function strip(
  paper: CanvasRenderingContext2D,
  scene: Scene,
  name: string,
  of: (column: Column) => number | undefined,
  top: number,
  colour: string
): void {
  const { geometry: g, palette } = scene;
  const [first, end] = seen(g);
  const values = Array.from({ length: end - first }, (_, i) => {
    const column = scene.lens.column(first + i, scene.tap);
    return column && of(column);
  });
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  paper.fillStyle = colour;
  values.forEach((value, i) => {
    if (value === undefined) return;
    const tall = Math.max(1, (value / most) * (STRIP - 4));
    paper.globalAlpha = first + i === scene.selected.position ? 1 : 0.5;
    paper.fillRect(xOf(g, first + i), top + STRIP - tall, g.column - 1, tall);
  });
  paper.globalAlpha = 1;
  paper.fillStyle = palette.card;
  paper.fillRect(0, top, GUTTER, STRIP);
  paper.fillStyle = palette.quiet;
  paper.font = `10px ${FONT}`;
  paper.textAlign = 'right';
  paper.fillText(name, GUTTER - 6, top + 6);
  paper.font = `9px ${FONT}`;
  paper.fillText(`≤ ${most.toPrecision(2)}`, GUTTER - 6, top + 16);
  paper.textAlign = 'left';
  paper.fillRect(GUTTER, top + STRIP, g.width - g.rank - GUTTER, 0.5);
}

function head(paper: CanvasRenderingContext2D, scene: Scene): void {
  const { palette, selected } = scene;
  const { layer } = selected;
  strip(paper, scene, 'entropy', (c) => c.entropy[layer], 0, palette.quiet);
  strip(paper, scene, 'KL', (c) => c.kl[layer], STRIP + 3, palette.a);
}

function gutter(paper: CanvasRenderingContext2D, scene: Scene): void {
  const { geometry: g, palette, selected } = scene;
  paper.fillStyle = palette.card;
  paper.fillRect(0, HEAD, GUTTER, g.height - HEAD);
  paper.textAlign = 'right';
  paper.font = `10px ${FONT}`;
  for (let layer = 0; layer < g.layers; layer++) {
    const y = yOf(g, layer);
    if (y + g.row <= HEAD || y >= g.height - FOOT) continue;
    const chosen = layer === selected.layer;
    paper.fillStyle = chosen ? palette.accent : palette.quiet;
    paper.font = `${chosen ? '700 ' : ''}10px ${FONT}`;
    paper.fillText(String(layer), GUTTER - 6, y + g.row / 2 + 0.5);
  }
  paper.textAlign = 'left';
}

function foot(paper: CanvasRenderingContext2D, scene: Scene): void {
  const { geometry: g, palette, text, selected } = scene;
  const top = Math.min(g.height - FOOT, HEAD + g.layers * g.row);
  paper.fillStyle = palette.card;
  paper.fillRect(0, top, g.width, g.height - top);
  const [first, end] = seen(g);
  for (let p = first; p < end; p++) {
    const chosen = p === selected.position;
    paper.font = `${chosen ? '700 ' : ''}11px ${FONT}`;
    paper.fillStyle = chosen ? palette.accent : p < scene.prompt ? palette.ink : palette.quiet;
    paper.fillText(fit(paper, visible(text[p]?.text ?? ''), g.column - 6), xOf(g, p) + 4, top + 11);
  }
  paper.fillStyle = palette.card;
  paper.fillRect(0, top, GUTTER, g.height - top);
  paper.fillStyle = palette.quiet;
  paper.font = `10px ${FONT}`;
  paper.fillText('token', 2, top + 11);
}

function frame(
  paper: CanvasRenderingContext2D,
  g: Geometry,
  spot: Spot,
  colour: string,
  line: number
) {
  paper.strokeStyle = colour;
  paper.lineWidth = line;
  paper.strokeRect(xOf(g, spot.position) - 0.5, yOf(g, spot.layer) - 0.5, g.column, g.row);
  paper.lineWidth = 1;
}

/* From the key that the open head reads to the position that reads it, between the rows. */
function link(paper: CanvasRenderingContext2D, scene: Scene, source: Spot): void {
  const { geometry: g, palette, selected } = scene;
  const y = yOf(g, source.layer) + g.row - 0.5;
  const [from, to] = [source.position, selected.position].map((p) => xOf(g, p) + g.column / 2);
  paper.strokeStyle = palette.accent;
  paper.fillStyle = palette.accent;
  paper.setLineDash([4, 3]);
  paper.beginPath();
  paper.moveTo(from!, y);
  paper.lineTo(to!, y);
  paper.stroke();
  paper.setLineDash([]);
  for (const x of [from!, to!]) {
    paper.beginPath();
    paper.arc(x, y, 3.5, 0, 7);
    paper.fill();
  }
}

/* Ranks of A and B through the layers at the selected position: the further right, the better. */
function ranks(paper: CanvasRenderingContext2D, scene: Scene): void {
  const { geometry: g, palette, tracked, tap, vocabulary } = scene;
  const left = g.width - g.rank;
  paper.fillStyle = palette.card;
  paper.fillRect(left, 0, g.rank, g.height);
  paper.font = `11px ${FONT}`;
  if (!tracked) return;
  const room = g.rank - 28;
  const x = (rank: number) => left + 14 + room * (1 - Math.log(rank + 1) / Math.log(vocabulary));
  const bottom = Math.min(g.height - FOOT, HEAD + g.layers * g.row);
  paper.strokeStyle = palette.line;
  paper.beginPath();
  for (let r = 1; r < vocabulary; r *= 10) {
    const at = Math.round(x(r - 1)) + 0.5;
    paper.moveTo(at, HEAD);
    paper.lineTo(at, bottom);
  }
  paper.stroke();
  paper.fillStyle = palette.quiet;
  paper.font = `10px ${FONT}`;
  paper.textAlign = 'center';
  for (const r of [1, 100, 10000]) {
    const name = r < 1000 ? String(r) : '10k';
    if (r < vocabulary) paper.fillText(name, x(r - 1), bottom + 11);
  }
  paper.textAlign = 'left';
  const rows = tracked.column.tracked?.[tap] ?? [];
  tracked.names.forEach((name, i) => {
    const colour = i === 0 ? palette.a : palette.b;
    paper.save();
    paper.beginPath();
    paper.rect(left, HEAD - 4, g.rank, bottom - HEAD + 4);
    paper.clip();
    paper.strokeStyle = colour;
    paper.fillStyle = colour;
    paper.lineWidth = 2;
    paper.beginPath();
    rows.forEach((row, layer) => {
      const rank = row[i]?.rank;
      if (rank !== undefined) paper.lineTo(x(rank), yOf(g, layer) + g.row / 2);
    });
    paper.stroke();
    paper.lineWidth = 1;
    const here = rows[scene.selected.layer]?.[i]?.rank;
    if (here !== undefined) {
      paper.beginPath();
      paper.arc(x(here), yOf(g, scene.selected.layer) + g.row / 2, 4, 0, 7);
      paper.fill();
    }
    paper.restore();
    paper.fillStyle = colour;
    paper.font = `600 11px ${FONT}`;
    const said = here === undefined ? '' : ` #${(here + 1).toLocaleString('en')}`;
    const token = fit(paper, visible(name), g.rank - 34 - paper.measureText(said).width);
    paper.fillText(`${i === 0 ? 'A' : 'B'} ${token}${said}`, left + 12, 9 + i * 17);
  });
}

export function paint(paper: CanvasRenderingContext2D, scene: Scene): void {
  const { geometry: g, palette, selected } = scene;
  const [first, end] = seen(g);
  const bottom = Math.min(g.height - FOOT, HEAD + g.layers * g.row);
  paper.fillStyle = palette.card;
  paper.fillRect(0, 0, g.width, g.height);
  paper.textBaseline = 'middle';
  paper.font = `11px ${FONT}`;
  for (let p = first; p < end; p++) {
    const column = scene.lens.column(p, scene.tap);
    const x = xOf(g, p);
    if (column) cells(paper, scene, column, x);
    else {
      paper.fillStyle = palette.line;
      paper.globalAlpha = 0.35;
      paper.fillRect(x, HEAD, g.column - 1, bottom - HEAD - 1);
      paper.globalAlpha = 1;
    }
  }
  paper.save();
  paper.beginPath();
  paper.rect(GUTTER - 1, HEAD - 1, g.width - g.rank - GUTTER + 1, bottom - HEAD + 2);
  paper.clip();
  if (scene.prompt < g.columns) {
    paper.fillStyle = palette.quiet;
    paper.fillRect(xOf(g, scene.prompt) - 2, HEAD, 2, bottom - HEAD);
  }
  paper.strokeStyle = palette.accent;
  paper.globalAlpha = 0.55;
  paper.strokeRect(xOf(g, selected.position) - 0.5, HEAD - 0.5, g.column, bottom - HEAD);
  paper.globalAlpha = 1;
  if (scene.hover) frame(paper, g, scene.hover, palette.ink, 1);
  frame(paper, g, selected, palette.accent, 2);
  if (scene.source) link(paper, scene, scene.source);
  paper.restore();
  head(paper, scene);
  foot(paper, scene);
  gutter(paper, scene);
  if (g.rank) ranks(paper, scene);
}
