/* Numbers as a reader says them: 16k keys, 3.42 ms, 1.2 GB, 6.5x. */

const TIMES = [
  [1, 's'],
  [1e-3, 'ms'],
  [1e-6, 'µs'],
  [1e-9, 'ns'],
] as const;
const BYTES = [
  [1e12, 'TB'],
  [1e9, 'GB'],
  [1e6, 'MB'],
  [1e3, 'kB'],
  [1, 'B'],
] as const;

/* Three significant digits, never an exponent. */
function digits(value: number): string {
  const rounded = Number(value.toPrecision(3));
  return rounded >= 1000 ? rounded.toLocaleString('en') : value.toPrecision(3);
}

type Units = readonly (readonly [number, string])[];

function scaled(value: number, units: Units, say: (value: number) => string): string {
  const last = units[units.length - 1]!;
  const [size, name] = units.find(([size]) => value >= size * 0.9995) ?? last;
  return `${value === 0 ? 0 : say(value / size)}\u00a0${name}`;
}

export const time = (seconds: number): string => scaled(seconds, TIMES, digits);
export const bytes = (count: number): string => scaled(count, BYTES, count < 1e3 ? String : digits);
/* The same for ticks: 1 s, not 1.00 s. */
const short = (value: number): string => String(Number(value.toPrecision(3)));
export const timeTick = (seconds: number): string => scaled(seconds, TIMES, short);
export const bytesTick = (count: number): string => scaled(count, BYTES, short);

/* 2048 is 2k, as in the names of context lengths; 8000 stays 8,000. */
export function length(L: number): string {
  if (L >= 1 << 20 && L % (1 << 20) === 0) return `${L >> 20}M`;
  if (L >= 1024 && L % 1024 === 0) return `${L >> 10}k`;
  return L.toLocaleString('en');
}

/* How often the one goes into the other: two digits below ten, else whole. */
export function factor(value: number): string {
  if (value >= 9.95) return Math.round(value).toLocaleString('en');
  return Number(value.toPrecision(2)).toFixed(value >= 0.995 ? 1 : 2);
}
export const ratio = (value: number): string => `${factor(value)}×`;

/* Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them where these are few. */
export function logTicks(least: number, most: number): number[] {
  const first = Math.floor(Math.log10(least));
  const last = Math.ceil(Math.log10(most));
  let ticks: number[] = [];
  for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]]) {
    ticks = [];
    for (let power = first; power <= last; power++)
      for (const step of steps) ticks.push(Number(`${step}e${power}`));
    ticks = ticks.filter((tick) => tick >= least && tick <= most);
    if (ticks.length >= 4) break;
  }
  return ticks;
}

/* A length of time that a person waits: 12.3 s, 4 min 05 s, 2 h 10 min. */
export function duration(seconds: number): string {
  if (seconds < 59.95) return time(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes}\u00a0min ${two(Math.round(seconds) % 60)}\u00a0s`;
  return `${Math.floor(minutes / 60)}\u00a0h ${two(minutes % 60)}\u00a0min`;
}

/* A number without a unit, of `most` significant digits: 4.252, 12,480, 0.0005, 2e-5. */
export function plain(value: number, most = 4): string {
  if (value === 0) return '0';
  const rounded = Number(value.toPrecision(most));
  const size = Math.abs(rounded);
  if (size < 1e-4 || size >= 1e9) return rounded.toExponential().replace('e+', 'e');
  return rounded.toLocaleString('en', { maximumSignificantDigits: most });
}
/* Always with as many digits, for columns of numbers: 4.250. */
export const figures = (value: number, most = 4): string =>
  Math.abs(value) >= 1e-3 && Math.abs(value) < 10 ** most
    ? value.toPrecision(most)
    : plain(value, most);
export const percent = (share: number): string => `${(100 * share).toFixed(1)}\u00a0%`;
export const percentTick = (share: number): string => `${plain(100 * share, 3)}\u00a0%`;

/* Round values of a linear axis, about as many as asked for. */
export function linearTicks(least: number, most: number, wanted: number): number[] {
  const rough = (most - least) / Math.max(1, wanted);
  if (!(rough > 0)) return [least];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const first = Math.ceil(least / step - 1e-9);
  const last = Math.floor(most / step + 1e-9);
  const exact = (n: number) => Number((n * step).toPrecision(12));
  return Array.from({ length: last - first + 1 }, (_, i) => exact(first + i));
}
