/* What is kept beside the model: views under their names, labels of parts, and both as a file. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { exchange, sentence } from './api';
import type { SavedView } from './contract';
import { save } from './exports';
import { loadLabels } from './labels';
import { parsePart } from './names';
import { count } from './say';
import type { Session } from './session';
import { useStore } from './store';
import { addressOf } from './view';

const pathOf = (name: string): string => `v1/views/${encodeURIComponent(name)}`;
const dayOf = (time: number): string => new Date(1000 * time).toISOString().slice(0, 10);
const byName = (a: SavedView, b: SavedView): number => a.name.localeCompare(b.name);
const loadViews = (session: Session) => session.fill('views', 'v1/views', undefined);

const keepView = (name: string, query: string): Promise<string> =>
  exchange('PUT', pathOf(name), { query });

/* The server keeps what follows the page's address, from its ? on. */
const queryOf = (session: Session): string =>
  addressOf(session.state.view).replace(/^(?!\?)/, '?');

/* Carries something out and shows what came of it, or why not, in one sentence. */
type Act = (work: () => Promise<string>) => Promise<void>;

function Views({ session, act }: { session: Session; act: Act }) {
  const views = useStore(session.store, (s) => s.views.data?.views) ?? [];
  const prompt = useStore(session.store, (s) => s.view.prompt);
  const [name, setName] = useState<string | null>(null); // null: as proposed
  const [gone, setGone] = useState<SavedView[]>([]); // until the list is closed they can come back
  const shown = name ?? prompt.replace(/\s+|\//g, ' ').trim().slice(0, 60);
  const replaced = views.some((one) => one.name === shown.trim());
  const keep = (one: string, query: string, told: string) =>
    act(async () => {
      await keepView(one, query);
      setGone(gone.filter((other) => other.name !== one));
      await loadViews(session);
      return told;
    });
  const remove = (one: SavedView) =>
    act(async () => {
      await exchange('DELETE', pathOf(one.name));
      setGone([...gone, one]);
      await loadViews(session);
      return `“${one.name}” is deleted.`;
    });
  const lost = gone.filter((one) => !views.some((other) => other.name === one.name));
  return (
    <>
      <form
        class="pair"
        onSubmit={(event) => {
          event.preventDefault();
          const one = shown.trim();
          void keep(one, queryOf(session), `“${one}” is saved.`);
        }}
      >
        <input
          name="view"
          aria-label="Name of this view"
          placeholder="name of this view"
          required
          maxLength={80}
          pattern="[^\/]*"
          title="what stands on the page now, under a name without a slash"
          spellcheck={false}
          autocomplete="off"
          value={shown}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <button type="submit" class="run">
          {replaced ? 'Replace' : 'Save'}
        </button>
      </form>
      <ul class="kept">
        {[...views, ...lost].sort(byName).map((one) => {
          const deleted = lost.includes(one);
          return (
            <li key={one.name}>
              {deleted ? (
                <s class="cut quiet">{one.name}</s>
              ) : (
                <button
                  type="button"
                  class="plain open cut"
                  title={one.query}
                  onClick={() => {
                    session.store.set({ shelf: false });
                    session.restore(one.query);
                  }}
                >
                  {one.name}
                </button>
              )}
              <span class="quiet number">{dayOf(one.time)}</span>
              <button
                type="button"
                class="plain"
                aria-label={deleted ? `Bring ${one.name} back` : `Delete ${one.name}`}
                onClick={() =>
                  void (deleted
                    ? keep(one.name, one.query, `“${one.name}” is back.`)
                    : remove(one))
                }
              >
                {deleted ? 'undo' : 'delete'}
              </button>
            </li>
          );
        })}
      </ul>
      {!views.length && !lost.length && (
        <p class="quiet">None yet. A view is all that the address says: text, cell, edits, parts.</p>
      )}
    </>
  );
}

function LabelList({ session, act }: { session: Session; act: Act }) {
  const data = useStore(session.store, (s) => s.labels.data);
  const file = useRef<HTMLInputElement>(null);
  const labels = data?.labels ?? [];
  const merge = async (given: File) => {
    const answer = await exchange('POST', 'v1/labels/import', await given.text());
    const read = JSON.parse(answer) as { labels: number; views: number; changed: number };
    await Promise.all([loadLabels(session), loadViews(session)]);
    return `${count(read.labels, 'label')} and ${count(read.views, 'view')} read, ${read.changed} of them new here.`;
  };
  return (
    <>
      <ul class="kept">
        {labels.map(({ part, text, from }) => (
          <li key={part}>
            {parsePart(part) ? (
              <button
                type="button"
                class="plain open part"
                onClick={() => {
                  session.store.set({ shelf: false });
                  session.open(part);
                }}
              >
                {part}
              </button>
            ) : (
              <span class="open part cut">{part}</span>
            )}
            <span class="cut said" title={text}>
              {text}
            </span>
            {from && (
              <span class="quiet" title={from}>
                another file
              </span>
            )}
          </li>
        ))}
      </ul>
      {!labels.length && (
        <p class="quiet">None yet. The card of a head or neuron takes one: L, or a click on its name.</p>
      )}
      <p class="outs">
        <button
          type="button"
          title="labels and views as lines of JSON, which merge in git"
          onClick={() =>
            void act(async () => {
              const text = await exchange('GET', 'v1/labels/export');
              save('keyhole-labels.jsonl', 'application/x-ndjson', text);
              return `${count(text.split('\n').filter(Boolean).length, 'line')} exported.`;
            })
          }
        >
          Export
        </button>
        <button
          type="button"
          title="merges such a file: of two labels of a part the newer one stays"
          onClick={() => file.current?.click()}
        >
          Import
        </button>
        <input
          ref={file}
          type="file"
          hidden
          aria-label="File of labels"
          accept=".jsonl,.ndjson,application/x-ndjson"
          onChange={(event) => {
            const field = event.currentTarget;
            const given = field.files?.[0];
            if (given) void act(() => merge(given)).then(() => (field.value = ''));
          }}
        />
      </p>
    </>
  );
}

export function Shelf({ session }: { session: Session }) {
  const open = useStore(session.store, (s) => s.shelf);
  const failed = useStore(session.store, (s) => s.views.error ?? s.labels.error);
  const [said, setSaid] = useState<string | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (!open) return dialog.current?.close();
    setSaid(null);
    setRefused(null);
    void loadViews(session);
    void loadLabels(session);
    if (!dialog.current?.open) dialog.current?.showModal();
  }, [open]);
  const act: Act = async (work) => {
    setRefused(null);
    try {
      setSaid(await work());
    } catch (error) {
      setSaid(null);
      setRefused(sentence(error));
    }
  };
  return (
    <dialog
      ref={dialog}
      class="shelf"
      aria-label="Saved views and labels"
      onClose={() => session.store.set({ shelf: false })}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      {open && (
        <>
          <h2>Saved views</h2>
          <Views session={session} act={act} />
          <h2>Labels</h2>
          <LabelList session={session} act={act} />
          {(refused ?? failed) && (
            <p class="refused" role="alert">
              {refused ?? failed}
            </p>
          )}
          <form method="dialog">
            <button type="submit">Close</button>
            <span class="quiet" role="status">
              {said}
            </span>
          </form>
        </>
      )}
    </dialog>
  );
}
