/* The views at the left. Those whose routes the server does not have are shown, and say so. */
import { UNSAVED } from './replay';
import type { Session } from './session';
import { useStore } from './store';
import { ROUTES, type Screen } from './view';

interface Entry {
  name: string;
  title: string;
  icon: string; // path in a box of 20
  screen?: Screen;
}

const ENTRIES: Entry[] = [
  {
    name: 'Grid',
    title: 'the lens grid',
    screen: 'grid',
    icon: 'M3 3h6v6H3zM11 3h6v6h-6zM3 11h6v6H3zM11 11h6v6h-6z',
  },
  {
    name: 'Heads',
    title: 'all heads at a position',
    screen: 'heads',
    icon: 'M10 3v6M10 9 4 16M10 9l6 7M10 9v7M8 3h4M3 16h2M9 16h2M15 16h2',
  },
  {
    name: 'Neurons',
    title: 'dominant neurons of each layer',
    screen: 'neurons',
    icon: 'M5 6a2 2 0 1 0 .1 0M15 4a2 2 0 1 0 .1 0M14 13a2 2 0 1 0 .1 0M7 8l6 6M7 7l6-1M15 8v5',
  },
  {
    name: 'Search',
    title: 'tokens to neurons',
    screen: 'search',
    icon: 'M9 4a5 5 0 1 0 .1 0M12.5 12.5 17 17',
  },
  {
    name: 'Patch',
    title: 'activation patching',
    screen: 'patch',
    icon: 'M4 5h6v6H4zM11 10h5v5h-5M10 8h4v2',
  },
  { name: 'Steer', title: 'directions', screen: 'steer', icon: 'M10 3v14M5 8l5-5 5 5' },
  {
    name: 'Diff',
    title: 'two settings of attention, two prompts',
    screen: 'diff',
    icon: 'M5 4v12M15 4v12M8 8h4M8 12h4',
  },
];

export function Rail({ session }: { session: Session }) {
  const screen = useStore(session.store, (s) => s.view.screen);
  const routes = useStore(session.store, (s) => s.capabilities?.routes);
  useStore(session.store, (s) => s.why.data);
  const off = (entry: Entry): string | null => {
    const needed = entry.screen && ROUTES[entry.screen];
    if (!entry.screen || (needed && !needed.some((one) => routes?.includes(one))))
      return `${entry.title}: this server does not have it`;
    return session.shows(entry.screen) ? null : UNSAVED;
  };
  return (
    <nav class="rail" aria-label="Views">
      {ENTRIES.map((entry) => (
        <button
          type="button"
          key={entry.name}
          aria-current={entry.screen === screen ? 'page' : undefined}
          disabled={off(entry) !== null}
          title={off(entry) ?? entry.title}
          onClick={() => entry.screen && session.screen(entry.screen)}
        >
          <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
            <path d={entry.icon} />
          </svg>
          <span>{entry.name}</span>
        </button>
      ))}
    </nav>
  );
}
