/* Directions by name, so that an address can bring them back: a token, or a token less another, is its own recipe. */
import { typed } from './names';

export interface Steering {
  name: string;
  scale: number;
  layers: [number, number] | null; // null: all that it has
}
export type Recipe =
  { name: string; from: string; minus?: string } | { name: string; pairs: string[][] };

export const steeringName = (from: string, minus: string): string =>
  minus ? `${from} − ${minus}` : from;

/* null where the name does not tell how the direction was made. */
export function recipeOf(name: string): Recipe | null {
  const [from, minus, more] = name.split(' − ');
  if (!from || more !== undefined || /^texts |\.gguf$/.test(name)) return null;
  return { name, from: typed(from), ...(minus ? { minus: typed(minus) } : {}) };
}

/* ·Paris − ·Rome*30@8-20 */
export const steeringText = ({ name, scale, layers }: Steering): string =>
  `${name}*${scale}${layers ? `@${layers.join('-')}` : ''}`;
export function readSteering(text: string): Steering[] {
  const found = /^(.+)\*(-?[\d.]+)(?:@(\d+)-(\d+))?$/.exec(text);
  if (!found) return [];
  const layers: [number, number] | null = found[3] ? [Number(found[3]), Number(found[4])] : null;
  return [{ name: found[1]!, scale: Number(found[2]), layers }];
}
