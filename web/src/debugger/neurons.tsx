/* The dominant neurons of every layer at a position: by |coefficient| times norm, or by what they give. */
import { Tag } from './labels';
import { visible } from './names';
import { asking } from './replay';
import { signed } from './say';
import type { Session } from './session';
import { partOfView, positionOf } from './state';
import { useStore } from './store';

const ORDERS = [
  ['score', 'size', '|coefficient| times the norm of the value vector'],
  ['value', 'contribution', 'what it gives to A − B, exactly'],
] as const;

export function NeuronsScreen({ session }: { session: Session }) {
  const answer = useStore(session.store, (s) => s.neurons);
  const by = useStore(session.store, (s) => s.view.by);
  const name = useStore(session.store, partOfView);
  const position = useStore(session.store, positionOf);
  const text = useStore(session.store, (s) => s.text);
  const layers = [...(answer.data?.layers ?? [])].sort((a, b) => b.layer - a.layer);
  return (
    <section class={`panel neurons${answer.busy ? ' busy' : ''}`} aria-label="Dominant neurons">
      <header>
        <h2>Neurons</h2>
        <span class="quiet">
          at position {position}, <b>{visible(text[position]?.text ?? '')}</b>
        </span>
        <div class="choice" role="group" aria-label="Order of neurons">
          {ORDERS.map(([key, label, title]) => (
            <button
              type="button"
              key={key}
              aria-pressed={by === key}
              {...(by === key ? { title } : asking(title))}
              onClick={() => {
                session.show({ by: key });
                session.loadScreen();
              }}
            >
              {label}
            </button>
          ))}
        </div>
      </header>
      {answer.error && <p class="refused">{answer.error}</p>}
      <div class="matrix-box" tabIndex={0} role="region" aria-label="Neurons by layer">
        <ul class="layers">
          {layers.map(({ layer, neurons }) => (
            <li key={layer}>
              <span class="number quiet">{layer}</span>
              {neurons.map((one) => (
                <button
                  type="button"
                  key={one.part}
                  aria-pressed={one.part === name}
                  disabled={!session.opens(one.part)}
                  title={`${one.part}: coefficient ${signed(one.coefficient)}, size ${one.score.toFixed(2)}, gives ${signed(one.value)} logits; ${one.tokens.map((t) => visible(t.text)).join(' ')}`}
                  onClick={() => session.open(one.part)}
                >
                  <b>{one.part.replace(/^L\d+/, '')}</b>
                  <span
                    class={
                      by === 'value' ? (one.value < 0 ? 'negative-text' : 'positive-text') : 'quiet'
                    }
                  >
                    {by === 'value' ? signed(one.value) : one.score.toFixed(1)}
                  </span>
                  <span class="cut">
                    <Tag session={session} part={one.part} />
                    {one.tokens
                      .slice(0, 2)
                      .map((t) => visible(t.text))
                      .join(' ')}
                  </span>
                </button>
              ))}
            </li>
          ))}
        </ul>
      </div>
      <p class="told quiet">
        {by === 'score' ? 'Numbers: |coefficient| times norm.' : 'Numbers: logits of A − B.'} A
        click opens the neuron’s card.
      </p>
    </section>
  );
}
