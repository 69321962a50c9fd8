/* The lens grid: positions across, layers upward, the top token of each cell, its probability as the shade. The
 * element scrolls; a canvas of its size stays in place and shows what is in sight. */
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import {
  geometryOf,
  scrollTo,
  seen,
  spotAt,
  tall,
  wide,
  xOf,
  yOf,
  type Geometry,
  type Spot,
} from './geometry';
import { visible } from './names';
import { paint } from './paint';
import { asking, saved } from './replay';
import { moved, nats, share } from './say';
import type { Session } from './session';
import { layerOf, partOfView, positionOf, type State } from './state';
import { useStore } from './store';
import { onSystemTheme, palette } from './theme';

/* Where the head whose card is open takes most from. */
function sourceOf(state: State): Spot | null {
  const name = partOfView(state);
  const part = state.why.data?.parts.find((one) => one.part === name);
  return part?.source && state.why.data?.position === positionOf(state)
    ? { position: part.source.position, layer: part.layer }
    : null;
}

function tell(state: State, session: Session): string {
  const { view, text, column } = state;
  const [position, layer] = [positionOf(state), layerOf(state)];
  const cell = session.lens.column(position, view.tap);
  const where = `${view.tap} layer ${layer} at ${position} ${visible(text[position]?.text ?? '')}`;
  if (!cell) return where;
  const top = `${visible(cell.texts[layer]?.[0] ?? '')} ${share(cell.shares[layer]?.[0] ?? 0)}`;
  const rows = column.data?.position === position ? column.data.tracked?.[view.tap] : undefined;
  const ranks = (rows?.[layer] ?? []).map(
    ({ rank }, i) =>
      `${'AB'[i]} rank ${(rank + 1).toLocaleString('en')}${moved(rows?.[layer - 1]?.[i]?.rank, rank)}`
  );
  const numbers = [
    `entropy ${nats(cell.entropy[layer] ?? 0)}`,
    `KL to final ${nats(cell.kl[layer] ?? 0)}`,
  ];
  return [`${where}: ${top}`, ...numbers, ...ranks].join(' · ');
}

function Tip({ session, spot, geometry }: { session: Session; spot: Spot; geometry: Geometry }) {
  const { view } = session.state;
  const cell = session.lens.column(spot.position, view.tap);
  if (!cell) return null;
  const { layer } = spot;
  const right = xOf(geometry, spot.position) > geometry.width / 2;
  const x = xOf(geometry, spot.position) + (right ? -6 : geometry.column + 6);
  const y = Math.max(2, Math.min(yOf(geometry, layer) - 8, geometry.height - 150));
  return (
    <div
      class="tip"
      style={{ left: `${x}px`, top: `${y}px`, translate: right ? '-100% 0' : '0 0' }}
      aria-hidden="true"
    >
      <b>
        layer {layer}, {view.tap}
      </b>
      {(cell.texts[layer] ?? []).map((text, i) => (
        <div class="tip-row" key={i}>
          <span>{visible(text)}</span>
          <i style={{ width: `${60 * (cell.shares[layer]?.[i] ?? 0)}px` }} />
          <span class="number">{share(cell.shares[layer]?.[i] ?? 0)}</span>
        </div>
      ))}
      <div class="quiet">
        entropy {nats(cell.entropy[layer] ?? 0)}
        <br />
        KL to final {nats(cell.kl[layer] ?? 0)}
      </div>
    </div>
  );
}

export function Grid({ session }: { session: Session }) {
  const state = useStore(session.store, (s) => s);
  const { view, text, prompt, capabilities } = state;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [hover, setHover] = useState<Spot | null>(null);
  const [, themed] = useState(0);
  const frame = useRef(0);
  const layers = capabilities?.model.layers ?? 0;
  const selected = { position: positionOf(state), layer: layerOf(state) };

  const measured = (): Geometry =>
    geometryOf(
      size.width,
      size.height,
      text.length,
      layers,
      box.current?.scrollLeft ?? 0,
      box.current?.scrollTop ?? 0
    );

  useLayoutEffect(() => {
    const measure = () => {
      const { clientWidth = 0, clientHeight = 0 } = box.current ?? {};
      setSize((was) =>
        was.width === clientWidth && was.height === clientHeight
          ? was
          : { width: clientWidth, height: clientHeight }
      );
    };
    const observer = new ResizeObserver(measure);
    if (box.current) observer.observe(box.current);
    measure();
    onSystemTheme(() => themed((n) => n + 1));
    return () => observer.disconnect();
  }, []);

  /* At most once a frame, from what is true then. */
  const drawLater = useRef(() => {});
  drawLater.current = () => {
    const element = canvas.current;
    const paper = element?.getContext('2d', { alpha: false });
    if (!element || !paper || !size.width) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    if (element.width !== width || element.height !== height)
      Object.assign(element, { width, height });
    paper.setTransform(ratio, 0, 0, ratio, 0, 0);
    const { column, why } = state;
    const names = [why.data?.a.text, why.data?.b?.text].filter((name) => name !== undefined);
    paint(paper, {
      geometry: measured(),
      palette: palette(),
      lens: session.lens,
      tap: view.tap,
      text,
      prompt,
      selected,
      hover,
      source: sourceOf(state),
      tracked:
        column.data?.position === selected.position
          ? { column: column.data, names, position: selected.position }
          : null,
      vocabulary: capabilities?.model.vocabulary ?? 50000,
    });
  };
  const ask = () => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => drawLater.current());
  };
  useEffect(ask);

  const look = () => {
    const [first, end] = seen(measured());
    session.lens.look(first, end, view.tap);
  };
  const pause = useRef(0);
  const onScroll = () => {
    ask();
    clearTimeout(pause.current);
    pause.current = window.setTimeout(look, 60);
  };
  useEffect(look, [size, text, view.tap, layers]);

  useLayoutEffect(() => {
    if (!size.width || !text.length) return;
    const to = scrollTo(measured(), selected);
    if (box.current) Object.assign(box.current, { scrollLeft: to.left, scrollTop: to.top });
  }, [selected.position, selected.layer, size, text.length === 0]);

  const at = (event: MouseEvent): Spot | null => {
    const place = box.current!.getBoundingClientRect();
    return spotAt(measured(), event.clientX - place.left, event.clientY - place.top);
  };
  const onMove = (event: MouseEvent) => {
    const spot = at(event);
    setHover((was) =>
      was?.position === spot?.position && was?.layer === spot?.layer ? was : spot
    );
  };
  const geometry = measured();
  return (
    <div class="grid-place">
      <div
        class="grid-box"
        ref={box}
        tabIndex={0}
        role="group"
        aria-roledescription="grid of cells"
        aria-label="Lens grid: positions across, layers upward; arrow keys move the selected cell"
        onScroll={onScroll}
        onMouseMove={onMove}
        onMouseLeave={() => setHover(null)}
        onClick={(event) => {
          const spot = at(event);
          if (spot) session.select(spot.position, spot.layer);
        }}
        onDblClick={() => session.show({ panel: 'cell' })}
      >
        <canvas
          ref={canvas}
          class="grid-canvas"
          style={{ width: `${size.width}px`, height: `${size.height}px` }}
        />
        <div
          class="spacer"
          style={{ width: `${wide(geometry)}px`, height: `${tall(geometry)}px` }}
        />
      </div>
      {hover && <Tip session={session} spot={hover} geometry={geometry} />}
    </div>
  );
}

const TAPS = ['before', 'between', 'after'] as const;
const TAP_TITLES = {
  before: 'the residual stream before attention',
  between: 'between attention and feed-forward',
  after: 'after the feed-forward part',
};

export function GridScreen({ session }: { session: Session }) {
  const view = useStore(session.store, (s) => s.view);
  const capabilities = useStore(session.store, (s) => s.capabilities);
  const error = useStore(session.store, (s) => s.lensError);
  const told = useStore(session.store, (s) => (s.text.length ? tell(s, session) : ''));
  return (
    <section class="panel grid-panel" aria-label="Lens grid">
      <header>
        <h2>Lens grid</h2>
        <span class="quiet aside">what each layer would say next</span>
        <div class="choice" role="group" aria-label="Tap of the residual stream">
          {TAPS.filter((tap) => capabilities?.taps.includes(tap) ?? true).map((tap) => (
            <button
              type="button"
              key={tap}
              aria-pressed={view.tap === tap}
              {...(saved && !saved.columns[tap] ? asking() : { title: TAP_TITLES[tap] })}
              onClick={() => session.show({ tap })}
            >
              {tap}
            </button>
          ))}
        </div>
        <div class="choice" role="group" aria-label="Run that is read">
          {(['base', 'edited'] as const).map((reading) => (
            <button
              type="button"
              key={reading}
              aria-pressed={view.reading === reading}
              {...asking(
                reading === 'base'
                  ? 'read without edits and directions'
                  : 'read under the edits and directions',
                reading === 'edited' && !view.edits.length && !view.steer.length
              )}
              onClick={() => session.read(reading)}
            >
              {reading}
            </button>
          ))}
        </div>
      </header>
      {error && <p class="refused">{error}</p>}
      <Grid session={session} />
      <p class="told quiet" aria-live="polite">
        {told}
      </p>
    </section>
  );
}
