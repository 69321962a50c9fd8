/* Control vectors: those that the server holds, those that a view names, and the body that steers a run by them. */
import { ask, sentence } from './api';
import type { Changes, Learned, Vector } from './contract';
import { recipeOf, type Recipe, type Steering } from './directions';
import { Questions } from './questions';
import type { Reading } from './view';

type Numbered = NonNullable<Changes['control_vectors']>;

export abstract class Steered extends Questions {
  /* The view's directions as the server numbered them last. */
  protected numbers: Numbered = [];

  abstract generate(): Promise<void>;
  protected abstract reread(): void;
  abstract show(some: { steer: Steering[]; reading: Reading }): void;

  /* What grid and account read the text under. */
  protected changes(): Changes {
    const { view } = this.state;
    if (view.reading !== 'edited') return { edits: [] };
    const { numbers } = this;
    return { edits: view.edits, ...(numbers.length ? { control_vectors: numbers } : {}) };
  }

  async learn(recipe: Recipe): Promise<void> {
    const { vectors } = this.state;
    if (vectors.data?.some(({ path }) => path === recipe.name)) return;
    await this.fill('learned', 'v1/steer/vector', recipe);
    await this.fill('vectors', 'control-vectors', undefined);
  }

  /* The server's directions, and what the first of them writes. */
  async openSteer(): Promise<void> {
    if (!this.state.vectors.data) await this.fill('vectors', 'control-vectors', undefined);
    const first = this.state.vectors.data?.[0];
    if (first && !this.state.learned.data && !this.state.learned.busy) this.describe(first.id);
  }

  describe(id: number): void {
    void this.fill('learned', 'v1/steer/vector', { id });
  }

  /* A strength of 0 leaves the direction out. */
  async steer(one: Steering): Promise<void> {
    const { view } = this.state;
    const others = view.steer.filter(({ name }) => name !== one.name);
    const steer = one.scale === 0 ? others : [...others, one];
    this.show({ steer, reading: steer.length || view.edits.length ? view.reading : 'base' });
    await this.generate();
    if (view.reading === 'edited') this.reread();
  }

  /* The view's directions as the server numbers them; one that it does not have is made again where its name says how. */
  protected async numbered(signal: AbortSignal): Promise<Numbered> {
    const { steer } = this.state.view;
    if (!steer.length) return (this.numbers = []);
    const list = async () => await ask<Vector[]>('control-vectors', undefined, signal);
    let vectors = this.state.vectors.data ?? (await list());
    for (const { name } of steer) {
      const recipe = recipeOf(name);
      if (vectors.some(({ path }) => path === name)) continue;
      if (!recipe) throw new Error(`The server has no direction "${name}".`);
      const data = await ask<Learned>('v1/steer/vector', recipe, signal);
      this.store.set({ learned: { data, busy: false, error: null } });
      vectors = await list();
    }
    this.store.set({ vectors: { data: vectors, busy: false, error: null } });
    this.numbers = steer.map(({ name, scale, layers }) => ({
      id: vectors.find(({ path }) => path === name)!.id,
      scale,
      ...(layers ? { layers } : {}),
    }));
    return this.numbers;
  }

  /* All answers of the server from now on; without directions they are as before. */
  async serveSteered(): Promise<void> {
    const signal = this.begin('vectors');
    try {
      const scales = await this.numbered(signal);
      const data = await ask<Vector[]>('control-vectors', scales, signal);
      this.store.set({ vectors: { data, busy: false, error: null } });
    } catch (error) {
      this.store.set({ vectors: { ...this.state.vectors, error: sentence(error) } });
    }
  }
}
