/* What the page does: questions follow from the view, and each kind of question has at most one on its way. */
import { Refusal, ask, frames, sentence } from './api';
import type {
  Capabilities,
  EditFrame,
  LensFrame,
  Next,
  Subject,
  Text,
  TextToken,
} from './contract';
import { loadLabels } from './labels';
import { Lens } from './lens';
import { answerable, forget, holds, saved } from './replay';
import { parsePart, withScale } from './names';
import { NONE, NO_RUN, partOfView, positionOf, type Answer, type Run, type State } from './state';
import { openSearch } from './searching';
import { Steered } from './steered';
import { openDiff } from './apart';
import { openPatch } from './sweep';
import { applyTheme } from './theme';
import { ROUTES, addressOf, readView, type Screen, type View } from './view';

export class Session extends Steered {
  lens = new Lens({
    changed: () => this.store.set({ read: this.state.read + 1 }),
    asks: () => this.end('checks'),
    failed: (lensError) => this.store.set({ lensError }),
    text: (tokens) => this.mark(tokens),
    reading: (reading) => this.store.set({ reading }),
    done: ({ seconds, peak_bytes }) => this.note('grid', seconds, peak_bytes),
  });
  private alternatives = new Map<string, Next['positions'][0]>();

  /* ---- questions ---- */

  subject(): Subject {
    const { text, prompt } = this.state;
    return { tokens: text.map(({ id }) => id), prompt_tokens: prompt, ...this.changes() };
  }

  /* ---- the view ---- */

  show(some: Partial<View>): void {
    const view = { ...this.state.view, ...some };
    this.store.set({ view });
    this.address();
  }

  private later = 0;
  private address(): void {
    if (saved) return;
    clearTimeout(this.later);
    this.later = window.setTimeout(() => {
      const address = addressOf(this.state.view);
      history.replaceState(null, '', address || location.pathname);
    }, 120);
  }

  async start(): Promise<void> {
    const { search, hash } = saved ? new URL(saved.address, 'http://saved/') : location;
    const { view, empty } = readView(search, hash);
    applyTheme(view.theme);
    this.store.set({ view, draft: view.prompt });
    let capabilities: Capabilities;
    try {
      capabilities = await ask<Capabilities>('v1/capabilities', undefined, this.begin('text'));
    } catch (error) {
      this.store.set({ error: sentence(error) });
      return;
    }
    this.store.set({ capabilities, error: null });
    const labelled = saved ? answerable('v1/labels', undefined) : this.has('/v1/labels');
    if (labelled) void loadLabels(this);
    if (!capabilities.inspect)
      this.store.set({ error: capabilities.why_not ?? 'This model cannot be inspected.' });
    else if (empty) {
      const {
        prompt = 'The capital of France is',
        a = null,
        b = null,
      } = capabilities.example ?? {};
      this.show({ prompt, a, b });
      this.store.set({ draft: prompt });
      await this.run();
    } else await this.run();
    if (capabilities.inspect && this.has('/v1/checks')) void this.prove();
  }

  private has(route: string): boolean {
    return this.state.capabilities?.routes?.includes(route) ?? false;
  }

  /* Another view, of an address; the one before is a step back in the browser. */
  restore(address: string, step = true): void {
    const { search, hash } = new URL(address, 'http://saved/');
    const { view } = readView(search, hash);
    applyTheme(view.theme);
    clearTimeout(this.later);
    if (step) {
      history.replaceState(null, '', addressOf(this.state.view) || location.pathname);
      history.pushState(null, '', addressOf(view) || location.pathname);
    }
    const fresh = { search: NONE, patch: NONE, spot: null, diff: NONE, undo: [] };
    this.store.set({ view, draft: view.prompt, ...fresh });
    void this.run();
  }

  /* The identity checks, once nobody waits for anything else; a question gives them up for later. */
  private async prove(): Promise<void> {
    const busy = ({ why, head, neuron, run, column, patch, diff }: State) =>
      this.lens.busy || [why, head, neuron, run, column, patch, diff].some((one) => one.busy);
    for (let calm = 0; calm < (saved ? 0 : 3); calm = busy(this.state) ? 0 : calm + 1)
      await new Promise((done) => setTimeout(done, 250));
    await this.fill('checks', 'v1/checks', undefined);
    const { data, error } = this.state.checks;
    if (!data && !error) await this.prove();
  }

  /* ---- a new text ---- */

  /* Runs what stands in the prompt box. */
  submit(): void {
    const { draft, view } = this.state;
    const fresh = { tokens: null, position: null, ...(view.pinned ? {} : { a: null, b: null }) };
    this.show({ prompt: draft, ...fresh });
    void this.run();
  }

  /* The text up to `position`, which becomes `token`, and goes on from there. */
  branch(position: number, token: number): void {
    const { text, view } = this.state;
    const tokens = [...text.slice(0, position).map(({ id }) => id), token];
    this.show({ tokens, position: null, ...(view.pinned ? {} : { a: null, b: null }) });
    void this.run();
  }

  unbranch(): void {
    this.store.set({ draft: this.state.view.prompt });
    this.show({ tokens: null, position: null });
    void this.run();
  }

  async run(): Promise<void> {
    this.lens.stop();
    this.end('column', 'why', 'head', 'neuron', 'run', 'heads', 'neurons', 'next');
    this.alternatives.clear();
    forget();
    const { view } = this.state;
    const signal = this.begin('text');
    let text: Text;
    try {
      const body = view.tokens
        ? { tokens: view.tokens }
        : { prompt: view.prompt, template: view.template };
      text = await ask<Text>('v1/text', body, signal);
    } catch (error) {
      if (!signal.aborted) this.store.set({ error: sentence(error) });
      return;
    }
    if (view.reading === 'edited') await this.numbered(signal).catch(() => []); // told by the run
    if (signal.aborted) return;
    const prompt = text.tokens.length;
    this.store.set({
      text: text.tokens,
      prompt,
      error: null,
      lensError: null,
      run: NONE,
      column: NONE,
      diff: NONE,
    });
    if (!view.tokens && this.state.draft === view.prompt)
      this.store.set({ preview: { ...NONE, data: text } });
    this.lens.read(
      text.tokens.map(({ id }) => id),
      prompt,
      this.changes()
    );
    if (view.position === null || view.position < prompt) this.look();
    await this.generate();
  }

  /* Base and edited text from the prompt on. */
  async generate(): Promise<void> {
    const { view, text, prompt } = this.state;
    const signal = this.begin('run');
    const tokens = text.slice(0, prompt).map(({ id }) => id);
    const run: Run = { ...NO_RUN, base: [], edited: [], compared: [] };
    const keep = this.state.run.data;
    const put = (some: Partial<Answer<Run>>) => {
      if (!signal.aborted) this.store.set({ run: { ...this.state.run, ...some } });
    };
    put({ data: keep, busy: true, error: null });
    try {
      const vectors = await this.numbered(signal);
      const body = {
        tokens,
        prompt_tokens: prompt,
        edits: view.edits,
        max_tokens: view.most,
        temperature: view.temperature,
        seed: view.seed,
        ...(vectors.length ? { control_vectors: vectors } : {}),
      };
      for await (const frame of frames<EditFrame>('v1/edit', body, signal)) {
        if (frame.type === 'meta') run.command = frame.command;
        else if (frame.type === 'compared') run.compared.push(frame);
        else if (frame.type === 'done') run.done = frame;
        else run[frame.type].push(frame);
        if (frame.type !== 'meta') put({ data: { ...run } });
      }
      put({ busy: false });
      const { done } = run;
      if (signal.aborted || !done) return;
      this.note('generation', done.seconds, done.peak_bytes);
      this.store.set({ rate: done.tokens_per_second });
      this.extend(run);
    } catch (error) {
      put({ data: null, busy: false, error: sentence(error) });
    }
  }

  /* The output becomes part of the text that the grid shows. */
  private extend(run: Run): void {
    const { text, prompt, view } = this.state;
    const plain = (t: { id: number; text: string }): TextToken => ({
      id: t.id,
      text: t.text,
      continuation: false,
      special: false,
    });
    const output = (view.reading === 'edited' ? run.edited : run.base).map(plain);
    const whole = [...text.slice(0, prompt), ...output];
    const same = whole.length === text.length && whole.every((t, i) => t.id === text[i]!.id);
    if (!same) this.store.set({ text: whole });
    this.lens.read(
      whole.map(({ id }) => id),
      prompt,
      this.changes()
    );
    if (view.position !== null && view.position >= prompt) this.look();
  }

  /* Which tokens are special or continue a character, as the lens says. */
  private mark(tokens: TextToken[]): void {
    const { text } = this.state;
    const differ = (t: TextToken, i: number) =>
      t.continuation !== text[i]!.continuation ||
      t.special !== text[i]!.special ||
      t.text !== text[i]!.text;
    if (
      tokens.length === text.length &&
      tokens.every((t, i) => t.id === text[i]!.id) &&
      tokens.some(differ)
    )
      this.store.set({ text: tokens });
  }

  preview(draft: string): void {
    this.store.set({ draft });
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => {
      const { template } = this.state.view;
      if (draft) void this.fill('preview', 'v1/text', { prompt: draft, template });
      else this.store.set({ preview: NONE });
    }, 60);
  }
  private typing = 0;

  /* ---- a cell ---- */

  select(position: number, layer?: number): void {
    const { view, prompt } = this.state;
    const moved = position !== positionOf(this.state);
    this.show({
      position: position === prompt - 1 ? null : position,
      ...(layer === undefined ? {} : { layer }),
      ...(moved && !view.pinned ? { a: null, b: null } : {}),
    });
    if (moved) this.look(90);
  }

  private looking = 0;
  /* Everything that is about the selected position; after a pause, while keys move it. */
  look(pause = 0): void {
    clearTimeout(this.looking);
    this.end('column', 'why', 'head', 'neuron', 'heads', 'neurons');
    this.looking = window.setTimeout(() => void this.account(), pause);
  }

  private async account(): Promise<void> {
    const { view, text } = this.state;
    if (!text.length) return;
    const position = positionOf(this.state);
    const body = { ...this.subject(), position, a: view.a ?? undefined, b: view.b ?? undefined };
    await this.fill('why', 'v1/why', { ...body, most: 12 });
    if (position !== positionOf(this.state) || this.state.why.busy) return;
    void this.loadColumn();
    this.loadPart();
    this.loadScreen();
  }

  private async loadColumn(): Promise<void> {
    const { why, capabilities } = this.state;
    const signal = this.begin('column');
    const first = positionOf(this.state);
    const tracked = [why.data?.a.id, why.data?.b?.id].filter((id) => id !== undefined);
    const body = {
      ...this.subject(),
      taps: capabilities?.taps,
      first,
      count: 1,
      top_n: 8,
      bottom_n: 4,
      tracked,
    };
    try {
      for await (const frame of frames<LensFrame>('v1/lens/prompt', body, signal))
        if (frame.type === 'token' && !signal.aborted)
          this.store.set({ column: { data: frame, busy: false, error: null } });
    } catch (error) {
      if (!signal.aborted) this.store.set({ column: { ...NONE, error: sentence(error) } });
    }
  }

  /* ---- A and B ---- */

  compare(a: number | string | null, b: number | string | null): void {
    this.show({ a, b });
    this.look();
  }

  /* ---- parts ---- */

  open(part: string): void {
    this.show({ part, panel: 'part' });
    this.loadPart();
  }

  /* Where A, B of the account are known, heads and neurons tell what they give to them. */
  private about() {
    const { why } = this.state;
    return { position: positionOf(this.state), a: why.data?.a.id, b: why.data?.b?.id };
  }

  private questionOfPart(name: string | null): ['head' | 'neuron', string, unknown] | null {
    const part = name && parsePart(name);
    if (!part) return null;
    const body = { ...this.subject(), ...this.about(), part: name };
    if (part.kind === 'head') return ['head', 'v1/head', body];
    return ['neuron', 'v1/neuron', { ...body, top_n: 14, neighbours: 8 }];
  }

  private loadPart(): void {
    const question = this.questionOfPart(partOfView(this.state));
    if (question) void this.fill(...question);
  }

  /* Whether the card of a part can be opened: in a saved page, where it was open. */
  opens(part: string): boolean {
    if (!saved) return true;
    const question = this.questionOfPart(part);
    return question !== null && answerable(question[1], question[2]);
  }

  /* What the views of all heads and of all neurons need. */
  loadScreen(): void {
    const { screen } = this.state.view;
    if (!this.state.text.length) return;
    if (screen === 'patch') return void openPatch(this);
    if (screen === 'diff') return openDiff(this);
    if (screen === 'search') return openSearch(this);
    if (screen === 'steer') return void this.openSteer();
    if (screen === 'heads' && this.state.view.doing !== 'here') this.findHeads();
    const question = this.questionOf(screen);
    if (question) void this.fill(...question);
  }

  private questionOf(screen: Screen): ['heads' | 'neurons', string, unknown] | null {
    const body = { ...this.subject(), ...this.about() };
    const { by } = this.state.view;
    if (screen === 'heads') return ['heads', 'v1/why', { ...body, most: 1000, kinds: ['head'] }];
    return screen === 'neurons' ? ['neurons', 'v1/neurons', { ...body, most: 6, by }] : null;
  }

  /* All heads by what they do on a text of random tokens, said twice. */
  findHeads(): void {
    const { capabilities, view } = this.state;
    const { layers = 0, heads = 0 } = capabilities?.model ?? {};
    const body = { random: 50, by: view.doing, most: layers * heads };
    if (view.doing !== 'here') void this.fill('finder', 'v1/find-heads', body);
  }

  /* Whether there is something to show: a saved page has the views that were open. */
  shows(screen: Screen): boolean {
    if (!saved || screen === 'grid' || screen === this.state.view.screen) return true;
    const question = this.questionOf(screen);
    return question ? answerable(question[1], question[2]) : holds(ROUTES[screen] ?? []);
  }

  screen(screen: View['screen']): void {
    this.show({ screen });
    this.loadScreen();
  }

  /* ---- edits ---- */

  setEdits(edits: string[], remember = true): void {
    const { view, undo } = this.state;
    if (edits.join('\n') === view.edits.join('\n')) return;
    if (remember) this.store.set({ undo: [...undo, view.edits].slice(-50) });
    const reading = edits.length || view.steer.length ? view.reading : 'base';
    const reread = view.reading === 'edited';
    this.show({ edits, reading });
    if (!this.state.text.length) return;
    void this.generate();
    if (reread) this.reread();
  }

  scale(part: string, scale: number): void {
    this.setEdits(withScale(this.state.view.edits, part, scale));
  }

  undo(): void {
    if (saved) return;
    const { undo } = this.state;
    const before = undo[undo.length - 1];
    if (!before) return;
    this.store.set({ undo: undo.slice(0, -1) });
    this.setEdits(before, false);
  }

  read(reading: View['reading']): void {
    this.show({ reading });
    this.reread();
  }

  protected reread(): void {
    this.alternatives.clear();
    const { run } = this.state;
    if (run.data?.done && !run.busy) this.extend(run.data);
    this.look();
  }

  /* ---- alternatives ---- */

  /* What the model thought of in place of the token at `position`. */
  async instead(position: number, signal: AbortSignal): Promise<Next['positions'][0]> {
    const { text } = this.state;
    const kept = this.alternatives.get(String(position));
    if (kept) return kept;
    const before = text.slice(0, position).map(({ id }) => id);
    const body = {
      tokens: before,
      ...this.changes(),
      first: position - 1,
      count: 1,
      top_n: 10,
    };
    const answer = await ask<Next>('v1/next', body, signal);
    const found = answer.positions.find((one) => one.position === position - 1);
    if (!found) throw new Refusal('The server answered without this position.');
    this.alternatives.set(String(position), found);
    return found;
  }
}
