/* From what the program embedded to what the page draws.
 *
 *   {folder, config, train: {step: [...], loss: [...], ...}, eval, last, last_eval, best}  ->  Run
 *
 * A run is named by the options that it does not share with the others; where these are none or too many,
 * or two runs have the same, by its folder. What says where files go and how often something is told is no
 * difference between runs. */
import { plain } from '../common/units';

export type Config = Record<string, unknown>;
export type Line = Record<string, number | null | undefined>;

export interface Columns {
  lines: number; // in metrics.jsonl
  each: number; // lines that became one point
  values: (name: string) => (number | null)[]; // empty where nobody wrote the column
}

export interface Run {
  index: number;
  group: number; // of those that differ by the seed: their colour
  place: number; // in the group: dashes and symbol
  team: string; // the name without the seed
  folder: string;
  label: string;
  config: Config;
  train: Columns;
  evals: Columns;
  last: Line; // as they were written
  lastEval: Line | null;
  best: Line | null; // of the lowest held-out loss
}

export interface Report {
  version?: string;
  commit?: string;
  command?: string;
  runs: Run[];
}

type Record_ = Record<string, unknown>;
const object = (value: unknown): Record_ =>
  typeof value === 'object' && value !== null ? (value as Record_) : {};
export const number = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;

export const whole = (value: number): string => Math.round(value).toLocaleString('en');

function columnsOf(value: unknown): Columns {
  const given = object(value);
  const columns = new Map<string, (number | null)[]>();
  for (const [name, list] of Object.entries(given))
    if (Array.isArray(list)) columns.set(name, list.map(number));
  return {
    lines: number(given.lines) ?? 0,
    each: number(given.each) ?? 1,
    values: (name) => columns.get(name) ?? [],
  };
}

function runOf(value: unknown, index: number): Run {
  const given = object(value);
  const line = (name: string) => (given[name] ? (object(given[name]) as Line) : null);
  return {
    index,
    group: index,
    place: 0,
    team: '',
    folder: String(given.folder ?? ''),
    label: '',
    config: object(given.config),
    train: columnsOf(given.train),
    evals: columnsOf(given.eval),
    last: line('last') ?? {},
    lastEval: line('last_eval'),
    best: line('best'),
  };
}

/* ---- names ---- */

const UNSAID = new Set(
  ['output', 'save', 'report', 'resume', 'keep', 'json', 'quiet', 'verbose', 'type'].concat([
    'save-every',
    'log-every',
    'eval-every',
    'eval-batches',
    'threads',
  ])
);
const USUAL: Config = { attn: 'full', ff: 'dense' };
/* What is read first. */
const ORDER = [
  'arch',
  'model',
  'task',
  'data',
  'attn',
  'ff',
  'length',
  'lr',
  'optimizer',
  'schedule',
];
const MOST_IN_NAME = 3;
const LONGEST_NAME = 48;

const place = (name: string): number =>
  (ORDER.indexOf(name) + ORDER.length + 1) % (ORDER.length + 1);

/* The value of an option as it would be typed; null where it was not given. */
export function optionOf(config: Config, name: string): string | null {
  const value = config[name] ?? USUAL[name];
  if (value === undefined || value === null) return null;
  if (typeof value === 'number') return plain(value, 6);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return Array.isArray(value) ? value.join(' ') : String(value);
}

export function optionsOf(runs: Run[]): string[] {
  const names = new Set(runs.flatMap((run) => Object.keys(run.config)));
  return [...names].filter((name) => !UNSAID.has(name)).sort((a, b) => place(a) - place(b));
}

export const isShared = (runs: Run[], name: string): boolean =>
  new Set(runs.map((run) => optionOf(run.config, name))).size === 1;

const lastOf = (folder: string): string => folder.replace(/\/+$/, '').split('/').pop() || folder;

/* Runs with the same options but for the seed, in the order of the first of each. */
function groupRuns(runs: Run[], names: string[]): void {
  const groups = new Map<string, Run[]>();
  for (const run of runs) {
    const key = JSON.stringify(names.map((name) => optionOf(run.config, name)));
    const group = groups.get(key) ?? [];
    run.group = [...groups.keys(), key].indexOf(key);
    run.place = group.length;
    groups.set(key, [...group, run]);
  }
}

function nameRuns(runs: Run[]): void {
  const differ = optionsOf(runs).filter((name) => !isShared(runs, name));
  const settings = differ.filter((name) => name !== 'seed');
  const say = (run: Run, names: string[]) =>
    names
      .map((name) => [name, optionOf(run.config, name)] as const)
      .map(([name, value]) => (value === null ? `no ${name}` : `${name} ${value}`))
      .join(', ');
  const own = (run: Run) => say(run, differ);
  if (differ.includes('seed') && settings.length) groupRuns(runs, settings);
  const short = runs.every((run) => own(run).length <= LONGEST_NAME);
  for (const run of runs) run.team = say(run, settings);
  for (const run of runs)
    run.label =
      differ.length && differ.length <= MOST_IN_NAME && short ? own(run) : lastOf(run.folder);
  const times = (label: string) => runs.filter((run) => run.label === label).length;
  const twice = runs.filter((run) => times(run.label) > 1);
  const folders = new Set(twice.map((run) => lastOf(run.folder)));
  for (const run of twice) {
    const folder = folders.size === twice.length ? lastOf(run.folder) : run.folder;
    run.label = run.label === lastOf(run.folder) ? folder : `${run.label} (${folder})`;
  }
}

export function readReport(value: unknown): Report | null {
  const { runs, ...rest } = object(value);
  if (!Array.isArray(runs)) return null;
  const report = { ...(rest as Partial<Report>), runs: runs.map(runOf) };
  nameRuns(report.runs);
  return report;
}

/* ---- what a run came to ---- */

const lastNumber = (values: (number | null)[]): number | null =>
  values.reduce((last, value) => value ?? last, null);

export interface Outcome {
  step: number;
  planned: number | null;
  reached: boolean; // --stop-at
  seconds: number | null;
  rate: number | null; // tokens a second, of the whole run
  bytes: number | null;
}

export function outcomeOf(run: Run): Outcome {
  const seconds = lastNumber(run.train.values('seconds'));
  const tokens = lastNumber(run.train.values('tokens'));
  const wanted = number(run.config['stop-at']) ?? 0;
  const bytes = run.train.values('peak_bytes').filter((value) => value !== null);
  return {
    step: number(run.last.step) ?? number(run.lastEval?.step) ?? 0,
    planned: number(run.config.steps),
    reached: wanted > 0 && (number(run.last.accuracy) ?? 0) >= wanted,
    seconds,
    rate: seconds && tokens ? tokens / seconds : null,
    bytes: bytes.length ? Math.max(...bytes) : null,
  };
}
