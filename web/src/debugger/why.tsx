/* Why A, not B: every part of the difference of two logits as a signed bar, each with a switch and a scale. */
import { useEffect, useState } from 'preact/hooks';
import type { Scored, Why, WhyPart } from './contract';
import { Tag } from './labels';
import { scaleOf, typed, visible } from './names';
import { UNSAVED, asking } from './replay';
import { share, signed, tiny } from './say';
import type { Session } from './session';
import { partOfView, positionOf } from './state';
import { useStore } from './store';

/* The field of A or of B. What is typed is a token as the model has it, or one of the best with a space before it. */
function TokenField({
  session,
  letter,
  token,
}: {
  session: Session;
  letter: 'A' | 'B';
  token: Scored | null;
}) {
  const column = useStore(session.store, (s) => s.column.data);
  const view = useStore(session.store, (s) => s.view);
  const shown = token ? visible(token.text) : '';
  const [value, setValue] = useState(shown);
  useEffect(() => setValue(shown), [shown]);
  const last = column?.top_tokens.after?.length ?? 0;
  const known = column?.top_tokens.after?.[last - 1] ?? [];
  const commit = (given: string) => {
    if (given === shown) return;
    const exact = typed(given);
    const text =
      known.find((one) => one === exact) ?? known.find((one) => one === ` ${exact}`) ?? exact;
    const next = given === '' ? null : text;
    const { a, b } = {
      a: session.state.why.data?.a.id ?? view.a,
      b: session.state.why.data?.b?.id ?? view.b,
    };
    if (letter === 'A') session.compare(next, next === null ? null : b);
    else session.compare(next === null ? null : a, next);
  };
  return (
    <span class={`field ${letter.toLowerCase()}`}>
      <label>
        {letter}{' '}
        <input
          value={value}
          list={`known-${letter}`}
          aria-label={`Token ${letter}`}
          spellcheck={false}
          autocomplete="off"
          {...asking()}
          onInput={(event) => setValue(event.currentTarget.value)}
          onChange={(event) => commit(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Enter') event.currentTarget.blur();
            event.stopPropagation();
          }}
        />
      </label>
      <datalist id={`known-${letter}`}>
        {known.map((one) => (
          <option key={one} value={visible(one)} />
        ))}
      </datalist>
      <small class="quiet">
        {token?.probability !== undefined && share(token.probability)}
        {token?.rank !== undefined && <span class="aside"> #{token.rank + 1}</span>}
      </small>
    </span>
  );
}

interface RowProps {
  name: string;
  said: string;
  value: number;
  most: number;
}

function Bar({ value, most, name }: { value: number; most: number; name: string }) {
  const beyond = Math.abs(value) > most * 1.001; // others, of which there are thousands: drawn as cut off
  const size = beyond ? 50 : (Math.abs(value) / most) * 50;
  return (
    <span class="bar" role="img" aria-label={`${name}: ${signed(value)} logits`}>
      <i
        class={`${value < 0 ? 'negative' : 'positive'}${beyond ? ' beyond' : ''}`}
        style={{ width: `${size}%`, [value < 0 ? 'right' : 'left']: '50%' }}
      />
    </span>
  );
}

function Sum({ name, said, value, most }: RowProps) {
  return (
    <li class="row sum">
      <span class="name">{name}</span>
      <span class="said quiet">{said}</span>
      <Bar {...{ value, most, name }} />
      <span class="number">{signed(value)}</span>
    </li>
  );
}

function saidOf(part: WhyPart): string {
  if (part.source) return `from ${visible(part.source.text)}`;
  return (part.tokens ?? [])
    .slice(0, 3)
    .map(({ text }) => visible(text))
    .join(' ');
}

export function Switch({
  session,
  part,
  slider = true,
}: {
  session: Session;
  part: string;
  slider?: boolean;
}) {
  const edits = useStore(session.store, (s) => s.view.edits);
  const scale = scaleOf(edits, part);
  return (
    <span class="controls">
      <button
        type="button"
        class="switch"
        role="switch"
        aria-checked={scale !== 0}
        aria-label={`${part} on`}
        {...asking(scale === 0 ? `switch ${part} on` : `switch ${part} off`)}
        onClick={() => session.scale(part, scale === 0 ? 1 : 0)}
      />
      {slider && (
        <input
          type="range"
          min="0"
          max="2"
          step="0.05"
          value={scale ?? 1}
          aria-label={`Scale of ${part}`}
          {...asking(scale === null ? 'edited otherwise' : `× ${scale}`)}
          onChange={(event) => session.scale(part, Number(event.currentTarget.value))}
        />
      )}
    </span>
  );
}

function Part({ session, part, most }: { session: Session; part: WhyPart; most: number }) {
  const open = useStore(session.store, (s) => partOfView(s) === part.part);
  const scale = useStore(session.store, (s) => scaleOf(s.view.edits, part.part));
  return (
    <li class={`row${open ? ' open' : ''}${scale !== 1 ? ' changed' : ''}`}>
      <button
        type="button"
        class="name"
        aria-pressed={open}
        disabled={!session.opens(part.part)}
        title={session.opens(part.part) ? `open ${part.part}` : UNSAVED}
        onClick={() => session.open(part.part)}
      >
        {part.part}
      </button>
      <span class="said" title={(part.tokens ?? []).map(({ text }) => visible(text)).join(' ')}>
        <Tag session={session} part={part.part} />
        {saidOf(part)}
      </span>
      <Bar value={part.value} most={most} name={part.part} />
      <span class="number">{signed(part.value)}</span>
      <Switch session={session} part={part.part} />
    </li>
  );
}

function Bars({ session, why }: { session: Session; why: Why }) {
  const most = Math.max(...[why.embed, ...why.parts.map((part) => part.value)].map(Math.abs), 1e-6);
  return (
    <ul class="bars">
      <Sum name="embed" said="the token itself" value={why.embed} most={most} />
      {why.parts.map((part) => (
        <Part key={part.part} {...{ session, part, most }} />
      ))}
      <Sum name="others" said="all the rest" value={why.others} most={most} />
      {why.bias !== 0 && <Sum name="biases" said="" value={why.bias} most={most} />}
      {!!why.edits && <Sum name="edits" said="what they wrote" value={why.edits} most={most} />}
    </ul>
  );
}

export function WhyPanel({ session }: { session: Session }) {
  const why = useStore(session.store, (s) => s.why);
  const view = useStore(session.store, (s) => s.view);
  const position = useStore(session.store, positionOf);
  const text = useStore(session.store, (s) => s.text);
  const { data } = why;
  return (
    <section
      class={`panel why${why.busy ? ' busy' : ''}`}
      aria-label="Why A, not B"
      aria-busy={why.busy}
    >
      <header>
        <h2>Why A, not B</h2>
        <span class="quiet">
          after <b>{visible(text[position]?.text ?? '')}</b>, position {position}
        </span>
      </header>
      <div class="fields">
        <TokenField session={session} letter="A" token={data?.a ?? null} />
        <TokenField session={session} letter="B" token={data?.b ?? null} />
        <button
          type="button"
          class="plain"
          aria-pressed={view.pinned}
          {...asking('keep A and B when the position changes')}
          onClick={() =>
            session.show(
              view.pinned
                ? { pinned: false }
                : { pinned: true, a: data?.a.id ?? view.a, b: data?.b?.id ?? view.b }
            )
          }
        >
          pin
        </button>
        <button
          type="button"
          class="plain"
          {...asking('back to the two best tokens', view.a === null && view.b === null)}
          onClick={() => session.compare(null, null)}
        >
          two best
        </button>
      </div>
      {why.error && <p class="refused">{why.error}</p>}
      {data && <Bars session={session} why={data} />}
      {data && (
        <p class="account">
          <b>{signed(data.total)} logits</b> = {signed(data.embed)} embedding {signed(data.heads)}{' '}
          heads {signed(data.neurons + data.mlps)} neurons
          {data.bias !== 0 && ` ${signed(data.bias)} biases`}
          {!!data.edits && ` ${signed(data.edits)} edits`}{' '}
          <span class="quiet">leftover {tiny(data.leftover)}</span>
        </p>
      )}
      {!data && !why.error && (
        <p class="quiet waiting">The account of the next token appears here.</p>
      )}
    </section>
  );
}
