/* What the program wrote into the page: JSON in <script type="application/json" id="data">, with
 * every "<" as an escape, so that nothing in it can end the element. */
export function embedded(): unknown {
  try {
    return JSON.parse(document.getElementById('data')?.textContent ?? '');
  } catch {
    return undefined;
  }
}
