/* The whole view as the query of the address. Long texts stand behind the # instead, which no server sees and
 * no server has to allow. LM-Debugger's ?L=12&D=34 opens the card of that neuron. */
import type { Score, Tap } from './contract';
import { readSteering, steeringText, type Steering } from './directions';
import { nameOf, parsePart } from './names';

export const SCREENS = ['grid', 'heads', 'neurons', 'search', 'patch', 'steer', 'diff'] as const;
export type Screen = (typeof SCREENS)[number];
export const SCORES = ['induction', 'previous', 'duplicate', 'sink', 'entropy'] as const;
/* What a view asks: it is there where the server has any of them. */
export const ROUTES: Partial<Record<Screen, string[]>> = {
  search: ['/v1/search', '/v1/search/text', '/v1/clusters'],
  patch: ['/v1/patch'],
  steer: ['/v1/steer/vector'],
  diff: ['/v1/diff'],
};
export const AMONG = ['neurons', 'heads', 'text', 'clusters'] as const;
export type Theme = 'auto' | 'light' | 'dark';
export type Reading = 'base' | 'edited';

export interface View {
  prompt: string;
  template: boolean;
  tokens: number[] | null; // of a branched text, which then counts instead of the prompt
  seed: number;
  temperature: number;
  most: number; // tokens that are generated
  position: number | null; // null: the prompt's last
  layer: number | null; // null: the last
  tap: Tap;
  a: number | string | null; // null: the best, the second best
  b: number | string | null;
  pinned: boolean; // A and B stay when the position changes
  edits: string[];
  reading: Reading;
  part: string | null; // null: the strongest head
  panel: 'part' | 'cell';
  screen: Screen;
  by: 'score' | 'value'; // order of neurons
  doing: 'here' | Score; // what the view of all heads colours
  words: string; // that are searched for
  order: 'logit' | 'cosine' | 'rank';
  among: (typeof AMONG)[number];
  groups: number; // clusters of value vectors
  steer: Steering[];
  clean: string; // the two prompts of patching
  corrupted: string;
  estimate: boolean; // maps of patching from one backward pass
  other: string; // what the text is held against: another prompt, or a setting of attention
  against: 'attn' | 'prompt';
  theme: Theme;
}

export const FRESH: View = {
  prompt: '',
  template: false,
  tokens: null,
  seed: 1,
  temperature: 0,
  most: 20,
  position: null,
  layer: null,
  tap: 'after',
  a: null,
  b: null,
  pinned: false,
  edits: [],
  reading: 'base',
  part: null,
  panel: 'part',
  screen: 'grid',
  by: 'score',
  doing: 'here',
  words: 'Paris',
  order: 'logit',
  among: 'neurons',
  groups: 200,
  steer: [],
  clean: 'The capital of France is',
  corrupted: 'The capital of Italy is',
  estimate: false,
  other: 'topk:k=4',
  against: 'attn',
  theme: 'auto',
};

const LONG = 1500; // characters that a query may have

function oneOf<T extends string>(given: string | null, allowed: readonly T[], otherwise: T): T {
  return allowed.find((one) => one === given) ?? otherwise;
}

function number(given: string | null, otherwise: number, least = 0): number {
  const value = given === null || given === '' ? NaN : Number(given);
  return Number.isFinite(value) && value >= least ? value : otherwise;
}

function whole(given: string | null): number | null {
  return given !== null && /^\d+$/.test(given) ? Number(given) : null;
}

/* An id, or a text in quotes. */
function token(given: string | null): number | string | null {
  if (given === null || given === '') return null;
  return whole(given) ?? given.replace(/^"(.*)"$/s, '$1');
}

/* null where the address says nothing of a text: the example is shown then. */
export function readView(search: string, hash: string): { view: View; empty: boolean } {
  const query = new URLSearchParams(search);
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, '')))
    if (!query.has(name)) query.append(name, value);
  const tokens = (query.get('tokens') ?? '').split(',').flatMap((one) => whole(one) ?? []);
  const [L, D] = [whole(query.get('L')), whole(query.get('D'))];
  const named = parsePart(query.get('part') ?? '');
  const part =
    L !== null && D !== null
      ? nameOf({ kind: 'neuron', layer: L, index: D })
      : named && nameOf(named);
  const view: View = {
    prompt: query.get('prompt') ?? '',
    template: query.get('template') === '1',
    tokens: tokens.length ? tokens : null,
    seed: Math.floor(number(query.get('seed'), FRESH.seed)),
    temperature: number(query.get('temperature'), FRESH.temperature),
    most: Math.floor(number(query.get('most'), FRESH.most, 1)),
    position: whole(query.get('position')),
    layer: whole(query.get('layer')),
    tap: oneOf(query.get('tap'), ['before', 'between', 'after'], 'after'),
    a: token(query.get('a')),
    b: token(query.get('b')),
    pinned: query.get('pinned') === '1',
    edits: query.getAll('edit').filter((edit) => edit.includes(':')),
    reading: oneOf(query.get('reading'), ['base', 'edited'], 'base'),
    part,
    panel: oneOf(query.get('panel'), ['part', 'cell'], 'part'),
    screen: oneOf(query.get('view'), SCREENS, 'grid'),
    by: oneOf(query.get('by'), ['score', 'value'], 'score'),
    doing: oneOf(query.get('doing'), ['here', ...SCORES], 'here'),
    words: query.get('words') ?? FRESH.words,
    order: oneOf(query.get('order'), ['logit', 'cosine', 'rank'], 'logit'),
    among: oneOf(query.get('among'), AMONG, 'neurons'),
    groups: Math.floor(number(query.get('groups'), FRESH.groups, 1)),
    steer: query.getAll('steer').flatMap(readSteering),
    clean: query.get('clean') ?? FRESH.clean,
    corrupted: query.get('corrupted') ?? FRESH.corrupted,
    estimate: query.get('estimate') === '1',
    other: query.get('other') ?? FRESH.other,
    against: oneOf(query.get('against'), ['attn', 'prompt'], 'attn'),
    theme: oneOf(query.get('theme'), ['auto', 'light', 'dark'], 'auto'),
  };
  return { view, empty: !view.prompt && !view.tokens };
}

/* "?..." and "#..." of the view; what is as usual is left out. */
export function addressOf(view: View): string {
  const query = new URLSearchParams();
  const hash = new URLSearchParams();
  const put = (name: string, value: string | number | null, usual: unknown = null) => {
    if (value === null || value === usual) return;
    (String(value).length > LONG ? hash : query).append(name, String(value));
  };
  const token = (given: number | string | null) =>
    typeof given === 'string' ? `"${given}"` : given;
  put('prompt', view.prompt, '');
  put('template', view.template ? 1 : null);
  put('tokens', view.tokens?.join(',') ?? null);
  put('seed', view.seed, FRESH.seed);
  put('temperature', view.temperature, FRESH.temperature);
  put('most', view.most, FRESH.most);
  put('position', view.position);
  put('layer', view.layer);
  put('tap', view.tap, FRESH.tap);
  put('a', token(view.a));
  put('b', token(view.b));
  put('pinned', view.pinned ? 1 : null);
  for (const edit of view.edits) put('edit', edit);
  put('reading', view.reading, FRESH.reading);
  put('part', view.part);
  put('panel', view.panel, FRESH.panel);
  put('view', view.screen, FRESH.screen);
  put('by', view.by, FRESH.by);
  put('doing', view.doing, FRESH.doing);
  put('words', view.words, FRESH.words);
  put('order', view.order, FRESH.order);
  put('among', view.among, FRESH.among);
  put('groups', view.groups, FRESH.groups);
  for (const one of view.steer) put('steer', steeringText(one));
  put('clean', view.clean, FRESH.clean);
  put('corrupted', view.corrupted, FRESH.corrupted);
  put('estimate', view.estimate ? 1 : null);
  put('other', view.other, FRESH.other);
  put('against', view.against, FRESH.against);
  put('theme', view.theme, FRESH.theme);
  const [before, behind] = [query.toString(), hash.toString()];
  return `${before ? `?${before}` : ''}${behind ? `#${behind}` : ''}`;
}
