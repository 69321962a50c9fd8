/* One picture: a metric against L (or what varies), both logarithmic, drawn by Observable Plot.
 *
 * Ours are full lines with filled symbols, peers are dashed with hollow ones, and each series has a
 * symbol of its own: nothing depends on colour. Colours are variables of the style sheet, so light and
 * dark need no second drawing. A series is named at its end; names that would meet are moved apart,
 * which needs the position of a value in pixels: the scale is ours to state, so that is arithmetic. */
import * as Plot from '@observablehq/plot';
import { shorten, spread, widthOf, type Named } from '../common/labels';
import { axisName, grid, nameLinks, nameTexts, swatchOf, tipOf } from '../common/marks';
import { bytes, bytesTick, length, logTicks, time, timeTick } from '../common/units';
import type { Point, Section, Series } from './results';

export interface Metric {
  name: (section: Section) => string;
  of: (point: Point) => number | null;
  say: (value: number) => string;
  tick: (value: number) => string;
}

export const METRICS: Metric[] = [
  {
    name: ({ timed }) => `time of ${timed}`,
    of: (point) => point.seconds,
    say: time,
    tick: timeTick,
  },
  {
    name: () => 'memory over inputs and outputs',
    of: (point) => point.bytes || null,
    say: bytes,
    tick: bytesTick,
  },
];

export interface Spot extends Point {
  value: number;
}

export interface Picture {
  spots: Spot[];
  series: Series[];
  x: [number, number]; // domains
  y: [number, number];
  metric: Metric;
  section: Section;
  width: number;
  selected: Spot | null; // chosen by the keyboard
  title: string;
}

const SYMBOLS = ['circle', 'square', 'triangle', 'diamond', 'star', 'cross', 'wye'];
const COLOURS = 7;
const HEIGHT = 340;
const TOP = 12;
const BOTTOM = 34;
const LEFT = 56;
const NARROW = 520;

/* Beyond the last symbol they begin again, in other colours. */
export const colour = ({ style }: Series): string =>
  `var(--series-${(style + 3 * Math.floor(style / SYMBOLS.length)) % COLOURS})`;
const symbol = (series: Series): string => SYMBOLS[series.style % SYMBOLS.length]!;
const dashes = (series: Series): string | undefined => (series.ours ? undefined : '5 3');

export function spotsOf(points: Point[], metric: Metric): Spot[] {
  return points.flatMap((point) => {
    const value = metric.of(point);
    return value !== null && value > 0 ? [{ ...point, value }] : [];
  });
}

/* The domain that holds the values, with air on both sides; at least `span` wide, as a ratio, so that
 * what is nearly flat looks flat. */
export function domain(values: number[], span: number): [number, number] {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const air = Math.max(1.12, (most / least) ** 0.06, Math.sqrt((span * least) / most));
  return [least / air, most * air];
}

const log = (value: number, [a, b]: [number, number]): number =>
  Math.log(value / a) / Math.log(b / a);

/* As many of the values as there is room for: the ends, then round ones, then others. */
function valueTicks({ section: { xs }, x }: Picture, room: number): number[] {
  const round = (value: number) => Number(/[kM]$/.test(length(value)));
  const end = (value: number) => Number(value === xs[0] || value === xs[xs.length - 1]);
  const kept: number[] = [];
  for (const value of [...xs].sort((a, b) => end(b) - end(a) || round(b) - round(a) || b - a)) {
    const apart = (other: number) => Math.abs(log(value, x) - log(other, x)) * room;
    const needed = (other: number) => (widthOf(length(value)) + widthOf(length(other))) / 2 + 8;
    if (kept.every((other) => apart(other) >= needed(other))) kept.push(value);
  }
  return kept;
}

interface Label extends Named {
  spot: Spot;
}

/* Names in one column behind the greatest x, moved apart where they would overlap: other curves go on where
 * one ends early, so its name stands in the column too and a dotted line leads there. */
function labelsOf(picture: Picture): Label[] {
  const height = HEIGHT - TOP - BOTTOM;
  const lines = ({ impl, setting, label }: Series): string[] =>
    picture.width < NARROW && setting
      ? [shorten(impl, 12), shorten(setting, 12)]
      : [shorten(label, 24)];
  const ends = picture.series.flatMap((series) =>
    picture.spots.filter((one) => one.series === series).slice(-1)
  );
  const labels = ends.map((spot) => ({
    spot,
    lines: lines(spot.series),
    at: TOP + (1 - log(spot.value, picture.y)) * height,
  }));
  spread(labels, TOP, TOP + height);
  return labels;
}

function tipText(spot: Spot, letter: string, say: (value: number) => string): string {
  const lines = [spot.series.label, `${letter} = ${length(spot.x)}: ${say(spot.value)}`];
  if (spot.value === spot.seconds && spot.median !== null && spot.median !== spot.seconds)
    lines.push(`median ${time(spot.median)}`);
  return lines.join('\n');
}

export const spoken = (spot: Spot, { axis }: Section, { say }: Metric): string =>
  tipText(spot, axis.letter, say).replaceAll('\n', ', ');

function seriesMarks(spots: Spot[], series: Series[]): Plot.Markish[] {
  return series.flatMap((one) => {
    const mine = spots.filter((spot) => spot.series === one);
    const place = { x: 'x', y: 'value', stroke: colour(one) };
    return [
      Plot.line(mine, {
        ...place,
        strokeWidth: one.ours ? 2.25 : 1.75,
        strokeDasharray: dashes(one),
      }),
      Plot.dot(mine, {
        ...place,
        className: 'spots',
        symbol: symbol(one) as Plot.SymbolType,
        fill: one.ours ? colour(one) : 'var(--card)',
        strokeWidth: 1.75,
        r: 4,
      }),
    ];
  });
}

export function draw(picture: Picture): Element {
  const { spots, series, x, y, metric, width } = picture;
  const { letter } = picture.section.axis;
  const labels = labelsOf(picture);
  const widest = Math.max(0, ...labels.flatMap(({ lines }) => lines.map(widthOf)));
  const right = Math.min(Math.ceil(widest) + 16, Math.round(width * 0.42));
  const inner = width - LEFT - right;
  const height = HEIGHT - TOP - BOTTOM;
  const last = Math.max(...spots.map((spot) => spot.x));
  const value = (label: Label) => y[0] * (y[1] / y[0]) ** (1 - (label.at - TOP) / height);
  const from = (label: Label) => TOP + (1 - log(label.spot.value, y)) * height;
  const ink = (label: Label) => colour(label.spot.series);
  return Plot.plot({
    width,
    height: HEIGHT,
    marginLeft: LEFT,
    marginRight: right,
    marginTop: TOP,
    marginBottom: BOTTOM,
    className: 'curves',
    ariaLabel: picture.title,
    x: { type: 'log', domain: x, label: null },
    y: { type: 'log', domain: y, label: null },
    marks: [
      ...grid(
        { at: valueTicks(picture, inner), text: length },
        { at: logTicks(...y), text: metric.tick }
      ),
      axisName(letter, { frameAnchor: 'bottom-right', dy: BOTTOM - 17, dx: 12 }),
      nameLinks(
        labels.filter((label) => label.spot.x < last || Math.abs(label.at - from(label)) > 3),
        ({ spot }) => ({ x: spot.x, y: spot.value }),
        (label) => ({ x: last * (x[1] / x[0]) ** (9 / inner), y: value(label) }),
        ink
      ),
      ...seriesMarks(spots, series),
      nameTexts(labels, (label) => ({ x: last, y: value(label) }), ink),
      tipOf(spots, picture.selected, (spot) => tipText(spot, letter, metric.say)),
    ],
  });
}

/* The line and the symbol of a series, for legends and tables. */
export const swatch = (series: Series): Element =>
  swatchOf(
    { stroke: colour(series), strokeDasharray: dashes(series) },
    {
      symbol: symbol(series) as Plot.SymbolType,
      stroke: colour(series),
      fill: series.ours ? colour(series) : 'var(--card)',
      strokeWidth: 1.75,
    }
  );
