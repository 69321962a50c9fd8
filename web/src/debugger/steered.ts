/* Control vectors: those that the server holds, those that a view names, and the body that steers a run by them. */
import { ask, sentence } from './api';
import type { Learned, Vector } from './contract';
import { recipeOf, type Recipe, type Steering } from './directions';
import { Questions } from './questions';

interface Numbered {
  id: number;
  scale: number;
  layers?: [number, number];
}

export abstract class Steered extends Questions {
  abstract generate(): Promise<void>;
  abstract show(some: { steer: Steering[] }): void;

  async learn(recipe: Recipe): Promise<void> {
    const { vectors } = this.state;
    if (vectors.data?.some(({ path }) => path === recipe.name)) return;
    await this.fill('learned', 'v1/steer/vector', recipe);
    await this.fill('vectors', 'control-vectors', undefined);
  }

  openSteer(): void {
    if (!this.state.vectors.data) void this.fill('vectors', 'control-vectors', undefined);
  }

  /* A strength of 0 leaves the direction out. */
  steer(one: Steering): void {
    const others = this.state.view.steer.filter(({ name }) => name !== one.name);
    this.show({ steer: one.scale === 0 ? others : [...others, one] });
    void this.generate();
  }

  /* The view's directions as the server numbers them; one that it does not have is made again where its name says how. */
  protected async numbered(signal: AbortSignal): Promise<Numbered[]> {
    const { steer } = this.state.view;
    if (!steer.length) return [];
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
    return steer.map(({ name, scale, layers }) => ({
      id: vectors.find(({ path }) => path === name)!.id,
      scale,
      ...(layers ? { layers } : {}),
    }));
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
