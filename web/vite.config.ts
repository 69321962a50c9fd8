/* How a page becomes one file: a build in mode PAGE turns PAGE.html and what it imports into dist/PAGE.html
 * with script and style inside, and the licences of the libraries in it; NOTICE has those of all pages
 * that one process built (build.mjs).
 *
 * The output depends on the sources and the lock file alone: scripts/web --check builds it again and
 * compares. KEYHOLE_WEB_OUT names another folder to build into, for dist/ and NOTICE alike. */
import { existsSync, readFileSync, readdirSync, writeFileSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const out = resolve(process.env.KEYHOLE_WEB_OUT ?? import.meta.dirname);

interface Library {
  name: string;
  version: string;
  licence: string;
  text: string;
}

/* The package that a module belongs to; null for our own files. */
function library(id: string): Library | null {
  if (!id.includes('/node_modules/')) return null;
  let folder = dirname(id.split('?')[0]!);
  for (; ; folder = dirname(folder)) {
    if (folder.endsWith('/node_modules') || folder === '/') throw new Error(`no package of ${id}`);
    if (!existsSync(join(folder, 'package.json'))) continue;
    const about = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    if (!about.name || !about.version) continue;
    const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name));
    const text = file ? readFileSync(join(folder, file), 'utf8').trim() : `(${about.license})`;
    return { name: about.name, version: about.version, licence: about.license, text };
  }
}

type Libraries = Map<string, Library>;

/* Of all pages so far: this file is loaded once for each. */
const shared = globalThis as { keyholeLibraries?: Libraries };
const known: Libraries = (shared.keyholeLibraries ??= new Map());

function librariesOf(ids: Iterable<string>): Libraries {
  const libraries: Libraries = new Map();
  for (const id of ids) {
    const found = library(id);
    if (found) libraries.set(found.name, found);
  }
  return libraries;
}

/* One entry for each licence text, since most libraries share one. */
function notice(libraries: Libraries): string {
  const texts = new Map<string, Library[]>();
  for (const one of [...libraries.values()].sort((a, b) => (a.name < b.name ? -1 : 1)))
    texts.set(one.text, [...(texts.get(one.text) ?? []), one]);
  const parts = ["keyhole's pages hold parts of these libraries, under their licences:"];
  for (const [text, users] of texts)
    parts.push(
      users.map((one) => `  ${one.name} ${one.version} (${one.licence})`).join('\n') + `\n\n${text}`
    );
  return parts.join('\n\n----\n\n').replace(/[ \t\r]+$/gm, '') + '\n';
}

function singleFile(page: string): Plugin {
  return {
    name: 'single-file',
    enforce: 'post',
    generateBundle(_options, bundle) {
      const html = bundle[`${page}.html`];
      if (html?.type !== 'asset') throw new Error(`no ${page}.html`);
      const ids = new Set<string>();
      let script = '';
      let style = '';
      for (const [name, item] of Object.entries(bundle)) {
        if (item === html) continue;
        if (item.type === 'chunk') {
          if (script) throw new Error('more than one script: a page is one file');
          script = item.code;
          for (const [id, module] of Object.entries(item.modules))
            if (module.renderedLength > 0) ids.add(id);
        } else if (name.endsWith('.css')) {
          style += item.source;
        } else {
          throw new Error(`${name} cannot be put into the page`);
        }
        delete bundle[name];
      }
      if (/<!--|<script/i.test(script))
        throw new Error('the script would end the element around it');
      script = script.trim().replace(/<\/script/gi, '<\\/script');
      const libraries = librariesOf(ids);
      const text = notice(libraries);
      for (const [name, one] of libraries) known.set(name, one);
      if (text.includes('--' + '>')) throw new Error('a licence would end the comment around it');
      html.source = String(html.source)
        .replace(/^\s*<(script|link)\b[^>]*\b(src|href)="[^"]*assets\/[^>]*>(<\/script>)?\n/gm, '')
        .replace('<!--style-->', () => `<style>\n${style.trim()}\n</style>`)
        .replace('<!--script-->', () => `<script type="module">\n${script}\n</script>`)
        .replace('<!--notice-->', () => `<!--\n${text}-->`)
        .replace(/[ \t]+$/gm, '');
      mkdirSync(out, { recursive: true });
      writeFileSync(join(out, 'NOTICE'), notice(known));
    },
  };
}

export default defineConfig(({ mode }) => ({
  root: import.meta.dirname,
  base: './',
  publicDir: false,
  build: {
    outDir: join(out, 'dist'),
    emptyOutDir: false,
    target: 'es2022',
    modulePreload: false,
    cssCodeSplit: false,
    reportCompressedSize: false,
    rolldownOptions: { input: join(import.meta.dirname, `${mode}.html`) },
  },
  plugins: [singleFile(mode)],
}));
