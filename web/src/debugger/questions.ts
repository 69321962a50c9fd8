/* Questions to the server and where their answers are kept: of each kind at most one is on its way, and a new one
 * gives up the one before. */
import { ask, frames, sentence } from './api';
import { START, type Answer, type State } from './state';
import { Store } from './store';

/* What the state has an Answer of. */
export type Kept = {
  [K in keyof State]: State[K] extends Answer<unknown> ? K : never;
}[keyof State];
type Kind = Kept | 'text' | 'next';
export type DataOf<K extends Kept> = NonNullable<State[K]['data']>;

const UNKEPT: Kind[] = ['preview', 'views']; // no part of a view that is saved as a file
const LIGHT: Kind[] = ['checks', 'labels', 'views']; // beside which the checks may go on
const UNTIMED: Kind[] = ['preview', 'checks', 'vectors', 'finder', 'labels', 'views'];

export class Questions {
  store = new Store<State>(START);
  private jobs = new Map<Kind, AbortController>();

  get state(): State {
    return this.store.state;
  }

  protected begin(kind: Kind): AbortSignal {
    if (!LIGHT.includes(kind)) this.end('checks'); // nobody waits for them
    this.jobs.get(kind)?.abort();
    const stop = new AbortController();
    this.jobs.set(kind, stop);
    return stop.signal;
  }

  end(...kinds: Kind[]): void {
    for (const kind of kinds) this.jobs.get(kind)?.abort();
  }

  private put<K extends Kept>(kind: K, some: Partial<Answer<DataOf<K>>>): void {
    this.store.set({ [kind]: { ...this.state[kind], ...some } } as Partial<State>);
  }

  /* Nobody waits any more, unless the question was put again or is about to be. */
  private gaveUp(kind: Kept, signal: AbortSignal): void {
    if (kind !== 'why' && this.jobs.get(kind)?.signal === signal) this.put(kind, { busy: false });
  }

  /* Asks and keeps the answer under `kind`; an older answer stays in sight meanwhile. A body may have to be asked for. */
  async fill<K extends Kept>(
    kind: K,
    path: string,
    given: unknown | ((signal: AbortSignal) => Promise<unknown>)
  ): Promise<void> {
    const signal = this.begin(kind);
    this.put(kind, { busy: true, error: null });
    const start = performance.now();
    try {
      const body = typeof given === 'function' ? await given(signal) : given;
      const data = await ask<DataOf<K>>(path, body, signal, !UNKEPT.includes(kind));
      if (signal.aborted) return this.gaveUp(kind, signal);
      this.put(kind, { data, busy: false });
      if (!UNTIMED.includes(kind)) this.note(kind, (performance.now() - start) / 1000);
    } catch (error) {
      if (signal.aborted) this.gaveUp(kind, signal);
      else this.put(kind, { data: null, busy: false, error: sentence(error) });
    }
  }

  /* The same of an answer in frames: `data` grows with each of them. */
  async gather<K extends Kept, F>(
    kind: K,
    path: string,
    body: unknown,
    data: DataOf<K>,
    grown: (data: DataOf<K>, frame: F) => DataOf<K>
  ): Promise<void> {
    const signal = this.begin(kind);
    this.put(kind, { data, busy: true, error: null });
    const start = performance.now();
    try {
      for await (const frame of frames<F>(path, body, signal)) {
        if (signal.aborted) return this.gaveUp(kind, signal);
        this.put(kind, { data: grown(this.state[kind].data as DataOf<K>, frame) });
      }
      this.put(kind, { busy: false });
      this.note(kind, (performance.now() - start) / 1000);
    } catch (error) {
      if (signal.aborted) this.gaveUp(kind, signal);
      else this.put(kind, { busy: false, error: sentence(error) });
    }
  }

  protected note(name: string, seconds: number, peak?: number): void {
    this.store.set({
      last: { name, seconds },
      peak: Math.max(peak ?? 0, this.state.peak ?? 0) || null,
    });
  }
}
