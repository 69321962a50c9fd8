/* Diff: the text that is shown beside another prompt, or under another setting of attention; where the two part, and
 * which part of the model parts them. */
import type { DiffDone, DiffFrame, DiffRow } from './contract';
import { visible } from './names';
import { asking } from './replay';
import { nats, share } from './say';
import type { Session } from './session';
import { positionOf, type Apart } from './state';
import { useStore } from './store';

const EMPTY: Apart = { meta: null, rows: [], done: null };
const AT_ONCE = 256; // tokens that are read without asking

function grown(data: Apart, frame: DiffFrame): Apart {
  if (frame.type === 'row') return { ...data, rows: [...data.rows, frame] };
  return frame.type === 'meta' ? { ...data, meta: frame } : { ...data, done: frame };
}

function runDiff(session: Session): void {
  const { view, text, prompt } = session.state;
  const tokens = (view.against === 'attn' ? text : text.slice(0, prompt)).map(({ id }) => id);
  const body = {
    tokens,
    prompt_tokens: prompt,
    ...(view.against === 'attn' ? { attn: view.other } : { other: view.other }),
  };
  void session.gather('diff', 'v1/diff', body, EMPTY, grown);
}

export function openDiff(session: Session): void {
  const { diff, text, capabilities } = session.state;
  const ready = !diff.data && !diff.busy && !diff.error && text.length <= AT_ONCE;
  if (ready && capabilities?.routes?.includes('/v1/diff')) runDiff(session);
}

const SIDES = [
  [
    'attn',
    'attention',
    'the same text with another setting of attention, such as topk:k=4 or full',
  ],
  ['prompt', 'prompt', 'another prompt of as many tokens'],
] as const;
const PROPOSED = { attn: 'topk:k=4', prompt: 'The capital of Italy is' };

function Against({ session }: { session: Session }) {
  const { against, other } = useStore(session.store, (s) => s.view);
  const busy = useStore(session.store, (s) => s.diff.busy);
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        session.show({ other: String(new FormData(event.currentTarget).get('other') ?? '') });
        runDiff(session);
      }}
    >
      <div class="choice" role="group" aria-label="What differs">
        {SIDES.map(([key, name, title]) => (
          <button
            type="button"
            key={key}
            aria-pressed={against === key}
            {...(against === key ? { title } : asking(title))}
            onClick={() => session.show({ against: key, other: PROPOSED[key] })}
          >
            {name}
          </button>
        ))}
      </div>
      <input
        name="other"
        key={`${against} ${other}`}
        aria-label={against === 'attn' ? 'The other setting of attention' : 'The other prompt'}
        spellcheck={false}
        autocomplete="off"
        defaultValue={other}
        {...asking()}
      />
      <button type="submit" class="run" aria-busy={busy} {...asking()}>
        Compare
      </button>
    </form>
  );
}

/* 3_attn_out: attention of layer 3. */
export function partName(part: string): string {
  const found = /^(\d+)_(attn|mlp)_out$/.exec(part);
  if (!found) return part === 'embed' ? 'embedding' : part;
  return `${found[2] === 'attn' ? 'attention' : 'feed-forward'} ${found[1]}`;
}

function Length({ value, most, kind = '' }: { value: number; most: number; kind?: string }) {
  return (
    <i class={`length ${kind}`} style={{ width: `${Math.min(100, (100 * value) / most)}%` }} />
  );
}

function Positions({ session, apart }: { session: Session; apart: Apart }) {
  const selected = useStore(session.store, positionOf);
  const most = Math.max(...apart.rows.map(({ kl }) => kl), 1e-3);
  const token = (side: 'a' | 'b', row: DiffRow) => apart.meta?.[side].tokens[row.position];
  return (
    <div class="matrix-box" tabIndex={0} role="region" aria-label="Positions, and where each parts">
      <table class="positions">
        <thead>
          <tr class="quiet">
            <th scope="col">token</th>
            <th scope="col">parts at</th>
            <th scope="col" title="of the next token, nats">
              KL
            </th>
            <th scope="col">would say</th>
          </tr>
        </thead>
        <tbody>
          {apart.rows.map((row) => (
            <tr key={row.position} class={row.position === selected ? 'chosen' : ''}>
              <td class="cut">
                <button
                  type="button"
                  class="plain"
                  title={`go to position ${row.position}`}
                  onClick={() => session.select(row.position)}
                >
                  <span class="quiet">{row.position}</span> {visible(token('a', row)?.text ?? '')}
                  {token('a', row)?.id !== token('b', row)?.id && (
                    <b class="negative-text"> {visible(token('b', row)?.text ?? '')}</b>
                  )}
                </button>
              </td>
              <td class="cut">
                {row.part ? partName(row.part) : <span class="quiet">nowhere</span>}
              </td>
              <td title={nats(row.kl)}>
                <span class="measured">
                  <span>
                    <Length value={row.kl} most={most} />
                  </span>
                  <span class="number">{row.kl.toFixed(2)}</span>
                </span>
              </td>
              <td
                class="cut"
                title={`${share(row.a_top.probability ?? 0)}, ${share(row.b_top.probability ?? 0)}`}
              >
                {visible(row.a_top.text)}
                {row.a_top.id !== row.b_top.id && (
                  <b class="negative-text"> {visible(row.b_top.text)}</b>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Parts({ done }: { done: DiffDone }) {
  const most = Math.max(...done.parts.map(({ apart, own }) => Math.max(apart, own ?? 0)), 1e-9);
  return (
    <div class="map">
      <p class="parts-told quiet">
        How far apart the streams are behind each part; red: by its own doing
      </p>
      <div class="matrix-box" tabIndex={0} role="region" aria-label="Distance behind each part">
        <ol class="parts">
          {done.parts.map(({ part, apart, own }) => (
            <li
              key={part}
              title={`${partName(part)}: streams ${apart.toPrecision(2)} of their length apart${own === null ? '' : `, its own share ${own.toPrecision(2)}`}`}
            >
              <span class="quiet cut">{partName(part)}</span>
              <span class="measured">
                <span>
                  <Length value={apart} most={most} />
                  {own !== null && <Length value={own} most={most} kind="own" />}
                </span>
              </span>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

function Sum({ apart }: { apart: Apart }) {
  const { done, meta } = apart;
  if (!done || !meta) return <p class="told quiet">reading both…</p>;
  return (
    <p class="told" aria-live="polite">
      {done.first ? (
        <>
          They part first at <b>{partName(done.first.part)}</b>, position {done.first.position}
        </>
      ) : (
        <b>They part nowhere</b>
      )}{' '}
      <span class="quiet">
        (streams {Math.round(100 * meta.threshold)}&nbsp;% apart). KL {nats(done.mean_kl)} on
        average, {nats(done.most_kl)} at most, at position {done.most_position}.
      </span>
    </p>
  );
}

export function DiffScreen({ session }: { session: Session }) {
  const diff = useStore(session.store, (s) => s.diff);
  const { data } = diff;
  return (
    <section
      class={`panel diff${diff.busy ? ' busy' : ''}`}
      aria-label="Where two readings part"
      aria-busy={diff.busy}
    >
      <header>
        <h2>Diff</h2>
        {data?.meta && (
          <span class="quiet">
            {data.meta.a.attn === data.meta.b.attn
              ? 'two prompts'
              : `attention ${data.meta.a.attn} against ${data.meta.b.attn}`}
          </span>
        )}
      </header>
      <Against session={session} />
      {diff.error && <p class="refused">{diff.error}</p>}
      {data && data.rows.length > 0 && (
        <div class="maps">
          <Positions session={session} apart={data} />
          {data.done && <Parts done={data.done} />}
        </div>
      )}
      {data && !diff.error && <Sum apart={data} />}
    </section>
  );
}
