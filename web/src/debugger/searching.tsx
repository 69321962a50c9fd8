/* From tokens to what writes them: every value vector, or every head, in the order of what it gives to their logit. */
import { ask } from './api';
import type { Found, Hit, Text } from './contract';
import { percent } from '../common/units';
import { Tag } from './labels';
import { typed, visible } from './names';
import { asking } from './replay';
import { signed } from './say';
import type { Session } from './session';
import { partOfView } from './state';
import { useStore } from './store';

const ORDERS = [
  ['logit', 'logit', 'what a coefficient of 1 gives to the logit'],
  ['cosine', 'cosine', 'the same of vectors of length 1'],
  ['rank', 'rank', 'the place of the token among all that a neuron writes'],
] as const;

/* A word is mostly meant with the space before it; in quotes it is meant as it stands. */
async function tokenOf(word: string, signal: AbortSignal): Promise<number | string> {
  const exact = /^"(.+)"$/.exec(word)?.[1];
  const forms = exact ? [exact] : word.startsWith('·') ? [typed(word)] : [` ${word}`, word];
  for (const prompt of forms) {
    const { tokens } = await ask<Text>('v1/text', { prompt }, signal);
    const plain = tokens.filter(({ special }) => !special);
    if (plain.length === 1) return plain[0]!.id;
  }
  return forms[0]!;
}

export async function runSearch(session: Session): Promise<void> {
  const { words, order, among } = session.state.view;
  const given = words.split(/\s+/).filter(Boolean);
  if (!given.length) return;
  await session.fill('search', 'v1/search', async (signal: AbortSignal) => ({
    words: await Promise.all(given.map((word) => tokenOf(word, signal))),
    by: order,
    ends: 'both',
    most: 40,
    heads: among === 'heads',
  }));
}

export function openSearch(session: Session): void {
  const { search, capabilities } = session.state;
  const fresh = !search.data && !search.busy && !search.error;
  if (fresh && capabilities?.routes?.includes('/v1/search')) void runSearch(session);
}

const said = (hit: Hit, order: string): string => {
  if (order === 'cosine') return signed(hit.cosine, 3);
  return order === 'rank' && hit.rank !== undefined
    ? `#${(hit.rank + 1).toLocaleString('en')}`
    : signed(hit.logit);
};

function Hits({ session, title, hits }: { session: Session; title: string; hits: Hit[] }) {
  const open = useStore(session.store, partOfView);
  const order = useStore(session.store, (s) => s.view.order);
  const most = Math.max(...hits.map(({ logit }) => Math.abs(logit)), 1e-9);
  return (
    <div class="map">
      <h3>{title}</h3>
      <div class="matrix-box" tabIndex={0} role="region" aria-label={title}>
        <ol class="hits">
          {hits.map((hit) => (
            <li key={hit.part}>
              <button
                type="button"
                aria-pressed={hit.part === open}
                disabled={!session.opens(hit.part)}
                title={`${hit.part}: logit ${signed(hit.logit)}, cosine ${signed(hit.cosine, 3)}${hit.rank === undefined ? '' : `, rank ${hit.rank + 1}`}; ${(hit.tokens ?? []).map((t) => visible(t.text)).join(' ')}`}
                onClick={() => session.open(hit.part)}
              >
                <b>{hit.part}</b>
                <span class="number">{said(hit, order)}</span>
                <span class="measured">
                  <span>
                    <i
                      class={`length ${hit.end === 'bottom' ? 'own' : ''}`}
                      style={{ width: percent(Math.abs(hit.logit) / most).replace(/\s/g, '') }}
                    />
                  </span>
                </span>
                <span class="cut">
                  <Tag session={session} part={hit.part} />
                  {(hit.tokens ?? [])
                    .slice(0, 4)
                    .map((t) => visible(t.text))
                    .join(' ')}
                </span>
              </button>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

export function SearchScreen({ session }: { session: Session }) {
  const search = useStore(session.store, (s) => s.search);
  const { words, order, among } = useStore(session.store, (s) => s.view);
  const hits: Found['hits'] = search.data?.hits ?? [];
  const again = (some: Partial<Session['state']['view']>) => {
    session.show(some);
    void runSearch(session);
  };
  return (
    <section
      class={`panel search${search.busy ? ' busy' : ''}`}
      aria-label="Tokens to neurons"
      aria-busy={search.busy}
    >
      <header>
        <h2>Search</h2>
        <span class="quiet">what writes these tokens</span>
        <div class="choice" role="group" aria-label="Among">
          {(['neurons', 'heads'] as const).map((one) => (
            <button
              type="button"
              key={one}
              aria-pressed={among === one}
              {...(among === one ? {} : asking())}
              onClick={() => again({ among: one })}
            >
              {one}
            </button>
          ))}
        </div>
      </header>
      <form
        class="pair"
        onSubmit={(event) => {
          event.preventDefault();
          again({ words: String(new FormData(event.currentTarget).get('words') ?? '') });
        }}
      >
        <input
          name="words"
          aria-label="Tokens to search for"
          placeholder="Paris Rome"
          spellcheck={false}
          autocomplete="off"
          defaultValue={words}
          {...asking('words, each with the space before it; in quotes as it stands: "Paris"')}
        />
        <div class="choice" role="group" aria-label="Order of hits">
          {ORDERS.map(([key, label, title]) => (
            <button
              type="button"
              key={key}
              aria-pressed={order === key}
              {...(order === key ? { title } : asking(title, among === 'heads' && key === 'rank'))}
              onClick={() => again({ order: key })}
            >
              {label}
            </button>
          ))}
        </div>
        <button type="submit" class="run" aria-busy={search.busy} {...asking()}>
          Search
        </button>
      </form>
      {search.error && <p class="refused">{search.error}</p>}
      <div class="maps">
        <Hits {...{ session }} title="promote" hits={hits.filter(({ end }) => end === 'top')} />
        <Hits {...{ session }} title="suppress" hits={hits.filter(({ end }) => end === 'bottom')} />
      </div>
      <p class="told quiet">
        {among === 'heads'
          ? 'The most that a head can give to the logit; a click opens its row of attention.'
          : 'A neuron with a negative coefficient does the opposite. A click opens its card.'}
      </p>
    </section>
  );
}
