/* A view that was saved as a file answers itself. While a page asks, what it hears is kept here; saving puts that into the
 * file, in <script type="application/json" id="saved">, and the page of that file asks nobody. */
import type { Column } from './lens';
import type { Tap, TextToken } from './contract';

export interface Cells {
  columns: Partial<Record<Tap, (Column | null | undefined)[]>>;
  surprise: (number | null | undefined)[];
}
export interface Saved extends Cells {
  address: string; // "?...#..." of the view
  day: string;
  text: TextToken[];
  answers: [string, string][];
}

function read(): Saved | null {
  const text = document.getElementById('saved')?.textContent;
  return text ? (JSON.parse(text) as Saved) : null;
}
export const saved = read();

const heard = new Map<string, string>(saved?.answers);

/* What decides about an answer. What stands behind the position that is asked about does not. */
function keyOf(path: string, body: unknown): string {
  if (typeof body !== 'object' || body === null) return path;
  const { tokens, position, first, count } = body as Record<string, unknown>;
  const at = position ?? (count === 1 ? first : undefined);
  const before = Array.isArray(tokens) && typeof at === 'number' ? tokens.slice(0, at + 1) : tokens;
  return `${path} ${JSON.stringify({ ...body, tokens: before })}`;
}

export const keep = (path: string, body: unknown, answer: string): void =>
  void heard.set(keyOf(path, body), answer);
export const recall = (path: string, body: unknown): string | undefined =>
  heard.get(keyOf(path, body));

/* Another text: what was said about the one before is of no use to a file. */
const OF_TEXT =
  /^v1\/(text .*"(template|tokens)":|(lens\/prompt|next|why|head|neurons?|edit|diff) )/;
export function forget(): void {
  if (!saved) for (const key of [...heard.keys()]) if (OF_TEXT.test(key)) heard.delete(key);
}
export const answers = (): [string, string][] => [...heard];

/* False where a saved page would have to ask. */
export const answerable = (path: string, body: unknown): boolean =>
  !saved || recall(path, body) !== undefined;
export const holds = (paths: string[]): boolean =>
  [...heard.keys()].some((key) => paths.some((path) => `/${key}`.startsWith(`${path} `)));
export const UNSAVED = 'This needs the model; the file has the view as it was saved';
/* Of a control that needs the model. */
export const asking = (title?: string, disabled = false) =>
  saved ? { disabled: true, title: UNSAVED } : { disabled, title };
