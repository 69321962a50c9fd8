/* The card of a neuron: what it writes, what opens it, and what it does here. */
import type { Neuron } from './contract';
import { Words } from './head';
import { Tag } from './labels';
import { signed } from './say';
import type { Session } from './session';

/* gate, act(gate), up and their product as a line of arithmetic. */
function Here({ neuron }: { neuron: Neuron }) {
  const { here } = neuron;
  if (!here) return null;
  return (
    <p class="arithmetic">
      {neuron.gate && (
        <>
          <span>
            <small class="quiet">gate</small>
            {signed(here.gate)}
          </span>
          →
          <span>
            <small class="quiet">activated</small>
            {signed(here.activated)}
          </span>
          ×
        </>
      )}
      <span>
        <small class="quiet">up</small>
        {signed(here.up)}
      </span>
      =
      <span>
        <small class="quiet">coefficient</small>
        <b>{signed(here.coefficient)}</b>
      </span>
      <span>
        <small class="quiet">gives, logits</small>
        <b class={here.value < 0 ? 'negative-text' : 'positive-text'}>{signed(here.value)}</b>
      </span>
      <span class="case">
        <small class="quiet">case</small>
        {here.case}
      </span>
    </p>
  );
}

export function NeuronCard({ session, neuron }: { session: Session; neuron: Neuron }) {
  return (
    <>
      <Here neuron={neuron} />
      <Words title="value writes" words={neuron.value.top.slice(0, 14)} />
      <Words title="and against" words={neuron.value.bottom.slice(0, 10)} />
      {neuron.gate && <Words title="gate opens on" words={neuron.gate.top.slice(0, 8)} />}
      <Words title="up reads" words={neuron.up.top.slice(0, 8)} />
      <p class="facts-line quiet">
        norms: value {neuron.value_norm.toFixed(2)}
        {neuron.gate_norm !== null && `, gate ${neuron.gate_norm.toFixed(2)}`}, up{' '}
        {neuron.up_norm.toFixed(2)}
      </p>
      {neuron.neighbours.length > 0 && (
        <p class="words">
          <span class="quiet">nearest</span>{' '}
          {neuron.neighbours.map((near) => (
            <button
              type="button"
              key={near.part}
              class="word"
              title={`cosine ${near.cosine.toFixed(3)}`}
              onClick={() => session.open(near.part)}
            >
              {near.part} <Tag session={session} part={near.part} />
              <small class="quiet">{near.cosine.toFixed(2)}</small>
            </button>
          ))}
        </p>
      )}
    </>
  );
}
