/* From what the program embedded to what the page draws.
 *
 *   runs (a file each)  ->  sections (same machine, same work, same shape)  ->  passes  ->  points
 *
 * Every run is {machine, command, results}; the rows of all runs are thrown together, so that a peer's
 * file meets ours wherever both did the same work. A series is what one implementation did with one
 * setting. Curves go over L, or over the hidden width or the chunk where that is what varies. Of two
 * rows for the same point the shorter time stands. Fields that a peer does not write take the value
 * that keyhole's rows have by default. */
import { length } from '../common/units';

export interface Machine {
  cpu?: string;
  isa?: string;
  cores?: number;
  memory_bytes?: number;
  gigaflops_per_core?: number;
  read_gigabytes?: number;
  read_gigabytes_all?: number;
}

export type Row = Record<string, unknown>;

export interface Run {
  file?: string;
  command?: string;
  machine?: Machine;
  results: Row[];
}

export interface Report {
  version?: string;
  commit?: string;
  command?: string;
  runs: Run[];
}

export interface Series {
  key: string;
  impl: string;
  setting: string; // all but the implementation: "topk:k=128"
  label: string;
  ours: boolean;
  style: number; // colour and symbol
}

export interface Point {
  series: Series;
  x: number;
  seconds: number; // the shortest run
  median: number | null;
  bytes: number | null; // over inputs and outputs
}

export interface Pass {
  name: string; // as in the results: "fwd"
  title: string;
  points: Point[]; // by series, then x
}

export interface Axis {
  letter: string; // at the axis
  of: (row: Row) => number;
}

export interface Section {
  title: string;
  machine?: Machine;
  timed: string; // what a time is of: "a pass"
  letters: string; // what they stand for
  axis: Axis;
  series: Series[];
  xs: number[]; // rising
  passes: Pass[];
}

export interface Model {
  title: string;
  machines: Machine[];
  sections: Section[];
  leftOut: number; // rows without a length or a time
}

const PASSES: Record<string, string> = {
  fwd: 'Forward',
  'fwd+bwd': 'Forward and backward',
};

interface Work {
  name: string; // in titles; attention needs none
  timed: string;
  letters: string;
  only?: string; // what the one pass is called, where forward says nothing
}
const WORKS: Record<string, Work> = {
  attention: { name: '', timed: 'a pass', letters: 'L: queries and keys' },
  decode: {
    name: 'Decoding over a cache',
    timed: 'a token',
    letters: 'L: keys in the cache',
    only: 'Decoding',
  },
  select: {
    name: 'Selection of the k largest',
    timed: 'a row',
    letters: 'L: scores of a row',
    only: 'Selection',
  },
  ff: { name: 'Feed-forward layer', timed: 'a pass', letters: 'L: tokens, F: neurons' },
};
const workOf = (row: Row): Work => {
  const name = text(row.work, 'attention');
  return WORKS[name] ?? { name, timed: 'a pass', letters: '' };
};
const OURS = 'keyhole';

const text = (value: unknown, fallback = ''): string =>
  typeof value === 'string' && value ? value : fallback;
const number = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;
const count = (value: unknown, fallback: number): number => number(value) ?? fallback;
const plural = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`;

export function readReport(value: unknown): Report | null {
  if (typeof value !== 'object' || value === null) return null;
  const runs = (value as Report).runs;
  if (!Array.isArray(runs)) return null;
  return {
    ...(value as Report),
    runs: runs.map((run) => ({ ...run, results: Array.isArray(run?.results) ? run.results : [] })),
  };
}

const lengthOf = (row: Row): number => count(row.L, 0);
const chunkOf = (row: Row): number => Math.min(count(row.chunk, 0) || Infinity, lengthOf(row));
const AXES: Axis[] = [
  { letter: 'L', of: lengthOf },
  { letter: 'F', of: (row) => count(row.ff, 0) },
  { letter: 'C', of: chunkOf },
];
const [OVER_L, OVER_F, OVER_C] = AXES as [Axis, Axis, Axis];

/* The axis of a kind of work: the first of those with the most values. */
function axisOf(rows: Row[]): Axis {
  const values = (axis: Axis) => new Set(rows.map(axis.of)).size;
  if (values(OVER_L) > 1) return OVER_L;
  return AXES.reduce((best, axis) => (values(axis) > values(best) ? axis : best));
}

/* What must be equal for two rows to be in one picture. */
function shapeOf(row: Row, axis: Axis): string {
  const { name } = workOf(row);
  const heads = count(row.heads, 1);
  const keyHeads = count(row.kv_heads, heads) || heads;
  const width = count(row.width, count(row.head_dim, 0));
  const batch = count(row.batch, 1);
  const parts = name ? [name] : [];
  if (batch !== 1) parts.push(`${batch} sequences`);
  if (row.work === 'ff') parts.push(`width ${width}`);
  else if (width && keyHeads !== heads)
    parts.push(`${heads} query and ${plural(keyHeads, 'key head')} of ${width}`);
  else if (width) parts.push(`${plural(heads, 'head')} of ${width}`);
  if (!name) parts.push(row.causal === false ? 'each query sees all keys' : 'causal');
  if (axis !== OVER_L) parts.push(`L = ${length(lengthOf(row))}`);
  if (axis !== OVER_F && row.ff !== undefined) parts.push(`F = ${length(OVER_F.of(row))}`);
  if (row.gated === true) parts.push('gated');
  if (row.act) parts.push(text(row.act));
  // Another k is another piece of work there, not another way to do it.
  if (row.work === 'select' && row.k) parts.push(`k = ${count(row.k, 0).toLocaleString('en')}`);
  if (row.scores) parts.push(`scores: ${text(row.scores)}`);
  if (row.layers) parts.push(plural(count(row.layers, 1), 'layer'));
  parts.push(plural(count(row.threads, 1), 'thread'));
  return parts.join(', ');
}

/* Differences between rows of one implementation and setting, as words for the label. */
function details(row: Row, axis: Axis): string[] {
  const attn = text(row.attn);
  const chunk = chunkOf(row);
  const all = axis === OVER_C ? [] : [`chunk ${chunk < lengthOf(row) ? chunk : 'of all'}`];
  for (const field of ['dtype', 'dropout'])
    if (row[field] !== undefined) all.push(`${field} ${row[field]}`);
  if (/^top-?k/.test(attn) && !attn.includes('k=') && number(row.k)) all.push(`k ${row.k}`);
  return all;
}

interface Draft {
  title: string;
  machine?: Machine;
  axis: Axis;
  rows: Row[];
}

/* Rows of one implementation and setting that differ in a detail become series of their own, and only
 * then does the label name the detail. */
function seriesOf({ rows, axis }: Draft): Map<Row, Series> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const name = JSON.stringify([text(row.impl, '?'), text(row.attn)]);
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const found = new Map<string, Series>();
  const of = new Map<Row, Series>();
  for (const same of groups.values()) {
    const seen = same.map((row) => details(row, axis));
    const varies = (word: string) => !seen.every((words) => words.includes(word));
    same.forEach((row, i) => {
      const impl = text(row.impl, '?');
      const setting = [text(row.attn), ...seen[i]!.filter(varies)].filter(Boolean).join(', ');
      const label = setting ? `${impl} ${setting}` : impl;
      const known = found.get(label);
      const series = known ?? { key: label, impl, setting, label, ours: impl === OURS, style: 0 };
      if (!known) found.set(label, series);
      of.set(row, series);
    });
  }
  return of;
}

function pointsOf(rows: Row[], axis: Axis, of: Map<Row, Series>): Point[] {
  const best = new Map<string, Point>();
  for (const row of rows) {
    const point: Point = {
      series: of.get(row)!,
      x: axis.of(row),
      seconds: row.seconds_min as number,
      median: number(row.seconds_median),
      bytes: number(row.peak_bytes),
    };
    const key = JSON.stringify([point.series.key, point.x]);
    const other = best.get(key);
    if (!other || point.seconds < other.seconds) best.set(key, point);
  }
  return [...best.values()].sort((a, b) => a.series.style - b.series.style || a.x - b.x);
}

function sectionOf(draft: Draft): Section {
  const of = seriesOf(draft);
  const work = workOf(draft.rows[0]!);
  const all = [...new Set(of.values())];
  const series = [...all.filter((one) => one.ours), ...all.filter((one) => !one.ours)];
  series.forEach((one, i) => (one.style = i));
  const names = [...new Set(draft.rows.map((row) => text(row.pass, 'fwd')))];
  const known = Object.keys(PASSES);
  const place = (name: string) => (known.includes(name) ? known.indexOf(name) : known.length);
  names.sort((a, b) => place(a) - place(b));
  return {
    title: draft.title,
    machine: draft.machine,
    timed: work.timed,
    letters: work.letters,
    axis: draft.axis,
    series,
    xs: [...new Set(draft.rows.map(draft.axis.of))].sort((a, b) => a - b),
    passes: names.map((name) => ({
      name,
      title: (names.length === 1 && work.only) || (PASSES[name] ?? name),
      points: pointsOf(
        draft.rows.filter((row) => text(row.pass, 'fwd') === name),
        draft.axis,
        of
      ),
    })),
  };
}

export function arrange(report: Report): Model {
  const machines = new Map<string, Machine>();
  const drafts = new Map<string, Draft>();
  const first = report.runs.find((run) => run.machine)?.machine;
  const good = (row: Row) => (number(row?.L) ?? 0) > 0 && (number(row?.seconds_min) ?? 0) > 0;
  const all = report.runs.flatMap((run) => run.results);
  const rows = all.filter(good);
  const axes = new Map<string, Axis>();
  for (const { name } of new Set(rows.map(workOf)))
    axes.set(name, axisOf(rows.filter((row) => workOf(row).name === name)));
  for (const run of report.runs) {
    const machine = run.machine ?? first;
    const cpu = text(machine?.cpu);
    if (machine && !machines.has(cpu)) machines.set(cpu, machine);
    for (const row of run.results.filter(good)) {
      const axis = axes.get(workOf(row).name) ?? OVER_L;
      const title = shapeOf(row, axis);
      const key = JSON.stringify([cpu, title]);
      const draft = drafts.get(key) ?? { title, machine: machines.get(cpu), axis, rows: [] };
      draft.rows.push(row);
      drafts.set(key, draft);
    }
  }
  const attention = rows.every((row) =>
    ['attention', 'decode', 'select'].includes(text(row.work, 'attention'))
  );
  return {
    title: attention ? 'What attention costs' : 'What it costs',
    machines: [...machines.values()],
    sections: [...drafts.values()].map(sectionOf),
    leftOut: all.length - rows.length,
  };
}

/* ---- comparing ---- */

export const at = (pass: Pass, series: Series, x: number): Point | undefined =>
  pass.points.find((point) => point.series === series && point.x === x);

const longest = (pass: Pass, series: Series): Point | undefined =>
  pass.points.filter((point) => point.series === series).pop();

/* What ratios refer to until the reader chooses: the fastest peer where it went furthest, or without
 * peers the slowest of ours. */
export function usualReference(section: Section): Series {
  const pass = section.passes[section.passes.length - 1]!;
  const peers = section.series.filter((one) => !one.ours && longest(pass, one));
  const ends = (peers.length ? peers : section.series)
    .map((one) => longest(pass, one))
    .filter((end) => end !== undefined);
  const far = Math.max(...ends.map((end) => end.x));
  const [least] = ends
    .filter((end) => end.x === far)
    .sort((a, b) => (peers.length ? a.seconds - b.seconds : b.seconds - a.seconds));
  return least?.series ?? section.series[0]!;
}

export interface Headline {
  pass: Pass;
  x: number;
  best: Point;
  reference: Point;
}

/* Our fastest beside the reference at the greatest length that both have. */
export function headline(pass: Pass, reference: Series): Headline | null {
  const common = pass.points.filter(
    (point) => point.series.ours && point.series !== reference && at(pass, reference, point.x)
  );
  const x = Math.max(...common.map((point) => point.x));
  const [best] = common.filter((point) => point.x === x).sort((a, b) => a.seconds - b.seconds);
  return best ? { pass, x, best, reference: at(pass, reference, x)! } : null;
}

/* The power of x with which the last step grew: 2 is quadratic. */
export function growth(pass: Pass, series: Series): number | null {
  const points = pass.points.filter((point) => point.series === series);
  const [a, b] = points.slice(-2);
  if (!a || !b || b.x < 1.5 * a.x) return null;
  return Math.log(b.seconds / a.seconds) / Math.log(b.x / a.x);
}
