/* Numbers of the debugger as a reader says them, always with their unit. */
import { percent, plain } from '../common/units';

const SPACE = '\u00a0';

export const share = (probability: number): string =>
  probability > 0 && probability < 0.0005 ? `<0.1${SPACE}%` : percent(probability);
export const nats = (value: number): string => `${value.toFixed(2)}${SPACE}nats`;
export const logits = (value: number): string => `${signed(value)}${SPACE}logits`;

/* +1.25, −0.80 */
export function signed(value: number, digits = 2): string {
  const size = Math.abs(value).toFixed(digits);
  if (Number(size) === 0) return size;
  return `${value < 0 ? '−' : '+'}${size}`;
}
/* Of a sum that should be nothing: 3.1e-5 */
export const tiny = (value: number): string => (value < 0 ? '−' : '') + plain(Math.abs(value), 2);

/* "(↑12)": how a rank moved. */
export function moved(from: number | undefined, to: number | undefined): string {
  if (from === undefined || to === undefined || from === to) return '';
  return ` (${to < from ? '↑' : '↓'}${Math.abs(from - to).toLocaleString('en')})`;
}
export const count = (n: number, one: string, more = `${one}s`): string =>
  `${n.toLocaleString('en')} ${n === 1 ? one : more}`;
