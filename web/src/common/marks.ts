/* Marks that every picture of curves has: the grid with its axes, names behind the ends of the curves, what is
 * shown at the pointer or at the point that the keyboard chose, and the swatch of a legend. */
import * as Plot from '@observablehq/plot';
import { LINE, type Named } from './labels';

/* The values of an axis at which there are lines, and their texts. A function, because a tickFormat loses ticks
 * of logarithmic axes. */
export interface Ticks {
  at: number[];
  text: (value: number) => string;
}

export function grid(x: Ticks, y: Ticks): Plot.Markish[] {
  const line = { stroke: 'var(--grid)', strokeOpacity: 1 };
  const quiet = { tickSize: 0, fill: 'var(--quiet)' };
  return [
    Plot.gridY(y.at, line),
    Plot.gridX(x.at, line),
    Plot.axisY(y.at, { ...quiet, text: y.text }),
    Plot.axisX(x.at, { ...quiet, text: x.text }),
  ];
}

/* What an axis is called, inside the picture. */
export const axisName = (name: string, options: Plot.TextOptions): Plot.Markish =>
  Plot.text([name], { ...options, fontStyle: 'italic', fill: 'var(--quiet)' });

export interface Place {
  x: number;
  y: number;
}

/* A dotted line from the end of each curve to where its name is. */
export const nameLinks = <L extends Named>(
  labels: L[],
  from: (label: L) => Place,
  to: (label: L) => Place,
  colour: (label: L) => string
): Plot.Markish =>
  Plot.link(labels, {
    x1: (label: L) => from(label).x,
    y1: (label: L) => from(label).y,
    x2: (label: L) => to(label).x,
    y2: (label: L) => to(label).y,
    stroke: colour,
    strokeOpacity: 0.6,
    strokeDasharray: '1 2.5',
  });

/* The names, a little right of their places. */
export const nameTexts = <L extends Named>(
  labels: L[],
  at: (label: L) => Place,
  colour: (label: L) => string
): Plot.Markish =>
  Plot.text(labels, {
    x: (label: L) => at(label).x,
    y: (label: L) => at(label).y,
    dx: 11,
    text: (label: L) => label.lines.join('\n'),
    textAnchor: 'start',
    lineHeight: LINE / 12,
    fill: colour,
    stroke: 'var(--card)',
    strokeWidth: 4,
    fontWeight: 600,
  });

/* The text of the chosen point, else of the one next to the pointer. */
export function tipOf<S>(
  spots: S[],
  selected: S | null,
  title: (spot: S) => string
): Plot.Markish {
  const tip = { x: 'x', y: 'value', title, lineHeight: 1.25 };
  return selected
    ? Plot.tip([selected], tip)
    : Plot.tip(spots, Plot.pointer({ ...tip, maxRadius: 48 }));
}

/* The line and the symbol of a curve, for legends and tables. */
export function swatchOf(line: Plot.LineOptions, dot: Plot.DotOptions): Element {
  const place = { x: (d: number) => d, y: () => 0 };
  return Plot.plot({
    width: 34,
    height: 14,
    margin: 0,
    className: 'swatch',
    x: { type: 'linear', domain: [0, 34], range: [0, 34], axis: null },
    y: { type: 'linear', domain: [-1, 1], axis: null },
    marks: [
      Plot.line([2, 32], { ...place, strokeWidth: 2, ...line }),
      Plot.dot([17], { ...place, r: 4, ...dot }),
    ],
  });
}
