/* What the last question took, and the ways out of the page. */
import { useState } from 'preact/hooks';
import { bytes, time } from '../common/units';
import { saveCsv, saveHtml, saveJson, saveSvg } from './exports';
import { asking, saved } from './replay';
import type { Session } from './session';
import { useStore } from './store';
import { addressOf } from './view';

export function Footer({ session }: { session: Session }) {
  const last = useStore(session.store, (s) => s.last);
  const peak = useStore(session.store, (s) => s.peak);
  const version = useStore(session.store, (s) => s.capabilities?.keyhole);
  const keeps = useStore(session.store, (s) => s.capabilities?.routes?.includes('/v1/views'));
  const reading = useStore(session.store, (s) => s.reading);
  const busy = useStore(
    session.store,
    (s) => s.run.busy || s.why.busy || s.head.busy || s.neuron.busy
  );
  const [copied, setCopied] = useState(false);
  const link = () => {
    history.replaceState(null, '', addressOf(session.state.view) || location.pathname);
    void navigator.clipboard?.writeText(location.href).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  };
  return (
    <footer class="foot">
      <span class="quiet" aria-live="off">
        {reading
          ? `reading ${reading.read.toLocaleString('en')} of ${reading.of.toLocaleString('en')} tokens… `
          : busy
            ? 'computing… '
            : ''}
        {saved &&
          `A view that was saved on ${saved.day}: it has what was open then, and asks nobody.`}
        {!saved && last && `${last.name} ${time(last.seconds)}`}
        {!saved && peak !== null && ` · ${bytes(peak)} at most`}
      </span>
      <span class="outs">
        {keeps && (
          <button
            type="button"
            id="saved-views"
            class="plain"
            onClick={() => session.store.set({ shelf: true })}
            {...asking('views and labels that are kept beside the model (S)')}
          >
            saved
          </button>
        )}
        <button
          type="button"
          class="plain"
          onClick={link}
          {...asking('copy the address of this view')}
        >
          {copied ? 'copied' : 'link'}
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => saveSvg(session)}
          title="the grid as a picture"
        >
          SVG
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => saveCsv(session)}
          title="the cells of the grid as rows"
        >
          CSV
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => saveJson(session)}
          title="everything that is shown"
        >
          JSON
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => saveHtml(session)}
          title="this view as one file, which opens without the model"
        >
          HTML
        </button>
        <button
          type="button"
          class="plain"
          aria-label="Keys"
          title="list of keys"
          onClick={() => session.store.set({ keys: true })}
        >
          ? keys
        </button>
        {version && <span class="quiet">keyhole {version}</span>}
      </span>
    </footer>
  );
}
