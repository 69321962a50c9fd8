/* Below the account: the head or neuron that is open, or the selected cell at all of its taps. */
import type { LensToken, Tap } from './contract';
import { HeadCard } from './head';
import { LabelField } from './labels';
import { parsePart, visible } from './names';
import { NeuronCard } from './neuron';
import { nats, share } from './say';
import type { Session } from './session';
import { NONE, layerOf, partOfView, positionOf } from './state';
import { useStore } from './store';
import { Switch } from './why';

const TAPS: Tap[] = ['before', 'between', 'after'];

function CellCard({ column, layer }: { column: LensToken; layer: number }) {
  return (
    <div class="cell-card">
      {TAPS.filter((tap) => column.top_tokens[tap]).map((tap) => (
        <table key={tap}>
          <caption>{tap}</caption>
          <tbody>
            {(column.top_tokens[tap]?.[layer] ?? []).slice(0, 6).map((text, i) => (
              <tr key={i}>
                <td class="cut">{visible(text)}</td>
                <td class="number">{share(column.top_probs[tap]?.[layer]?.[i] ?? 0)}</td>
              </tr>
            ))}
            {(column.bottom_tokens?.[tap]?.[layer] ?? []).slice(0, 2).map((text, i) => (
              <tr key={`b${i}`} class="quiet">
                <td class="cut">{visible(text)}</td>
                <td class="number">last</td>
              </tr>
            ))}
            <tr class="quiet">
              <td colSpan={2}>entropy {nats(column.entropy[tap]?.[layer] ?? 0)}</td>
            </tr>
            <tr class="quiet">
              <td colSpan={2}>norm {(column.norm[tap]?.[layer] ?? 0).toFixed(1)}</td>
            </tr>
          </tbody>
        </table>
      ))}
    </div>
  );
}

export function Card({ session }: { session: Session }) {
  const panel = useStore(session.store, (s) => s.view.panel);
  const name = useStore(session.store, partOfView);
  const part = name ? parsePart(name) : null;
  const answer = useStore(session.store, (s) =>
    part?.kind === 'head' ? s.head : part ? s.neuron : NONE
  );
  const column = useStore(session.store, (s) => s.column);
  const layer = useStore(session.store, layerOf);
  const position = useStore(session.store, positionOf);
  const head = useStore(session.store, (s) => s.head.data);
  const neuron = useStore(session.store, (s) => s.neuron.data);
  const cell = panel === 'cell';
  const error = cell ? column.error : answer.error;
  return (
    <section
      class={`panel card-panel${answer.busy ? ' busy' : ''}`}
      aria-label="Card of the part or cell"
    >
      <header>
        <h2
          class={!cell && name ? 'named' : ''}
          onClick={() => document.getElementById('label')?.click()}
        >
          {cell
            ? `Layer ${layer}, position ${position}`
            : name
              ? `${part?.kind === 'neuron' ? 'Neuron' : 'Head'} ${name}`
              : 'Head'}
        </h2>
        {!cell && name && <LabelField key={name} session={session} part={name} />}
        {!cell && name && <Switch session={session} part={name} />}
        <div class="choice" role="group" aria-label="What the card shows">
          <button
            type="button"
            aria-pressed={!cell}
            onClick={() => session.show({ panel: 'part' })}
          >
            part
          </button>
          <button type="button" aria-pressed={cell} onClick={() => session.show({ panel: 'cell' })}>
            cell
          </button>
        </div>
      </header>
      <div class="card-body" tabIndex={0} role="region" aria-label="Contents of the card">
        {error && <p class="refused">{error}</p>}
        {cell && column.data && <CellCard column={column.data} layer={layer} />}
        {!cell && part?.kind === 'head' && head && head.part === name && (
          <HeadCard session={session} head={head} />
        )}
        {!cell && part?.kind === 'neuron' && neuron && neuron.part === name && (
          <NeuronCard session={session} neuron={neuron} />
        )}
        {!cell && !name && (
          <p class="quiet waiting">A bar or a name opens its head or neuron here.</p>
        )}
      </div>
    </section>
  );
}
