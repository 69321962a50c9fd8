/* What the server answers: the JSON of the debug routes. */

export type Tap = 'before' | 'between' | 'after';

export interface Token {
  id: number;
  text: string;
}
export interface TextToken extends Token {
  continuation: boolean;
  special: boolean;
}
export interface Scored extends Token {
  logit?: number;
  probability?: number;
  rank?: number;
}

export interface Capabilities {
  keyhole: string;
  model: {
    name: string;
    file: string;
    architecture: string;
    quantisation: string;
    identity: string;
    bytes: number;
    parameters: number;
    layers: number;
    heads: number;
    ff_width: number;
    vocabulary: number;
    context: number;
    gated: boolean;
  };
  attn: string;
  ff: string;
  threads: number;
  taps: Tap[];
  inspect: boolean;
  why_not?: string;
  template: boolean;
  routes?: string[];
  example?: { prompt?: string; a?: number; b?: number };
}

export interface Checks {
  checks: { name: string; passed: boolean | null; detail: string }[];
}

/* What people wrote about parts; `from` is the identity of another file of the same model. */
export interface Label {
  part: string;
  text: string;
  time: number; // seconds since 1970
  from?: string;
}
export interface Labels {
  labels: Label[];
}
export interface SavedView {
  name: string;
  query: string; // "?...", of the page's address
  time: number;
}

export interface Text {
  tokens: TextToken[];
  prompt_tokens: number;
}

/* What a text is read under. */
export interface Changes {
  edits: string[];
  control_vectors?: { id: number; scale: number; layers?: [number, number] }[];
}

/* The text that is asked about, and what it is read under. */
export interface Subject extends Partial<Changes> {
  prompt?: string;
  template?: boolean;
  tokens?: number[];
  prompt_tokens?: number;
}

type ByTap<T> = Partial<Record<Tap, T>>;

export interface LensToken {
  type: 'token';
  position: number;
  top_ids: ByTap<number[][]>;
  top_tokens: ByTap<string[][]>;
  top_probs: ByTap<number[][]>;
  bottom_tokens?: ByTap<string[][]>;
  entropy: ByTap<number[]>;
  kl: ByTap<number[]>;
  norm: ByTap<number[]>;
  tracked?: ByTap<{ id: number; logit: number; probability: number; rank: number }[][]>;
  surprise: number | null;
}
export interface LensMeta {
  type: 'meta';
  cost?: { cells: number; rows: number; operations: number; bytes: number };
}
export interface Done {
  type: 'done';
  seconds: number;
  peak_bytes: number;
}
export interface Reading {
  type: 'reading'; // before the first cell of a long text
  read: number;
  of: number;
}
export type LensFrame =
  | LensToken
  | LensMeta
  | Done
  | Reading
  | { type: 'prompt'; tokens: TextToken[] };

export interface Next {
  positions: { position: number; next: Scored[]; entropy: number }[];
}

export interface WhyPart {
  part: string;
  kind: 'head' | 'neuron' | string;
  layer: number;
  index: number;
  value: number;
  coefficient?: number;
  source?: { position: number; id: number; text: string; value: number } | null;
  tokens?: Scored[];
}
export interface Why {
  position: number;
  a: Scored;
  b: Scored | null;
  total: number;
  sum: number;
  leftover: number;
  scale: number;
  embed: number;
  bias: number;
  heads: number;
  neurons: number;
  mlps: number;
  edits: number;
  parts: WhyPart[];
  others: number;
  layers: { layer: number; attention: number; mlp: number }[];
  seconds?: number;
}

export interface Ends {
  top: Scored[];
  bottom: Scored[];
}
export interface Head {
  part: string;
  position: number;
  kept: number | null;
  entropy: number;
  value: number;
  keys: number[];
  weights: number[];
  norms: number[];
  values: number[];
  snippets: {
    position: number;
    weight: number;
    value: number;
    before: string;
    token: string;
    after: string;
  }[];
  writes?: Ends;
}
export interface NeuronHere {
  part: string;
  neuron: number;
  coefficient: number;
  score: number;
  value: number;
  tokens: Scored[];
}
export interface Neurons {
  position: number;
  layers: { layer: number; neurons: NeuronHere[] }[];
}
export interface Neuron {
  part: string;
  layer: number;
  neuron: number;
  value_norm: number;
  gate_norm: number | null;
  up_norm: number;
  value: Ends;
  gate: Ends | null;
  up: Ends;
  here: {
    position: number;
    gate: number;
    up: number;
    activated: number;
    coefficient: number;
    score: number;
    value: number;
    case: string;
  } | null;
  neighbours: { part: string; cosine: number }[];
}

export interface Generated extends Token {
  type: 'base' | 'edited';
  index: number;
  logprob: number;
}
export interface Compared {
  type: 'compared';
  position: number;
  kl: number;
  base_top: Scored;
  edited_top: Scored;
}
export interface EditDone extends Done {
  base: { text: string; tokens: number[] };
  edited: { text: string; tokens: number[] };
  divergence: number | null;
  tokens_per_second: number;
}
export type EditFrame =
  { type: 'meta'; edits: string[]; command: string } | Generated | Compared | EditDone;

export type PatchKind = 'pre' | 'attn_out' | 'mlp_out' | 'heads';
export interface PatchRow {
  type: 'row';
  kind: PatchKind;
  layer: number;
  estimate?: boolean; // to first order, from one backward pass
  values: number[];
  shares: (number | null)[]; // null: both prompts have the same value
}
export interface PatchCost {
  cells: number;
  runs: number;
  rows: number;
  full_rows: number;
  bytes: number;
}
export interface PatchMeta {
  type: 'meta';
  a: Token;
  b: Token | null;
  clean: { tokens: TextToken[]; value: number | null };
  corrupted: { tokens: TextToken[]; value: number | null };
  first: number;
  differing: number;
  cost: PatchCost;
  exact_cost?: PatchCost | null; // of the sweep that is estimated
}
export interface PatchDone {
  type: 'done';
  strongest: { part: string; position: number | null; value: number; share: number }[];
  seconds: number;
}
export type PatchFrame = PatchMeta | PatchRow | PatchDone;

export interface DiffSide {
  file: string;
  attn: string;
  tokens: TextToken[];
}
export interface DiffMeta {
  type: 'meta';
  a: DiffSide;
  b: DiffSide;
  threshold: number;
}
export interface DiffRow {
  type: 'row';
  position: number;
  part: string | null;
  distance: number | null;
  last: number;
  kl: number;
  a_top: Scored;
  b_top: Scored;
}
export interface DiffDone {
  type: 'done';
  first: { position: number; part: string; distance: number } | null;
  mean_kl: number;
  most_kl: number;
  most_position: number;
  parts: { part: string; apart: number; own: number | null }[];
  seconds: number;
}
export type DiffFrame = DiffMeta | DiffRow | DiffDone;

/* A control vector that the server holds; `layers` null: all that it has. */
export interface Vector {
  id: number;
  path: string;
  scale: number;
  layers: [number, number] | null;
}
export interface Learned {
  id: number;
  path: string;
  layers: { layer: number; norm: number; top: Scored[]; bottom: Scored[] }[];
}

export interface Hit {
  part: string;
  end: 'top' | 'bottom';
  logit: number;
  cosine: number;
  rank?: number;
  tokens?: Scored[];
}
export interface Found {
  hits: Hit[];
  seconds: number;
}
/* The table of top tokens that a search by text looks in. */
export interface Table {
  layers: number;
  ready: number;
  neurons: number;
  tokens: number;
}
export interface TableFrame extends Table {
  type: 'cost' | 'layer' | 'done';
  missing: number; // neurons
  bytes: number;
  seconds: number | null;
}
export interface Worded {
  table: Table;
  labels: { part: string; text: string; score: number; from?: string }[];
  hits: { part: string; end: 'top' | 'bottom'; score: number; tokens: Scored[] }[];
  seconds: number;
}

export interface Cluster {
  size: number;
  cosine: number;
  top: Scored[];
  bottom: Scored[];
  members: { part: string; cosine: number }[];
}
export interface ClusterRound {
  type: 'round';
  round: number;
  moved: number;
  cosine: number;
}
export interface ClustersDone {
  type: 'done';
  clusters: Cluster[];
  neurons: number;
  rounds: number;
  settled: boolean;
  cosine: number;
  seconds: number;
}
export type ClustersFrame = ClusterRound | ClustersDone;

export type Score = 'induction' | 'previous' | 'duplicate' | 'sink' | 'entropy';
export interface FoundHeads {
  by: Score;
  tokens: number;
  heads: { part: string; scores: Record<Score, number> }[];
}
