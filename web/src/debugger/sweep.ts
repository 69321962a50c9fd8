/* Patching: what of a clean prompt, written into a corrupted one, makes it answer like the clean one. Each map is asked
 * for when it is looked at. */
import { frames, sentence } from './api';
import type { PatchFrame } from './contract';
import type { Session } from './session';
import type { MapKind, Patched } from './state';

const EMPTY: Patched = { meta: null, maps: {}, done: null };
const AT_ONCE = 4000; // rows that are read without asking

function bodyOf(session: Session, kinds: MapKind[]) {
  const { clean, corrupted, estimate } = session.state.view;
  const prompts = { clean, corrupted };
  if (kinds[0] === 'paths') return { ...prompts, kinds: ['heads'], to: 'logits' };
  return { ...prompts, kinds, attribution: estimate || undefined };
}

function grown(kind: MapKind | null) {
  return (data: Patched, frame: PatchFrame): Patched => {
    if (frame.type === 'meta') return { ...data, meta: data.meta ?? frame };
    if (frame.type === 'done') return kind === 'paths' ? data : { ...data, done: frame };
    const name = kind ?? frame.kind;
    const rows = [...(data.maps[name] ?? [])];
    rows[frame.layer] = frame;
    return { ...data, maps: { ...data.maps, [name]: rows } };
  };
}

const BOTH: MapKind[] = ['pre', 'heads']; // that the view begins with

export async function runPatch(session: Session, kinds = BOTH, data = EMPTY): Promise<void> {
  session.store.set({ spot: null });
  await session.gather('patch', 'v1/patch', bodyOf(session, kinds), data, grown(null));
}

/* Estimates in place of runs, or the reverse, of the maps that are there. Paths are runs either way. */
export function setEstimate(session: Session, estimate: boolean): void {
  const { paths, ...maps } = session.state.patch.data?.maps ?? {};
  const kinds = Object.keys(maps) as MapKind[];
  session.show({ estimate });
  void runPatch(session, kinds.length ? kinds : BOTH, { ...EMPTY, maps: paths ? { paths } : {} });
}

/* One more map. */
export function loadMap(session: Session, kind: MapKind): void {
  const { data, busy } = session.state.patch;
  if (!data?.meta || data.maps[kind] || busy) return;
  void session.gather('patch', 'v1/patch', bodyOf(session, [kind]), data, grown(kind));
}

/* The view comes with its maps where these are cheap. */
export async function openPatch(session: Session): Promise<void> {
  const { patch, capabilities } = session.state;
  if (patch.data || patch.busy || patch.error) return;
  if (!capabilities?.routes?.includes('/v1/patch')) return;
  const stop = new AbortController();
  try {
    const body = { ...bodyOf(session, BOTH), cost_only: true };
    let rows = 0;
    for await (const frame of frames<PatchFrame>('v1/patch', body, stop.signal))
      if (frame.type === 'meta') rows = frame.cost.rows;
    if (rows <= AT_ONCE) await runPatch(session);
  } catch (error) {
    session.store.set({ patch: { data: null, busy: false, error: sentence(error) } });
  }
}
