/* Dark, light, or as the system says: the rules of the style sheets for dark screens are switched on or off, so that
 * every page has one set of them. And the colours of cells, which a canvas needs as texts. */
import type { Theme } from './view';

const dark = matchMedia('(prefers-color-scheme: dark)');
const CONDITION = '(prefers-color-scheme: dark)';
let rules: CSSMediaRule[] | null = null;
let chosen: Theme = 'auto';

export function applyTheme(theme: Theme): void {
  chosen = theme;
  rules ??= [...document.styleSheets]
    .flatMap((sheet) => [...sheet.cssRules])
    .filter((rule): rule is CSSMediaRule => rule instanceof CSSMediaRule)
    .filter((rule) => rule.media.mediaText === CONDITION);
  const condition = theme === 'auto' ? CONDITION : theme === 'dark' ? 'all' : 'not all';
  for (const rule of rules) rule.media.mediaText = condition;
  document.documentElement.style.colorScheme = theme === 'auto' ? 'light dark' : theme;
}
export const isDark = (): boolean => (chosen === 'auto' ? dark.matches : chosen === 'dark');
export const onSystemTheme = (changed: () => void): void =>
  dark.addEventListener('change', () => chosen === 'auto' && changed());

type Rgb = readonly [number, number, number];

export interface Palette {
  dark: boolean;
  shades: string[]; // of a probability, 0..255
  inks: string[]; // readable on the shade
  ink: string;
  quiet: string;
  card: string;
  line: string;
  accent: string;
  a: string;
  b: string;
}

const mix = (from: Rgb, to: Rgb, t: number): Rgb =>
  from.map((c, i) => Math.round(c + (to[i]! - c) * t)) as unknown as Rgb;
const css = ([r, g, b]: Rgb): string => `rgb(${r},${g},${b})`;

/* Three colours, so that a step of probability looks alike over the whole range. */
function ramp(low: Rgb, middle: Rgb, high: Rgb): Rgb[] {
  return Array.from({ length: 256 }, (_, i) => {
    const t = i / 255;
    return t < 0.5 ? mix(low, middle, 2 * t) : mix(middle, high, 2 * t - 1);
  });
}

let made: Palette | null = null;

export function palette(): Palette {
  const night = isDark();
  if (made?.dark === night) return made;
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(name).trim();
  const colours = night
    ? ramp([28, 31, 37], [32, 78, 138], [138, 196, 255])
    : ramp([255, 255, 255], [120, 172, 226], [10, 62, 128]);
  const light = (c: Rgb) => 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
  made = {
    dark: night,
    shades: colours.map(css),
    inks: colours.map((c) =>
      light(c) > 138 ? (night ? '#0c1420' : '#1c1d21') : night ? '#dfe3ea' : '#ffffff'
    ),
    ink: of('--ink'),
    quiet: of('--quiet'),
    card: of('--card'),
    line: of('--line'),
    accent: of('--accent'),
    a: of('--a'),
    b: of('--b'),
  };
  return made;
}
