/* Labels and neurons by words. The table of top tokens that neurons are found in is made once for a model, some layers at a
 * time, so that other questions come between. */
import type { Scored, TableFrame, Worded } from './contract';
import { bytes, percent, timeTick } from '../common/units';
import { visible } from './names';
import { asking } from './replay';
import type { Session } from './session';
import { partOfView } from './state';
import { useStore } from './store';

const AT_ONCE = 2; // layers of a question

const grown = (_: TableFrame, frame: TableFrame): TableFrame => frame;

async function askTable(session: Session, layers: number): Promise<void> {
  const before = session.state.table.data as TableFrame;
  await session.gather('table', 'v1/search/table', { layers }, before, grown);
}

export async function runWorded(session: Session): Promise<void> {
  const { words } = session.state.view;
  if (!words.trim()) return;
  await session.fill('worded', 'v1/search/text', { text: words, most: 60 });
  const { worded, table } = session.state;
  const missing = worded.data && worded.data.table.ready < worded.data.table.layers;
  if (missing && !table.data && !table.busy) await askTable(session, 0);
}

async function makeTable(session: Session): Promise<void> {
  for (let ready = -1; ; ) {
    const { data, error } = session.state.table;
    if (error || !data || data.ready === data.layers || data.ready === ready) break;
    ready = data.ready;
    await askTable(session, AT_ONCE);
  }
  await runWorded(session);
}

function MakeTable({ session, worded }: { session: Session; worded: Worded }) {
  const { data, busy, error } = useStore(session.store, (s) => s.table);
  const { ready, layers } = data ?? worded.table;
  if (error) return <p class="refused">{error}</p>;
  if (ready === layers) return null;
  const making = busy && ready > 0;
  return (
    <p class="table-cost" role="status">
      {making || ready > 0
        ? `Top tokens of ${ready} of ${layers} layers are there`
        : 'Neurons are found by their top tokens, which are looked up once for a model'}
      {data && data.missing > 0 && `: ${data.missing.toLocaleString('en')} neurons`}
      {data?.seconds ? `, about ${timeTick(Math.ceil(data.seconds))}` : ''}
      {data && data.bytes > 0 ? `, ${bytes(data.bytes)}.` : '.'}{' '}
      {busy ? (
        <button type="button" onClick={() => session.end('table')}>
          Stop
        </button>
      ) : (
        <button type="button" {...asking()} onClick={() => void makeTable(session)}>
          Look them up
        </button>
      )}
    </p>
  );
}

const folded = (text: string): string[] => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/* Those that were asked for come first. */
function Tokens({ tokens, words }: { tokens: Scored[]; words: Set<string> }) {
  const meant = (t: Scored) => folded(t.text).some((word) => words.has(word));
  const sorted = [...tokens.filter(meant), ...tokens.filter((t) => !meant(t))];
  return (
    <span class="cut">
      {sorted.slice(0, 10).map((t, i) => (
        <span key={i}>
          {meant(t) ? <mark>{visible(t.text)}</mark> : visible(t.text)}{' '}
        </span>
      ))}
    </span>
  );
}

interface Row {
  part: string;
  score: number;
  end?: 'top' | 'bottom';
  title: string;
  text: preact.ComponentChildren;
}

function Rows({ session, title, rows }: { session: Session; title: string; rows: Row[] }) {
  const open = useStore(session.store, partOfView);
  const most = Math.max(...rows.map(({ score }) => score), 1e-9);
  return (
    <div class="map">
      <h3>{title}</h3>
      <div class="matrix-box" tabIndex={0} role="region" aria-label={title}>
        <ol class="hits">
          {rows.map((row) => (
            <li key={`${row.part} ${row.end ?? ''}`}>
              <button
                type="button"
                aria-pressed={row.part === open}
                disabled={!session.opens(row.part)}
                title={row.title}
                onClick={() => session.open(row.part)}
              >
                <b>{row.part}</b>
                <span class="number">{row.score < 0.005 ? '' : row.score.toFixed(2)}</span>
                <span class="measured">
                  <span>
                    <i
                      class={`length ${row.end === 'bottom' ? 'own' : ''}`}
                      style={{ width: percent(row.score / most).replace(/\s/g, '') }}
                    />
                  </span>
                </span>
                {row.text}
              </button>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

const ENDS = { top: 'promotes', bottom: 'suppresses' } as const;

export function WordedHits({ session }: { session: Session }) {
  const { data, error } = useStore(session.store, (s) => s.worded);
  const words = new Set(folded(useStore(session.store, (s) => s.view.words)));
  const hits = (data?.hits ?? []).map((hit) => ({
    ...hit,
    title: `${hit.part} ${ENDS[hit.end]} ${hit.tokens.map((t) => visible(t.text)).join(' ')}`,
    text: <Tokens tokens={hit.tokens} words={words} />,
  }));
  const labels = (data?.labels ?? []).map(({ part, score, text }) => ({
    part,
    score,
    title: `${part}: ${text}`,
    text: <span class="cut">{text}</span>,
  }));
  const told = data && data.table.ready === data.table.layers;
  return (
    <>
      {error && <p class="refused">{error}</p>}
      {data && <MakeTable session={session} worded={data} />}
      <div class="maps">
        <Rows session={session} title={`neurons: ${hits.length}`} rows={hits} />
        <Rows session={session} title={`labels: ${labels.length}`} rows={labels} />
      </div>
      <p class="told quiet">
        {told
          ? `By BM25 over ${data.table.tokens} tokens at each end of ${data.table.neurons.toLocaleString('en')} value vectors; blue promotes, red suppresses.`
          : 'By BM25; capitals and spaces make no difference.'}
      </p>
    </>
  );
}
