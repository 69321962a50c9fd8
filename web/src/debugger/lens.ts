/* The columns of the grid that have been read so far, and the question for those that are seen. One question at a time,
 * for windows of 32 aligned positions, which the server reads at once anyway; a question whose columns went out of sight
 * is given up. */
import { frames, sentence } from './api';
import { saved, type Cells } from './replay';
import type { Changes, Done, LensFrame, LensToken, Reading, Subject, Tap, TextToken } from './contract';

export const WINDOW = 32;
const TOP = 5;

export interface Column {
  ids: number[][]; // [layer][top]
  texts: string[][];
  shares: number[][];
  entropy: number[];
  kl: number[];
  norm: number[];
}

interface Events {
  changed: () => void; // a column or surprise came
  failed: (sentence: string) => void;
  text: (tokens: TextToken[]) => void;
  reading: (frame: Reading | null) => void; // how far a long text is; null: it is read
  asks: () => void;
  done: (frame: Done) => void;
}

function columnOf(frame: LensToken, tap: Tap): Column {
  return {
    ids: frame.top_ids[tap] ?? [],
    texts: frame.top_tokens[tap] ?? [],
    shares: frame.top_probs[tap] ?? [],
    entropy: frame.entropy[tap] ?? [],
    kl: frame.kl[tap] ?? [],
    norm: frame.norm[tap] ?? [],
  };
}

export class Lens {
  private columns: Partial<Record<Tap, (Column | undefined)[]>> = {};
  surprise: (number | null | undefined)[] = [];
  private ids: number[] = [];
  private prompt = 0;
  private changes: Changes = { edits: [] };
  private running: { first: number; end: number; tap: Tap; stop: AbortController } | null = null;
  private seen: { first: number; end: number; tap: Tap } = { first: 0, end: 0, tap: 'after' };
  private stuck = false; // a question failed: none is asked until the text changes

  constructor(private events: Events) {}

  /* The text to read. Columns of a beginning that stays the same stay. */
  read(ids: number[], prompt: number, changes: Changes): void {
    if (saved) return this.restore(ids);
    const same =
      JSON.stringify(changes) === JSON.stringify(this.changes) && prompt === this.prompt;
    let keep = 0;
    while (same && keep < ids.length && keep < this.ids.length && ids[keep] === this.ids[keep])
      keep++;
    if (keep < this.ids.length) this.stop();
    for (const columns of Object.values(this.columns))
      columns.length = Math.min(keep, columns.length);
    this.surprise.length = Math.min(keep, this.surprise.length);
    Object.assign(this, { ids, prompt, changes, stuck: false });
    this.events.changed();
    this.next();
  }

  /* A saved page has its columns. */
  private restore(ids: number[]): void {
    this.ids = ids;
    for (const [tap, columns] of Object.entries(saved?.columns ?? {}))
      this.columns[tap as Tap] = columns.map((column) => column ?? undefined);
    this.surprise = saved?.surprise ?? [];
    this.events.changed();
    this.events.text(saved?.text ?? []);
  }
  get cells(): Cells {
    return { columns: this.columns, surprise: this.surprise };
  }

  get busy(): boolean {
    return this.running !== null;
  }
  get length(): number {
    return this.ids.length;
  }

  column(position: number, tap: Tap): Column | undefined {
    return this.columns[tap]?.[position];
  }

  /* Of what is loaded: for exports. */
  loaded(tap: Tap): [number, Column][] {
    return (this.columns[tap] ?? []).flatMap((column, p): [number, Column][] =>
      column ? [[p, column]] : []
    );
  }

  /* Positions [first, end) are in sight. */
  look(first: number, end: number, tap: Tap): void {
    this.seen = { first: Math.max(0, first), end, tap };
    const { running } = this;
    const beside = running && (running.tap !== tap || running.end <= first || running.first >= end);
    if (beside && this.missing(first, end, tap)) this.stop();
    this.next();
  }

  stop(): void {
    this.running?.stop.abort();
    this.running = null;
  }

  /* The first part of a window from `from` on that is missing. */
  private missing(from: number, end: number, tap: Tap): [number, number] | null {
    for (let p = from; p < Math.min(end, this.ids.length); p++) {
      if (this.columns[tap]?.[p]) continue;
      const window = Math.min((Math.floor(p / WINDOW) + 1) * WINDOW, this.ids.length);
      let last = p + 1;
      while (last < window && !this.columns[tap]?.[last]) last++;
      return [p, last];
    }
    return null;
  }

  private next(): void {
    if (saved || this.running || this.stuck || !this.ids.length) return;
    const { first, end, tap } = this.seen;
    const near = this.missing(Math.floor(first / WINDOW) * WINDOW, end, tap);
    const wanted =
      near ?? (this.ids.length <= 4 * WINDOW ? this.missing(0, this.ids.length, tap) : null);
    if (wanted) void this.load(wanted[0], wanted[1], tap);
  }

  private async load(first: number, end: number, tap: Tap): Promise<void> {
    const stop = new AbortController();
    const mine = (this.running = { first, end, tap, stop });
    const subject: Subject = { tokens: this.ids, prompt_tokens: this.prompt, ...this.changes };
    this.events.asks();
    try {
      const body = { ...subject, taps: [tap], first, count: end - first, top_n: TOP, progress: true };
      for await (const frame of frames<LensFrame>('v1/lens/prompt', body, stop.signal, false)) {
        if (this.running !== mine) return;
        this.events.reading(frame.type === 'reading' ? frame : null);
        if (frame.type === 'token') {
          (this.columns[tap] ??= [])[frame.position] = columnOf(frame, tap);
          this.surprise[frame.position] = frame.surprise;
          this.events.changed();
        } else if (frame.type === 'prompt') this.events.text(frame.tokens);
        else if (frame.type === 'done') this.events.done(frame);
      }
      if (!this.columns[tap]?.[first]) throw new Error('The server answered without a column.');
    } catch (error) {
      if (this.running !== mine) return;
      const said = sentence(error);
      this.stuck = said !== null;
      if (said) this.events.failed(said);
    }
    if (this.running === mine) this.running = null;
    this.next();
  }
}
