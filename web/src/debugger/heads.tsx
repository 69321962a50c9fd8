/* All heads: layers upward, heads across, coloured by what each gives to the difference of logits at a position, or by
 * what it does anywhere. */
import type { Score, WhyPart } from './contract';
import { percent } from '../common/units';
import { Tag, labelIn } from './labels';
import { nameOf, parsePart, visible } from './names';
import { asking } from './replay';
import { logits, nats } from './say';
import type { Session } from './session';
import { partOfView, positionOf } from './state';
import { useStore } from './store';
import { tint } from './tint';
import { SCORES } from './view';

/* What each score is the mean weight on. */
const SAID: Record<Score, string> = {
  induction: 'weight on what stood behind the same token before',
  previous: 'weight on the token before',
  duplicate: 'weight on the same token before',
  sink: 'weight on the first token',
  entropy: 'entropy of the rows',
};
const amount = (score: Score, value: number): string =>
  score === 'entropy' ? nats(value) : percent(value);

export function HeadsScreen({ session }: { session: Session }) {
  const answer = useStore(session.store, (s) => (s.view.doing === 'here' ? s.heads : s.finder));
  const here = useStore(session.store, (s) => s.heads.data);
  const labels = useStore(session.store, (s) => s.labels.data);
  const finder = useStore(session.store, (s) => s.finder.data);
  const doing = useStore(session.store, (s) => s.view.doing);
  const capabilities = useStore(session.store, (s) => s.capabilities);
  const routes = capabilities?.routes;
  const name = useStore(session.store, partOfView);
  const position = useStore(session.store, positionOf);
  const text = useStore(session.store, (s) => s.text);
  const open = name ? parsePart(name) : null;
  const { layers = 0, heads = 0 } = capabilities?.model ?? {};
  const parts = new Map<string, WhyPart>((here?.parts ?? []).map((part) => [part.part, part]));
  const known = new Map<string, number>(
    doing === 'here'
      ? [...parts].map(([part, { value }]) => [part, value])
      : (finder?.heads ?? []).map(({ part, scores }) => [part, scores[doing]])
  );
  const best = [...known].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.max(Math.abs(best[0]?.[1] ?? 0), 1e-6);
  const rows = Array.from({ length: layers }, (_, i) => layers - 1 - i);
  const columns = Array.from({ length: heads }, (_, i) => i);
  return (
    <section class={`panel heads${answer.busy ? ' busy' : ''}`} aria-label="All heads">
      <header>
        <h2>Heads</h2>
        <span class="quiet">
          {doing === 'here' ? (
            <>
              at position {position}, <b>{visible(text[position]?.text ?? '')}</b>: what each gives
              to A − B
            </>
          ) : (
            SAID[doing]
          )}
        </span>
        {routes?.includes('/v1/find-heads') && (
          <div class="choice" role="group" aria-label="What of the heads">
            {(['here', ...SCORES] as const).map((one) => (
              <button
                type="button"
                key={one}
                aria-pressed={doing === one}
                {...(doing === one
                  ? {}
                  : asking(one === 'here' ? 'what each gives to A − B' : SAID[one]))}
                onClick={() => {
                  session.show({ doing: one });
                  session.findHeads();
                }}
              >
                {one}
              </button>
            ))}
          </div>
        )}
      </header>
      {answer.error && <p class="refused">{answer.error}</p>}
      <div class="matrix-box" tabIndex={0} role="region" aria-label="Heads by layer">
        <table class="matrix">
          <thead>
            <tr>
              <th scope="col" class="quiet">
                layer
              </th>
              {columns.map((head) => (
                <th scope="col" key={head} class="quiet">
                  H{head}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((layer) => (
              <tr key={layer}>
                <th scope="row" class="quiet">
                  {layer}
                </th>
                {columns.map((index) => {
                  const part = nameOf({ kind: 'head', layer, index });
                  const value = known.get(part);
                  const label = labelIn(labels, part)?.text;
                  const called = label ? `${part}, ${label}` : part;
                  const chosen =
                    open?.kind === 'head' && open.layer === layer && open.index === index;
                  return (
                    <td key={index}>
                      <button
                        type="button"
                        aria-label={part}
                        disabled={!session.opens(part)}
                        aria-pressed={chosen}
                        title={
                          value === undefined
                            ? called
                            : doing === 'here'
                              ? `${called}: ${logits(value)}, from ${visible(parts.get(part)?.source?.text ?? '')}`
                              : `${called}: ${amount(doing, value)}`
                        }
                        style={
                          value === undefined
                            ? undefined
                            : { background: tint(value, most, doing === 'here' ? 0.5 : 1) }
                        }
                        onClick={() => session.open(part)}
                      />
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {doing !== 'here' && (
        <p class="words">
          <span class="quiet">first</span>
          {best.slice(0, 6).map(([part, value]) => (
            <button
              type="button"
              class="word"
              key={part}
              disabled={!session.opens(part)}
              onClick={() => session.open(part)}
            >
              {part} <Tag session={session} part={part} />
              <small class="quiet">{amount(doing, value)}</small>
            </button>
          ))}
        </p>
      )}
      <p class="told quiet">
        {doing === 'here'
          ? `Blue speaks for A, red for B; the strongest gives ${logits(most)}.`
          : 'On 50 random tokens, read twice.'}{' '}
        A click opens the row of attention.
      </p>
    </section>
  );
}
