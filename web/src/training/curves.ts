/* One picture: a number of the runs over steps or time, drawn by Observable Plot.
 *
 * What is logged at every step is noisy: light points, a line through them (smooth.ts), and where the program
 * made one point of many lines a band from the lowest to the highest. Evaluations are few: symbols on a line.
 * Runs that differ by their seed have one colour and one name, which stands at the end of their curves; each
 * of them has dashes and a symbol of its own. The points of a run are one path, since thousands of elements
 * make a page slow. */
import * as Plot from '@observablehq/plot';
import { shorten, spread, widthOf, type Named } from '../common/labels';
import { axisName, grid, nameLinks, nameTexts, swatchOf, tipOf } from '../common/marks';
import { duration, linearTicks, plain } from '../common/units';
import { axisOf, scaleOf, type Choice, type Metric, type Scale, type Spot } from './metrics';
import { whole, type Run } from './runs';

const SYMBOLS = ['circle', 'square', 'triangle', 'diamond', 'star', 'cross', 'wye'];
const DASHES = [undefined, '7 3', '2 2.5', '9 3 2 3', '5 2', '1 3', '12 3'];
const COLOURS = 7;
const TOP = 12;
const BOTTOM = 32;
const LEFT = 56;
const NARROW = 520;
const MOST_NAMES = 8;

/* Beyond the last colour they begin again, with other dashes and symbols. */
const turn = ({ group, place }: Run): number => group + place + Math.floor(group / COLOURS);
export const colour = ({ group }: Run): string => `var(--series-${group % COLOURS})`;
const dashes = (run: Run): string | undefined => DASHES[turn(run) % DASHES.length];
const symbol = (run: Run) => SYMBOLS[turn(run) % SYMBOLS.length] as Plot.SymbolType;

export interface Picture {
  metric: Metric;
  spots: Spot[];
  runs: Run[]; // that are shown
  most: number; // x of the last point of any picture
  choice: Choice;
  width: number;
  selected: Spot | null;
  title: string;
}

interface Label extends Named {
  spot: Spot;
}

function labelsOf(
  { spots, runs, width, metric }: Picture,
  { type, domain: [a, b] }: Scale
): Label[] {
  const height = metric.height - TOP - BOTTOM;
  const groups = [...new Set(runs.map((run) => run.group))];
  if (runs.length < 2 || groups.length > MOST_NAMES) return [];
  const share = (value: number) =>
    type === 'log' ? Math.log(value / a) / Math.log(b / a) : (value - a) / (b - a);
  const words = (text: string): string[] => {
    if (width >= NARROW) return [shorten(text, 22)];
    const space = text.indexOf(' ', 3);
    const parts =
      text.length > 12 && space > 0 ? [text.slice(0, space), text.slice(space + 1)] : [text];
    return parts.map((part) => shorten(part, 12));
  };
  const labels = groups.flatMap((group) => {
    const members = runs.filter((run) => run.group === group);
    const ends = members.flatMap((run) => spots.filter((spot) => spot.series === run).slice(-1));
    ends.sort((a, b) => a.line - b.line);
    const spot = ends[ends.length >> 1];
    if (!spot) return [];
    const at = TOP + (1 - Math.max(0, Math.min(1, share(spot.line)))) * height;
    return [{ spot, lines: words(members.length > 1 ? spot.series.team : spot.series.label), at }];
  });
  spread(labels, TOP, TOP + height);
  return labels;
}

/* The points of one run as one path of round caps. */
const cloud =
  (spots: Spot[], run: Run, size: number): Plot.RenderFunction =>
  (_index, scales) => {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    const { x, y } = scales as unknown as Record<'x' | 'y', (value: number) => number>;
    const at = (value: number) => value.toFixed(1);
    path.setAttribute('d', spots.map((one) => `M${at(x(one.x))},${at(y(one.value))}h0`).join(''));
    path.setAttribute('class', 'cloud');
    path.setAttribute('stroke', colour(run));
    path.setAttribute('stroke-width', String(size));
    return path;
  };

function marksOf(run: Run, all: Spot[], metric: Metric, floor: number): Plot.Markish[] {
  const spots = all.filter((spot) => spot.series === run);
  const place = { x: 'x', y: 'line', stroke: colour(run), strokeDasharray: dashes(run) };
  const line = Plot.line(spots, { ...place, strokeWidth: 2 });
  if (metric.look === 'plain') return [line];
  if (metric.look === 'symbols')
    return [
      line,
      Plot.dot(spots, {
        x: 'x',
        y: 'value',
        symbol: symbol(run),
        fill: colour(run),
        r: spots.length > 40 ? 2 : spots.length > 20 ? 2.75 : 3.5,
      }),
    ];
  const band = spots.filter((spot) => spot.low !== null && spot.high !== null);
  return [
    Plot.areaY(band, {
      x: 'x',
      y1: (spot: Spot) => Math.max(floor, spot.low!),
      y2: 'high',
      fill: colour(run),
      fillOpacity: 0.14,
    }),
    cloud(spots, run, spots.length > 400 ? 2 : spots.length > 100 ? 3 : 4),
    line,
  ];
}

function tipText(spot: Spot, { say, look }: Metric, alone: boolean): string {
  const smoothed = look === 'noisy' && spot.line !== spot.value ? ` (line: ${say(spot.line)})` : '';
  const lines = [`step ${whole(spot.step)}: ${say(spot.value)}${smoothed}`];
  if (!alone) lines.unshift(spot.series.label);
  if (spot.low !== null && spot.high !== null && spot.low < spot.high)
    lines.push(`from ${say(spot.low)} to ${say(spot.high)}`);
  if (spot.seconds) lines.push(`after ${duration(spot.seconds)}`);
  return lines.join('\n');
}

export const spoken = (spot: Spot, metric: Metric, alone: boolean): string =>
  tipText(spot, metric, alone).replaceAll('\n', ', ');

export function draw(picture: Picture): Element {
  const { spots, runs, metric, width, choice, most } = picture;
  const scale = scaleOf(spots, metric, choice.log);
  const labels = labelsOf(picture, scale);
  const widest = Math.max(0, ...labels.flatMap(({ lines }) => lines.map(widthOf)));
  const right = labels.length ? Math.min(Math.ceil(widest) + 16, Math.round(width * 0.42)) : 20;
  const { name, unit } = axisOf(choice.over, most);
  const inner = width - LEFT - right;
  const ticksX = linearTicks(0, most / unit, Math.min(8, inner / 70))
    .filter((tick) => choice.over === 'time' || Number.isInteger(tick))
    .map((tick) => tick * unit);
  const [a, b] = scale.domain;
  const height = metric.height - TOP - BOTTOM;
  const value = ({ at }: Label) => {
    const share = 1 - (at - TOP) / height;
    return scale.type === 'log' ? a * (b / a) ** share : a + (b - a) * share;
  };
  const ink = (label: Label) => colour(label.spot.series);
  return Plot.plot({
    width,
    height: metric.height,
    marginLeft: LEFT,
    marginRight: right,
    marginTop: TOP,
    marginBottom: BOTTOM,
    className: 'curves',
    ariaLabel: picture.title,
    x: { type: 'linear', domain: [0, most || 1], label: null },
    y: { type: scale.type, domain: scale.domain, label: null, clamp: true },
    marks: [
      ...grid(
        { at: ticksX, text: (tick) => plain(tick / unit, 6) },
        { at: scale.ticks, text: metric.tick }
      ),
      axisName(name, {
        frameAnchor: 'bottom-left',
        dy: BOTTOM - 15,
        dx: 12 - LEFT,
        textAnchor: 'start',
      }),
      nameLinks(
        labels,
        ({ spot }) => ({ x: spot.x, y: spot.line }),
        (label) => ({ x: most * (1 + 9 / inner), y: value(label) }),
        ink
      ),
      ...runs.flatMap((run) => marksOf(run, spots, metric, a)),
      nameTexts(labels, (label) => ({ x: most, y: value(label) }), ink),
      tipOf(spots, picture.selected, (spot) => tipText(spot, metric, runs.length === 1)),
    ],
  });
}

/* The line and the symbol of a run, for the legend and the table. */
export const swatch = (run: Run): Element =>
  swatchOf(
    { stroke: colour(run), strokeDasharray: dashes(run) },
    { symbol: symbol(run), fill: colour(run) }
  );
