/* What can be drawn of a run: its numbers as points with a line through them, and the scales they need. */
import {
  bytes,
  bytesTick,
  figures,
  linearTicks,
  logTicks,
  percent,
  percentTick,
  plain,
} from '../common/units';
import { whole, type Columns, type Run } from './runs';
import { smooth } from './smooth';

export interface Spot {
  series: Run;
  step: number;
  seconds: number | null;
  x: number;
  value: number;
  line: number; // where the smoothed line is
  low: number | null;
  high: number | null;
}

export type Over = 'steps' | 'time';

export interface Metric {
  key: string;
  title: string;
  evaluated: boolean; // a column of evaluations
  column: string;
  of?: (columns: Columns) => (number | null)[]; // in place of a column
  look: 'noisy' | 'plain' | 'symbols';
  scale: 'loss' | 'spread' | 'zero' | 'share'; // loss: the reader's choice; spread: logarithmic if wide
  say: (value: number) => string;
  tick: (value: number) => string;
  height: number;
}

/* Tokens a second between a point and the one before it. */
function rates({ values }: Columns): (number | null)[] {
  const seconds = values('seconds');
  return values('tokens').map((tokens, i, all) => {
    const time = (seconds[i] ?? NaN) - (i ? (seconds[i - 1] ?? NaN) : 0);
    const done = (tokens ?? NaN) - (i ? (all[i - 1] ?? NaN) : 0);
    return time > 0 && done >= 0 ? done / time : null;
  });
}

const tokens = {
  say: (value: number) => `${whole(value)} tokens/s`,
  tick: (v: number) => plain(v, 3),
};
const share = { say: percent, tick: percentTick };
const number = { say: figures, tick: (value: number) => plain(value, 3) };
const amount = { say: bytes, tick: bytesTick };

const loss = { scale: 'loss', height: 320, ...number } as const;
const accuracy = { scale: 'share', height: 210, ...share } as const;
const logged = { evaluated: false, look: 'noisy', height: 210 } as const;
const held = { evaluated: true, look: 'symbols' } as const;

export const METRICS: Metric[] = [
  { key: 'loss', title: 'Training loss', column: 'loss', ...logged, ...loss },
  { key: 'eval-loss', title: 'Held-out loss', column: 'eval_loss', ...held, ...loss },
  { key: 'accuracy', title: 'Training accuracy', column: 'accuracy', ...logged, ...accuracy },
  {
    key: 'eval-accuracy',
    title: 'Held-out accuracy',
    column: 'eval_accuracy',
    ...held,
    ...accuracy,
  },
  {
    ...logged,
    key: 'lr',
    title: 'Learning rate',
    column: 'lr',
    look: 'plain',
    scale: 'zero',
    ...number,
  },
  { ...logged, key: 'norm', title: 'Gradient norm', column: 'norm', scale: 'spread', ...number },
  {
    ...logged,
    key: 'rate',
    title: 'Tokens a second',
    column: '',
    of: rates,
    scale: 'zero',
    ...tokens,
  },
  {
    ...logged,
    key: 'memory',
    title: 'Memory, the most so far',
    column: 'peak_bytes',
    look: 'plain',
    scale: 'zero',
    ...amount,
  },
];

/* ---- points ---- */

/* The time of a step: that of the last line that is not behind it. */
function timeAt(train: Columns, step: number): number | null {
  const steps = train.values('step');
  const seconds = train.values('seconds');
  if (!seconds.length) return null;
  let found = 0;
  for (let i = 0; i < steps.length && (steps[i] ?? 0) <= step; i++) found = seconds[i] ?? found;
  return found;
}

export interface Choice {
  over: Over;
  log: boolean;
  smoothing: number; // share of the points that a window holds
}

export function spotsOf(run: Run, metric: Metric, choice: Choice): Spot[] {
  const columns = metric.evaluated ? run.evals : run.train;
  const values = metric.of ? metric.of(columns) : columns.values(metric.column);
  const low = columns.values(`${metric.column}_low`);
  const high = columns.values(`${metric.column}_high`);
  const steps = columns.values('step');
  const seconds = columns.values('seconds');
  const spots = values.flatMap((value, i): Spot[] => {
    const step = steps[i] ?? 0;
    if (value === null || (choice.log && metric.scale === 'loss' && value <= 0)) return [];
    const time = metric.evaluated ? timeAt(run.train, step) : (seconds[i] ?? null);
    const x = choice.over === 'steps' ? step : time;
    if (x === null) return [];
    const range = { low: low[i] ?? null, high: high[i] ?? null };
    return [{ series: run, step, seconds: time, x, value, line: value, ...range }];
  });
  if (metric.look === 'noisy') {
    const [to, back] =
      choice.log && metric.scale === 'loss'
        ? [Math.log, Math.exp]
        : [(v: number) => v, (v: number) => v];
    const half = Math.round((choice.smoothing * spots.length) / 2);
    smooth(
      spots.map((spot) => to(spot.value)),
      half
    ).forEach((line, i) => (spots[i]!.line = back(line)));
  }
  return spots;
}

/* ---- scales ---- */

export interface Scale {
  type: 'linear' | 'log';
  domain: [number, number];
  ticks: number[];
}

function logScale(least: number, most: number): Scale {
  const air = Math.max(1.04, (most / least) ** 0.04);
  const domain: [number, number] = [least / air, most * air];
  let ticks = logTicks(...domain);
  if (ticks.length < 3) ticks = linearTicks(...domain, 5);
  return { type: 'log', domain, ticks };
}

/* A little air around the values; a share ends at 0 and 1, what is nearly flat looks flat. */
function linearScale(least: number, most: number, floor: boolean, ceiling: number): Scale {
  if (floor || least < 0.25 * most) least = Math.min(0, least);
  const air = Math.max(0.05 * (most - least), 0.01 * Math.abs(most), most === least ? 0.01 : 0);
  const domain: [number, number] = [least > 0 ? least - air : least, Math.min(most + air, ceiling)];
  return { type: 'linear', domain, ticks: linearTicks(...domain, 5) };
}

export function scaleOf(spots: Spot[], metric: Metric, log: boolean): Scale {
  const values = spots
    .map((spot) => spot.value)
    .filter((value) => value > 0 || metric.scale !== 'loss' || !log);
  const least = Math.min(...values);
  const most = Math.max(...values);
  const wide = metric.scale === 'spread' && least > 0 && most / least > 12;
  if ((metric.scale === 'loss' && log) || wide) return logScale(least, most);
  if (metric.scale === 'share') return linearScale(least, most, most > 0.3, most > 0.9 ? 1.02 : 1);
  return linearScale(least, most, metric.scale === 'zero', Infinity);
}

const UNITS = [
  [3 * 3600, 3600, 'h'],
  [180, 60, 'min'],
  [0, 1, 's'],
] as const;

/* What an axis of x is called, and the text of a tick. */
export function axisOf(over: Over, most: number): { name: string; unit: number } {
  if (over === 'steps') return { name: 'step', unit: 1 };
  const [, unit, name] = UNITS.find(([from]) => most >= from)!;
  return { name, unit };
}
