/* Activation patching: two prompts token by token, and how far each part of the clean one, written into the corrupted
 * one, moves the answer towards the clean one's. */
import { useState } from 'preact/hooks';
import type { PatchMeta, PatchRow } from './contract';
import { percent } from '../common/units';
import { Tag } from './labels';
import { nameOf, visible } from './names';
import { asking } from './replay';
import { signed } from './say';
import type { Session } from './session';
import type { MapKind } from './state';
import { useStore } from './store';
import { loadMap, runPatch, setEstimate } from './sweep';
import { tint } from './tint';

const PARTS = [
  ['pre', 'stream', 'the residual stream before a layer'],
  ['attn_out', 'attention', 'what attention of a layer adds to the stream'],
  ['mlp_out', 'feed-forward', 'what feed-forward of a layer adds to the stream'],
] as const;
const WAYS = [
  ['heads', 'all ways', 'whatever follows from a head, in all layers above it'],
  ['paths', 'to the logits', 'what a head gives to the answer itself, other heads held still'],
] as const;
type Choices = readonly (readonly [MapKind, string, string])[];

const wholePercent = (share: number, estimate?: boolean): string =>
  `${estimate ? '≈\u00a0' : ''}${signed(100 * share, 0)}\u00a0%`;

/* Both prompts, one token above the other. */
function Tokens({ meta, from }: { meta: PatchMeta; from: number }) {
  const rows = [
    ['clean', meta.clean.tokens, meta.corrupted.tokens],
    ['corrupted', meta.corrupted.tokens, meta.clean.tokens],
  ] as const;
  return (
    <thead>
      {rows.map(([name, tokens, others]) => (
        <tr key={name}>
          <th scope="row" class="quiet">
            {name}
          </th>
          {tokens.slice(from).map((token, i) => (
            <th
              key={i}
              scope="col"
              class={`cut ${others[from + i]?.id === token.id ? 'quiet' : `parted ${name}`}`}
              title={`position ${from + i}: ${visible(token.text)}`}
            >
              {visible(token.text)}
            </th>
          ))}
        </tr>
      ))}
    </thead>
  );
}

function Numbers({ heads }: { heads: number }) {
  return (
    <thead>
      <tr>
        <th scope="col" class="quiet">
          layer
        </th>
        {Array.from({ length: heads }, (_, i) => (
          <th scope="col" key={i} class="quiet">
            H{i}
          </th>
        ))}
      </tr>
    </thead>
  );
}

interface MapProps {
  session: Session;
  kind: MapKind;
  layers: number;
  rows: PatchRow[];
  blank: number; // columns before the first difference, which are the same in both
}

function Cells({ session, kind, layers, rows, blank }: MapProps) {
  const spot = useStore(session.store, (s) => s.spot);
  return (
    <tbody>
      {Array.from({ length: layers }, (_, i) => layers - 1 - i).map((layer) => (
        <tr key={layer}>
          <th scope="row" class="quiet">
            {layer}
          </th>
          {Array.from({ length: blank }, (_, i) => (
            <td key={`same${i}`} class="same" title="the same in both prompts" />
          ))}
          {(rows[layer]?.shares ?? []).map((share, column) => {
            const chosen = spot?.kind === kind && spot.layer === layer && spot.column === column;
            const said = wholePercent(share ?? 0, rows[layer]?.estimate);
            const where =
              kind === 'heads' || kind === 'paths' ? `head ${column}` : `column ${blank + column}`;
            return (
              <td key={column}>
                <button
                  type="button"
                  aria-label={`layer ${layer}, ${where}: ${said}`}
                  aria-pressed={chosen}
                  title={said}
                  style={{ background: tint(share ?? 0, 1) }}
                  onClick={() =>
                    session.store.set({ spot: chosen ? null : { kind, layer, column } })
                  }
                />
              </td>
            );
          })}
        </tr>
      ))}
    </tbody>
  );
}

function Choice({
  session,
  label,
  choices,
  chosen,
  choose,
}: {
  session: Session;
  label: string;
  choices: Choices;
  chosen: MapKind;
  choose: (kind: MapKind) => void;
}) {
  const data = useStore(session.store, (s) => s.patch.data);
  return (
    <div class="choice" role="group" aria-label={label}>
      {choices.map(([kind, name, title]) => (
        <button
          type="button"
          key={kind}
          aria-pressed={chosen === kind}
          {...(data?.maps[kind] ? { title } : asking(title))}
          onClick={() => {
            choose(kind);
            loadMap(session, kind);
          }}
        >
          {name}
        </button>
      ))}
    </div>
  );
}

function Prompts({ session }: { session: Session }) {
  const clean = useStore(session.store, (s) => s.view.clean);
  const corrupted = useStore(session.store, (s) => s.view.corrupted);
  const estimate = useStore(session.store, (s) => s.view.estimate);
  const busy = useStore(session.store, (s) => s.patch.busy);
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        const given = new FormData(event.currentTarget);
        const field = (name: string) => String(given.get(name) ?? '');
        session.show({ clean: field('clean'), corrupted: field('corrupted') });
        void runPatch(session);
      }}
    >
      {(['clean', 'corrupted'] as const).map((name) => (
        <label key={name}>
          <span class="quiet">{name}</span>
          <input
            name={name}
            spellcheck={false}
            autocomplete="off"
            defaultValue={name === 'clean' ? clean : corrupted}
            {...asking(
              name === 'clean' ? 'the prompt that is taken from' : 'the prompt that is written into'
            )}
          />
        </label>
      ))}
      <div class="ways">
        <div class="choice">
          <button
            type="button"
            aria-pressed={estimate}
            {...asking('every cell to first order, from one backward pass of the answer')}
            onClick={() => setEstimate(session, !estimate)}
          >
            estimate (one backward)
          </button>
        </div>
        <button type="submit" class="run" aria-busy={busy} {...asking()}>
          Patch
        </button>
      </div>
    </form>
  );
}

/* The metric, and the cell that is chosen, in numbers. */
function Told({ session }: { session: Session }) {
  const spot = useStore(session.store, (s) => s.spot);
  const patch = useStore(session.store, (s) => s.patch);
  const { meta, maps } = patch.data ?? { meta: null, maps: {} };
  const row = spot && maps[spot.kind]?.[spot.layer];
  if (!meta) return <p class="told quiet">{patch.busy ? 'reading both prompts…' : ''}</p>;
  if (!spot || !row) {
    const done = Object.values(maps).reduce(
      (n, rows) => n + rows.flatMap((r) => r.shares).length,
      0
    );
    return (
      <p class="told quiet" aria-live="polite">
        {patch.busy
          ? `${done} cells so far`
          : 'Blue moves the answer to the clean prompt’s, red away from it; a click says how far.'}
      </p>
    );
  }
  const { kind, layer, column } = spot;
  const head =
    kind === 'heads' || kind === 'paths' ? nameOf({ kind: 'head', layer, index: column }) : null;
  const position = meta.first + column;
  const [from, to] = [meta.clean, meta.corrupted].map(({ tokens }) =>
    visible(tokens[position]?.text ?? '')
  );
  const what = {
    pre: `stream before layer ${layer}`,
    attn_out: `attention of layer ${layer}`,
    mlp_out: `feed-forward of layer ${layer}`,
    heads: `head ${head}`,
    paths: `head ${head}, to the logits`,
  }[kind];
  return (
    <p class="told" aria-live="polite">
      <b>{what}</b>
      {!head && ` at ${position}, ${to}${from === to ? '' : ` as ${from}`}`}: A − B{' '}
      <b>
        {row.estimate && '≈ '}
        {signed(row.values[column] ?? 0)} logits
      </b>
      {row.estimate && ' estimated'}, {percent(row.shares[column] ?? 0)} of the way
      to the clean prompt{' '}
      {head && (
        <button
          type="button"
          class="word"
          disabled={!session.opens(head)}
          title="its row of attention in the text above"
          onClick={() => session.open(head)}
        >
          open {head}
        </button>
      )}
    </p>
  );
}

function Strongest({ session }: { session: Session }) {
  const rows = useStore(session.store, (s) => s.patch.data?.maps.heads ?? null);
  if (!rows) return null;
  const heads = rows
    .flatMap(({ layer, shares, estimate }) =>
      shares.map((share, column) => ({ layer, column, estimate, share: share ?? 0 }))
    )
    .sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
  return (
    <p class="words">
      <span class="quiet">strongest heads</span>
      {heads.slice(0, 4).map(({ layer, column, estimate, share }) => (
        <button
          type="button"
          class="word"
          key={`${layer}.${column}`}
          onClick={() => session.store.set({ spot: { kind: 'heads', layer, column } })}
        >
          L{layer}H{column} <Tag session={session} part={`L${layer}H${column}`} />
          <small class="quiet">{wholePercent(share, estimate)}</small>
        </button>
      ))}
    </p>
  );
}

/* What the maps are, where they are no runs. Paths are. */
function Estimated({ meta, rows }: { meta: PatchMeta; rows: PatchRow[] | undefined }) {
  const estimate = rows?.some((row) => row?.estimate);
  if (!estimate) return null;
  const title = `gradient times clean − corrupted, exact where the model is linear; ${meta.cost.rows} rows were read, the exact sweep reads ${meta.exact_cost?.rows ?? 'more'}`;
  return (
    <span class="estimated" title={title}>
      ≈ estimates
    </span>
  );
}

export function PatchScreen({ session }: { session: Session }) {
  const patch = useStore(session.store, (s) => s.patch);
  const layers = useStore(session.store, (s) => s.capabilities?.model.layers ?? 0);
  const heads = useStore(session.store, (s) => s.capabilities?.model.heads ?? 0);
  const [chosenPart, setPart] = useState<MapKind>('pre');
  const [chosenWay, setWay] = useState<MapKind>('heads');
  const { meta, maps } = patch.data ?? { meta: null, maps: {} };
  /* Other prompts begin with the first maps again. */
  const part = maps[chosenPart] || patch.busy ? chosenPart : 'pre';
  const way = maps[chosenWay] || patch.busy ? chosenWay : 'heads';
  const from = meta && meta.clean.tokens.length > 24 ? meta.first : 0; // of a long text, what differs
  return (
    <section
      class={`panel patch${patch.busy ? ' busy' : ''}`}
      aria-label="Activation patching"
      aria-busy={patch.busy}
    >
      <header>
        <h2>Patch</h2>
        {meta && (
          <span class="quiet">
            A <b class="positive-text">{visible(meta.a.text)}</b>
            {meta.b && (
              <>
                {' '}
                − B <b class="negative-text">{visible(meta.b.text)}</b>
              </>
            )}
            {meta.clean.value !== null &&
              `: clean ${signed(meta.clean.value)}, corrupted ${signed(meta.corrupted.value ?? 0)} logits`}
          </span>
        )}
      </header>
      <Prompts session={session} />
      {patch.error && <p class="refused">{patch.error}</p>}
      {meta && (
        <div class="maps">
          <div class="map">
            <div class="which">
              <Choice
                {...{ session, choices: PARTS, chosen: part, choose: setPart }}
                label="What is patched"
              />
              <Estimated meta={meta} rows={maps[part]} />
            </div>
            <div class="matrix-box" tabIndex={0} role="region" aria-label="Layers by positions">
              <table class="matrix">
                <Tokens meta={meta} from={from} />
                <Cells
                  {...{ session, layers }}
                  kind={part}
                  rows={maps[part] ?? []}
                  blank={meta.first - from}
                />
              </table>
            </div>
          </div>
          <div class="map">
            <div class="which">
              <Choice
                {...{ session, choices: WAYS, chosen: way, choose: setWay }}
                label="Ways from a head"
              />
              <Estimated meta={meta} rows={maps[way]} />
            </div>
            <div class="matrix-box" tabIndex={0} role="region" aria-label="Layers by heads">
              <table class="matrix">
                <Numbers heads={heads} />
                <Cells {...{ session, layers }} kind={way} rows={maps[way] ?? []} blank={0} />
              </table>
            </div>
          </div>
        </div>
      )}
      {!meta && !patch.error && (
        <p class="quiet waiting">Two prompts of as many tokens are aligned here.</p>
      )}
      <Strongest session={session} />
      <Told session={session} />
    </section>
  );
}
