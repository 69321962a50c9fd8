/* What the page shows as files: the grid as a picture, its cells as rows, everything as JSON, the page itself. */
import { visible } from './names';
import { answers, type Saved } from './replay';
import type { Session } from './session';
import { layerOf, positionOf } from './state';
import { palette } from './theme';
import { addressOf } from './view';

export function save(name: string, kind: string, text: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
const quoted = (text: string): string =>
  /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

const DRAWN = 256; // columns of a picture, around the selected one

export function gridSvg(session: Session): string {
  const { state, lens } = session;
  const { tap } = state.view;
  const layers = state.capabilities?.model.layers ?? 0;
  const start = Math.max(0, positionOf(state) - DRAWN / 2);
  const columns = lens.loaded(tap).filter(([p]) => p >= start && p < start + DRAWN);
  const [w, h, gutter] = [66, 18, 34];
  const { shades, inks, ink, quiet, card, accent } = palette();
  const out: string[] = [];
  const text = (x: number, y: number, fill: string, said: string, more = '') =>
    out.push(
      `<text x="${x}" y="${y}" fill="${fill}"${more}>${escaped(said.length > 9 ? `${said.slice(0, 8)}…` : said)}</text>`
    );
  for (let layer = 0; layer < layers; layer++)
    text(gutter - 6, (layers - layer) * h - 5, quiet, String(layer), ' text-anchor="end"');
  columns.forEach(([position, column], i) => {
    const x = gutter + i * w;
    for (let layer = 0; layer < layers; layer++) {
      const share = column.shares[layer]?.[0] ?? 0;
      const shade = Math.max(0, Math.min(255, Math.round(255 * share)));
      const y = (layers - 1 - layer) * h;
      out.push(
        `<rect x="${x}" y="${y}" width="${w - 1}" height="${h - 1}" fill="${shades[shade]}"/>`
      );
      text(x + 4, y + h - 5, inks[shade]!, visible(column.texts[layer]?.[0] ?? ''));
    }
    text(x + 4, layers * h + 14, ink, visible(state.text[position]?.text ?? ''));
    if (position === positionOf(state))
      out.push(
        `<rect x="${x - 0.5}" y="${(layers - 1 - layerOf(state)) * h - 0.5}" width="${w}" height="${h}" fill="none" stroke="${accent}" stroke-width="2"/>`
      );
  });
  const [width, height] = [gutter + columns.length * w, layers * h + 24];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="11"><rect width="${width}" height="${height}" fill="${card}"/>${out.join('')}</svg>`;
}

export function gridCsv(session: Session): string {
  const { state, lens } = session;
  const rows = ['position,token,tap,layer,top,probability,entropy_nats,kl_nats,norm'];
  for (const [position, column] of lens.loaded(state.view.tap))
    column.texts.forEach((texts, layer) =>
      rows.push(
        [
          position,
          quoted(state.text[position]?.text ?? ''),
          state.view.tap,
          layer,
          quoted(texts[0] ?? ''),
          column.shares[layer]?.[0] ?? '',
          column.entropy[layer] ?? '',
          column.kl[layer] ?? '',
          column.norm[layer] ?? '',
        ].join(',')
      )
    );
  return `${rows.join('\n')}\n`;
}

export function viewJson(session: Session): string {
  const { state, lens } = session;
  const { capabilities, view, text, prompt, column, why, head, neuron, run } = state;
  return JSON.stringify(
    {
      keyhole: capabilities?.keyhole,
      model: capabilities?.model,
      attn: capabilities?.attn,
      address: location.href,
      view,
      text,
      prompt_tokens: prompt,
      grid: {
        tap: view.tap,
        columns: lens.loaded(view.tap).map(([position, cells]) => ({ position, ...cells })),
      },
      column: column.data,
      why: why.data,
      head: head.data,
      neuron: neuron.data,
      run: run.data,
    },
    null,
    1
  );
}

/* This document with the answers it was given in place of what it drew, so that it draws the same again, without a server. */
export function viewHtml(session: Session): string {
  const { state, lens } = session;
  const held: Saved = {
    address: addressOf(state.view),
    day: new Date().toISOString().slice(0, 10),
    text: state.text,
    answers: answers(),
    ...lens.cells,
  };
  const root = document.documentElement.cloneNode(true) as HTMLElement;
  root.removeAttribute('style');
  root.querySelector('#page')!.textContent = '';
  root.querySelector('#saved')?.remove();
  root.querySelector('title')!.textContent = `keyhole: ${state.view.prompt.slice(0, 60)}`;
  const data = document.createElement('script');
  Object.assign(data, { id: 'saved', type: 'application/json' });
  data.textContent = JSON.stringify(held).replaceAll('<', '\\u003c');
  root.querySelector('body')!.prepend(data, '\n');
  const nodes = [...document.childNodes].map((node) =>
    node === document.documentElement ? root.outerHTML : new XMLSerializer().serializeToString(node)
  );
  return `${nodes.join('\n')}\n`;
}

export const saveSvg = (session: Session) =>
  save('keyhole-grid.svg', 'image/svg+xml', gridSvg(session));
export const saveCsv = (session: Session) => save('keyhole-grid.csv', 'text/csv', gridCsv(session));
export const saveJson = (session: Session) =>
  save('keyhole-view.json', 'application/json', viewJson(session));
export const saveHtml = (session: Session) =>
  save('keyhole-view.html', 'text/html', viewHtml(session));
