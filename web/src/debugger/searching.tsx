/* From tokens to what writes them: every value vector, or every head, in the order of what it gives to their logit. By
 * text, and in clusters: worded.tsx, clustered.tsx. */
import { ask } from './api';
import { Clusters, ClustersForm } from './clustered';
import type { Found, Hit, Text } from './contract';
import { percent } from '../common/units';
import { Tag } from './labels';
import { typed, visible } from './names';
import { asking } from './replay';
import { signed } from './say';
import type { Session } from './session';
import { partOfView } from './state';
import { useStore } from './store';
import { AMONG, type View } from './view';
import { WordedHits, runWorded } from './worded';

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
  if (among === 'clusters') return;
  if (among === 'text') return runWorded(session);
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
  const { search, worded, view, capabilities } = session.state;
  const { data, busy, error } = view.among === 'text' ? worded : search;
  const fresh = !data && !busy && !error;
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

/* What is looked for, and of tokens in which order. */
function Question({ session, again }: { session: Session; again: (some: Partial<View>) => void }) {
  const busy = useStore(session.store, (s) => s.search.busy || s.worded.busy);
  const { words, order, among } = useStore(session.store, (s) => s.view);
  const told =
    among === 'text'
      ? 'words of labels and of top tokens; capitals and spaces make no difference'
      : 'words, each with the space before it; in quotes as it stands: "Paris"';
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        again({ words: String(new FormData(event.currentTarget).get('words') ?? '') });
      }}
    >
      <input
        name="words"
        aria-label={among === 'text' ? 'Words to search for' : 'Tokens to search for'}
        placeholder="Paris Rome"
        spellcheck={false}
        autocomplete="off"
        defaultValue={words}
        {...asking(told)}
      />
      {among !== 'text' && (
        <div class="choice" role="group" aria-label="Order of hits">
          {ORDERS.map(([key, label, title]) => (
            <button
              type="button"
              key={key}
              aria-pressed={order === key}
              {...(order === key
                ? { title }
                : asking(title, among === 'heads' && key === 'rank'))}
              onClick={() => again({ order: key })}
            >
              {label}
            </button>
          ))}
        </div>
      )}
      <button type="submit" class="run" aria-busy={busy} {...asking()}>
        Search
      </button>
    </form>
  );
}

function TokenHits({ session }: { session: Session }) {
  const search = useStore(session.store, (s) => s.search);
  const among = useStore(session.store, (s) => s.view.among);
  const hits: Found['hits'] = search.data?.hits ?? [];
  return (
    <>
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
    </>
  );
}

const ASKED = {
  neurons: 'what writes these tokens',
  heads: 'what writes these tokens',
  text: 'labels, and neurons by their top tokens',
  clusters: 'neurons that write alike',
} as const;
const KEPT = { neurons: 'search', heads: 'search', text: 'worded', clusters: 'clustered' } as const;
const ROUTE = { text: '/v1/search/text', clusters: '/v1/clusters' } as const;

export function SearchScreen({ session }: { session: Session }) {
  const among = useStore(session.store, (s) => s.view.among);
  const routes = useStore(session.store, (s) => s.capabilities?.routes);
  const busy = useStore(session.store, (s) => s[KEPT[among]].busy);
  const again = (some: Partial<View>) => {
    session.show(some);
    void runSearch(session);
  };
  const there = AMONG.filter(
    (one) => one === 'neurons' || one === 'heads' || routes?.includes(ROUTE[one])
  );
  return (
    <section
      class={`panel search${busy ? ' busy' : ''}`}
      aria-label="Tokens to neurons"
      aria-busy={busy}
    >
      <header>
        <h2>Search</h2>
        <span class="quiet">{ASKED[among]}</span>
        <div class="choice" role="group" aria-label="Among">
          {there.map((one) => (
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
      {among === 'clusters' ? (
        <ClustersForm session={session} />
      ) : (
        <Question session={session} again={again} />
      )}
      {among === 'clusters' ? (
        <Clusters session={session} />
      ) : among === 'text' ? (
        <WordedHits session={session} />
      ) : (
        <TokenHits session={session} />
      )}
    </section>
  );
}
