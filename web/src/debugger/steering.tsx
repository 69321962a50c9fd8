/* Directions that are added to the stream: learned from tokens or from pairs of texts, their strengths, and what the model
 * says under them, below beside the base. */
import { useState } from 'preact/hooks';
import type { Vector } from './contract';
import { visible } from './names';
import { asking } from './replay';
import type { Session } from './session';
import { useStore } from './store';
import { recipeOf, steeringName, type Steering } from './directions';

const field = (form: HTMLFormElement, name: string): string =>
  String(new FormData(form).get(name) ?? '');

function FromTokens({ session }: { session: Session }) {
  const busy = useStore(session.store, (s) => s.learned.busy);
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        const [from, minus] = ['from', 'minus'].map((name) => field(event.currentTarget, name));
        void session.learn(recipeOf(steeringName(from!, minus!))!);
      }}
    >
      <label>
        <span class="quiet">towards</span>
        <input
          name="from"
          defaultValue="·Paris"
          {...asking('a token, or a neuron such as L12N345')}
        />
      </label>
      <label>
        <span class="quiet">less</span>
        <input name="minus" defaultValue="·Rome" {...asking('another, or nothing')} />
      </label>
      <button type="submit" class="run" aria-busy={busy} {...asking()}>
        Add
      </button>
    </form>
  );
}

function FromTexts({ session }: { session: Session }) {
  const busy = useStore(session.store, (s) => s.learned.busy);
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        const [plus, less] = ['with', 'without'].map((name) =>
          field(event.currentTarget, name)
            .split('\n')
            .filter((line) => line.trim())
        );
        const pairs = plus!.map((text, i) => [text, less![i] ?? '']);
        void session.learn({ pairs, name: `texts ${(plus![0] ?? '').slice(0, 24)}` });
      }}
    >
      <label>
        <span class="quiet">with</span>
        <textarea name="with" rows={3} {...asking('one text a line')}>
          {'I love this, it is wonderful\nWhat a happy day'}
        </textarea>
      </label>
      <label>
        <span class="quiet">without</span>
        <textarea name="without" rows={3} {...asking('as many lines, each the other of its pair')}>
          {'I hate this, it is terrible\nWhat a sad day'}
        </textarea>
      </label>
      <button type="submit" class="run" aria-busy={busy} {...asking()}>
        Learn
      </button>
    </form>
  );
}

function One({ session, vector }: { session: Session; vector: Vector }) {
  const found = useStore(session.store, (s) =>
    s.view.steer.find((one) => one.name === vector.path)
  );
  const layers = useStore(session.store, (s) => s.capabilities?.model.layers ?? 2);
  const scale = found?.scale ?? 0;
  const [first, last] = found?.layers ?? [1, layers - 1];
  const reach = recipeOf(vector.path) ? 20 : 4; // a token's direction has length 1, a learned one its own
  const set = (some: Partial<Steering>) =>
    void session.steer({ name: vector.path, scale, layers: found?.layers ?? null, ...some });
  return (
    <li>
      <button
        type="button"
        class="cut word"
        {...asking(`what ${vector.path} writes`)}
        onClick={() => session.describe(vector.id)}
      >
        {vector.path}
      </button>
      <input
        type="range"
        min={-reach}
        max={reach}
        step={reach / 80}
        value={scale}
        aria-label={`Strength of ${vector.path}`}
        {...asking()}
        onChange={(event) => set({ scale: Number(event.currentTarget.value) })}
      />
      <input
        type="number"
        step="any"
        value={Number(scale.toFixed(2))}
        aria-label={`Strength of ${vector.path} as a number`}
        {...asking()}
        onChange={(event) => set({ scale: Number(event.currentTarget.value) || 0 })}
      />
      <span class="between">
        <small class="quiet">layers</small>
        {[first, last].map((layer, i) => (
          <input
            key={i}
            type="number"
            min="1"
            max={layers - 1}
            value={layer}
            aria-label={`${i ? 'Last' : 'First'} layer of ${vector.path}`}
            {...asking()}
            onChange={(event) => {
              const to = Math.max(
                1,
                Math.min(layers - 1, Math.floor(Number(event.currentTarget.value)))
              );
              set({ layers: i ? [Math.min(first, to), to] : [to, Math.max(last, to)] });
            }}
          />
        ))}
      </span>
    </li>
  );
}

function Writes({ session }: { session: Session }) {
  const data = useStore(session.store, (s) => s.learned.data);
  if (!data)
    return <p class="quiet waiting">What a direction writes stands here when it has been made.</p>;
  return (
    <div class="map">
      <h3>{data.path} in the vocabulary, by layer</h3>
      <div class="matrix-box" tabIndex={0} role="region" aria-label="What the direction writes">
        <ol class="parts writes">
          {[...data.layers].reverse().map(({ layer, norm, top, bottom }) => (
            <li key={layer}>
              <span class="quiet number">{layer}</span>
              <span class="number">{norm.toFixed(2)}</span>
              <span class="cut positive-text">{top.map((t) => visible(t.text)).join(' ')}</span>
              <span class="cut negative-text">{bottom.map((t) => visible(t.text)).join(' ')}</span>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

export function SteerScreen({ session }: { session: Session }) {
  const vectors = useStore(session.store, (s) => s.vectors);
  const learned = useStore(session.store, (s) => s.learned);
  const steer = useStore(session.store, (s) => s.view.steer);
  const [from, setFrom] = useState<'tokens' | 'texts'>('tokens');
  const error = learned.error ?? vectors.error;
  const list = vectors.data ?? [];
  const served = list
    .filter(({ scale }) => scale !== 0)
    .map(({ path, scale }) => `${path} × ${scale}`);
  return (
    <section class={`panel steer${learned.busy ? ' busy' : ''}`} aria-label="Steering">
      <header>
        <h2>Steer</h2>
        <span class="quiet">directions that are added to the stream</span>
        <div class="choice" role="group" aria-label="What a direction is made of">
          {(['tokens', 'texts'] as const).map((one) => (
            <button
              type="button"
              key={one}
              aria-pressed={from === one}
              onClick={() => setFrom(one)}
            >
              {one}
            </button>
          ))}
        </div>
      </header>
      {from === 'tokens' ? <FromTokens session={session} /> : <FromTexts session={session} />}
      {error && <p class="refused">{error}</p>}
      <ul class="vectors">
        {list.map((vector) => (
          <One key={vector.id} {...{ session, vector }} />
        ))}
      </ul>
      {!list.length && <p class="quiet waiting">Directions stand here, each with its strength.</p>}
      <Writes session={session} />
      <p class="told quiet">
        Below: what the model says without and with them.{' '}
        <button
          type="button"
          class="word"
          {...asking(
            'every answer of this server is steered so, until it is set back',
            !list.length
          )}
          onClick={() => void session.serveSteered()}
        >
          {served.length && !steer.length ? 'set the server back' : 'steer the server’s answers'}
        </button>{' '}
        {served.length ? `The server adds ${served.join(', ')}.` : ''}
      </p>
    </section>
  );
}
