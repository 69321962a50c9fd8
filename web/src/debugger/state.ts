/* What the page knows, in one place. */
import type {
  Capabilities,
  Checks,
  ClusterRound,
  ClustersDone,
  Compared,
  DiffDone,
  DiffMeta,
  DiffRow,
  EditDone,
  Generated,
  Found,
  FoundHeads,
  Head,
  Labels,
  Learned,
  LensToken,
  Neuron,
  Neurons,
  PatchDone,
  PatchKind,
  PatchMeta,
  PatchRow,
  Reading,
  SavedView,
  TableFrame,
  Text,
  TextToken,
  Vector,
  Why,
  Worded,
} from './contract';
import { FRESH, type View } from './view';

/* Of a question: what came last, whether another is on its way, and the sentence where it was refused. */
export interface Answer<T> {
  data: T | null;
  busy: boolean;
  error: string | null;
}
export const NONE: Answer<never> = { data: null, busy: false, error: null };

export interface Run {
  base: Generated[];
  edited: Generated[];
  compared: Compared[];
  command: string | null;
  done: EditDone | null;
}
export const NO_RUN: Run = { base: [], edited: [], compared: [], command: null, done: null };

/* Maps of patching so far; `paths` is straight to the logits. */
export type MapKind = PatchKind | 'paths';
export interface Patched {
  meta: PatchMeta | null;
  maps: Partial<Record<MapKind, PatchRow[]>>; // by layer
  done: PatchDone | null;
}
export interface Apart {
  meta: DiffMeta | null;
  rows: DiffRow[];
  done: DiffDone | null;
}

export interface Clustered {
  round: ClusterRound | null; // the latest
  done: ClustersDone | null;
}

export interface State {
  capabilities: Capabilities | null;
  view: View;
  draft: string; // what stands in the prompt box
  preview: Answer<Text>; // its tokens
  text: TextToken[]; // prompt and output that the grid shows
  prompt: number; // how many of them are the prompt
  reading: Reading | null; // how far a long text is, until its first column comes
  read: number; // counts columns as they come: what shows them is drawn again
  lensError: string | null;
  column: Answer<LensToken>; // all taps of the selected position, with A and B tracked
  why: Answer<Why>;
  head: Answer<Head>;
  neuron: Answer<Neuron>;
  run: Answer<Run>;
  heads: Answer<Why>; // of the view of all heads
  neurons: Answer<Neurons>;
  checks: Answer<Checks>;
  patch: Answer<Patched>;
  spot: { kind: MapKind; layer: number; column: number } | null; // of the maps
  diff: Answer<Apart>;
  search: Answer<Found>;
  worded: Answer<Worded>; // by text
  table: Answer<TableFrame>; // what that looks in
  clustered: Answer<Clustered>;
  finder: Answer<FoundHeads>; // of the view of all heads, by what they do
  vectors: Answer<Vector[]>; // of the server
  learned: Answer<Learned>; // the latest
  labels: Answer<Labels>;
  views: Answer<{ views: SavedView[] }>; // that were saved
  undo: string[][]; // edits as they were
  last: { name: string; seconds: number } | null;
  rate: number | null; // tokens a second
  peak: number | null; // bytes
  error: string | null;
  keys: boolean; // the list of keys is open
  shelf: boolean; // and that of saved views and labels
}

export const START: State = {
  capabilities: null,
  view: FRESH,
  draft: '',
  preview: NONE,
  text: [],
  prompt: 0,
  reading: null,
  read: 0,
  lensError: null,
  column: NONE,
  why: NONE,
  head: NONE,
  neuron: NONE,
  run: NONE,
  heads: NONE,
  neurons: NONE,
  checks: NONE,
  patch: NONE,
  spot: null,
  diff: NONE,
  search: NONE,
  worded: NONE,
  table: NONE,
  clustered: NONE,
  finder: NONE,
  vectors: NONE,
  learned: NONE,
  labels: NONE,
  views: NONE,
  undo: [],
  last: null,
  rate: null,
  peak: null,
  error: null,
  keys: false,
  shelf: false,
};

/* Where the view looks, within the text there is. */
export const positionOf = ({ view, text, prompt }: State): number =>
  Math.max(0, Math.min(view.position ?? prompt - 1, text.length - 1));
export const layerOf = ({ view, capabilities }: State): number => {
  const last = (capabilities?.model.layers ?? 1) - 1;
  return Math.min(view.layer ?? last, last);
};

/* The part whose card is open: the chosen one, else the strongest head. */
export const partOfView = ({ view, why }: State): string | null =>
  view.part ??
  why.data?.parts.find((part) => part.kind === 'head')?.part ??
  why.data?.parts[0]?.part ??
  null;
