/* Base text beside edited text, where they part, and how far apart the distributions are at each token. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Generated } from './contract';
import { visible } from './names';
import { asking } from './replay';
import { nats, share } from './say';
import type { Session } from './session';
import type { Run } from './state';
import { useStore } from './store';

function Side({
  title,
  tokens,
  apart,
  kind,
}: {
  title: string;
  tokens: Generated[];
  apart: number | null;
  kind: string;
}) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const mark = box.current?.querySelector<HTMLElement>('.apart');
    if (box.current && mark)
      box.current.scrollTop = Math.max(0, mark.offsetTop - box.current.offsetTop - 20);
  }, [apart, tokens.length]);
  return (
    <div ref={box} class={`side ${kind}`} role="region" aria-label={`${title} text`} tabIndex={0}>
      <h3>{title}</h3>
      <p>
        {tokens.map((token, i) => (
          <span
            key={i}
            class={apart === i ? 'apart' : apart !== null && i > apart ? 'behind' : ''}
            title={`${visible(token.text)}: ${share(Math.exp(token.logprob))}${apart === i ? ', here they part' : ''}`}
          >
            {token.text.replace(/\r?\n/g, '↵\u200b')}
          </span>
        ))}
      </p>
    </div>
  );
}

function Distances({ run }: { run: Run }) {
  const most = Math.max(...run.compared.map(({ kl }) => kl), 0.1);
  return (
    <div class="distances" role="img" aria-label={`KL of each token, at most ${nats(most)}`}>
      <small class="quiet">
        KL per token, most {nats(Math.max(...run.compared.map(({ kl }) => kl)))}
      </small>
      <div class="distance-bars">
        {run.compared.map((one, i) => (
          <i
            key={i}
            class={run.done?.divergence === i ? 'apart' : ''}
            style={{ height: `${Math.max(1, 100 * (one.kl / most))}%` }}
            title={`${nats(one.kl)}; base ${visible(one.base_top.text)} ${share(one.base_top.probability ?? 0)}, edited ${visible(one.edited_top.text)} ${share(one.edited_top.probability ?? 0)}`}
          />
        ))}
      </div>
    </div>
  );
}

function Edits({ session }: { session: Session }) {
  const edits = useStore(session.store, (s) => s.view.edits);
  const steer = useStore(session.store, (s) => s.view.steer);
  const undo = useStore(session.store, (s) => s.undo.length);
  const command = useStore(session.store, (s) => s.run.data?.command ?? null);
  const [copied, setCopied] = useState(false);
  return (
    <div class="chips" role="group" aria-label="Edits">
      {edits.map((edit) => (
        <span class="chip" key={edit}>
          <button
            type="button"
            class="chip-name"
            title="open this part"
            onClick={() => session.open(edit.split(':')[0]!)}
          >
            {edit}
          </button>
          <button
            type="button"
            aria-label={`Remove ${edit}`}
            {...asking('remove')}
            onClick={() => session.setEdits(edits.filter((one) => one !== edit))}
          >
            ×
          </button>
        </span>
      ))}
      {steer.map((one) => (
        <span class="chip" key={one.name}>
          <button
            type="button"
            class="chip-name"
            {...(session.shows('steer') ? { title: 'its strength' } : asking())}
            onClick={() => session.screen('steer')}
          >
            {one.name} × {Number(one.scale.toFixed(2))}
          </button>
          <button
            type="button"
            aria-label={`Remove ${one.name}`}
            {...asking('remove')}
            onClick={() => void session.steer({ ...one, scale: 0 })}
          >
            ×
          </button>
        </span>
      ))}
      <input
        class="add-edit"
        aria-label="Add an edit"
        placeholder="+ L12H3:scale=0.5@3-7"
        spellcheck={false}
        autocomplete="off"
        {...asking()}
        onKeyDown={(event) => {
          const given = event.currentTarget.value.trim();
          if (event.key !== 'Enter' || !given) return;
          event.currentTarget.value = '';
          session.setEdits([...edits.filter((one) => one !== given), given]);
        }}
      />
      <button
        type="button"
        class="plain"
        {...asking('undo the last edit (Ctrl-Z)', !undo)}
        onClick={() => session.undo()}
      >
        undo
      </button>
      <button
        type="button"
        class="plain"
        disabled={!command}
        title={command ?? ''}
        onClick={() => {
          void navigator.clipboard?.writeText(command ?? '').then(() => {
            setCopied(true);
            setTimeout(() => setCopied(false), 1500);
          });
        }}
      >
        {copied ? 'copied' : 'copy as command'}
      </button>
    </div>
  );
}

export function Compare({ session }: { session: Session }) {
  const run = useStore(session.store, (s) => s.run);
  const edits = useStore(session.store, (s) => s.view.edits);
  const steer = useStore(session.store, (s) => s.view.steer);
  const changed = edits.length + steer.length > 0;
  const { data } = run;
  const apart = data?.done?.divergence ?? null;
  return (
    <section
      class={`panel compare${run.busy ? ' busy' : ''}`}
      aria-label="Base beside edited text"
      aria-busy={run.busy}
    >
      <header>
        <h2>Base beside edited</h2>
        <Edits session={session} />
      </header>
      {run.error && <p class="refused">{run.error}</p>}
      <div class="sides">
        <Side title="base" kind="base" tokens={data?.base ?? []} apart={changed ? apart : null} />
        {changed ? (
          <Side title="edited" kind="edited" tokens={data?.edited ?? []} apart={apart} />
        ) : (
          <div class="side quiet">
            <h3>edited</h3>
            <p>Switch a part off, or move its slider, to see what the model says without it.</p>
          </div>
        )}
      </div>
      <div class="apart-line quiet">
        {changed && data?.done && (
          <span>
            {apart === null ? 'The same text.' : `They part at token ${apart + 1} of the output.`}
          </span>
        )}
        {changed && data && data.compared.length > 0 && <Distances run={data} />}
      </div>
    </section>
  );
}
