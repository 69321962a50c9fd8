/* What people found out about heads and neurons: beside their names, and written on their card. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { exchange, sentence } from './api';
import type { Label, Labels } from './contract';
import { saved } from './replay';
import type { Session } from './session';
import { useStore } from './store';

const maps = new WeakMap<Labels, Map<string, Label>>();

export function labelIn(labels: Labels | null, part: string): Label | undefined {
  if (!labels) return undefined;
  let map = maps.get(labels);
  if (!map) {
    map = new Map(labels.labels.map((one) => [one.part, one]));
    maps.set(labels, map);
  }
  return map.get(part);
}

export const loadLabels = (session: Session): Promise<void> =>
  session.fill('labels', 'v1/labels', undefined);

/* An empty text takes the label away. */
async function write(session: Session, part: string, text: string): Promise<void> {
  await exchange('PUT', 'v1/labels', { part, text });
  await loadLabels(session);
}

const toldOf = ({ text, from }: Label): string =>
  from ? `${text} (label of this model’s file ${from})` : text;

/* The label of a part where its name stands; nothing where it has none. */
export function Tag({ session, part }: { session: Session; part: string }) {
  const labels = useStore(session.store, (s) => s.labels.data);
  const label = labelIn(labels, part);
  if (!label) return null;
  return (
    <span class={`tag${label.from ? ' foreign' : ''}`} title={toldOf(label)}>
      {label.text}
    </span>
  );
}

/* The same on the card of the part, where it can be written: #label opens the field. */
export function LabelField({ session, part }: { session: Session; part: string }) {
  const labels = useStore(session.store, (s) => s.labels);
  const there = useStore(session.store, (s) => s.capabilities?.routes?.includes('/v1/labels'));
  const [draft, setDraft] = useState<string | null>(null); // null: nobody writes
  const [refused, setRefused] = useState<string | null>(null);
  const field = useRef<HTMLInputElement>(null);
  const open = useRef(false);
  const writing = draft !== null;
  useLayoutEffect(() => {
    open.current = writing;
    field.current?.focus();
    field.current?.select();
  }, [writing]);
  const label = labelIn(labels.data, part);
  if (saved || !there) return label ? <Tag session={session} part={part} /> : null;

  const close = (focus: boolean) => {
    open.current = false;
    setRefused(null);
    setDraft(null);
    if (focus) requestAnimationFrame(() => document.getElementById('label')?.focus());
  };
  /* The field stays open where the server refuses, with what was typed. */
  const commit = async (focus: boolean) => {
    if (!open.current) return;
    open.current = false;
    const text = (field.current?.value ?? '').trim();
    try {
      if (text !== (label?.text ?? '')) await write(session, part, text);
      close(focus);
    } catch (error) {
      open.current = true;
      setRefused(sentence(error));
    }
  };
  if (!writing)
    return (
      <button
        type="button"
        id="label"
        class={`plain label${label ? ' tag' : ''}${label?.from ? ' foreign' : ''}`}
        aria-label={label ? `Label of ${part}: ${label.text}` : `Write a label for ${part}`}
        title={
          labels.error ?? (label ? `${toldOf(label)}: change it (L)` : `name what ${part} does (L)`)
        }
        disabled={!labels.data}
        onClick={() => setDraft(label?.text ?? '')}
      >
        {label?.text ?? '+ label'}
      </button>
    );
  return (
    <>
      <input
        ref={field}
        class="label-text"
        value={draft}
        aria-label={`Label of ${part}`}
        aria-invalid={refused !== null}
        placeholder="what it does"
        title="Enter keeps it, Esc leaves it as it was; an empty one takes the label away"
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => setDraft(event.currentTarget.value)}
        onBlur={() => void commit(false)}
        onKeyDown={(event) => {
          event.stopPropagation();
          if (event.key === 'Enter') void commit(true);
          if (event.key === 'Escape') close(true);
        }}
      />
      {refused && (
        <span class="refused" role="alert">
          {refused}
        </span>
      )}
    </>
  );
}
