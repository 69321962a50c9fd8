/* Questions to the server this page came from. What it refuses is a Refusal with its sentence; a question that the
 * page gave up is an AbortError. A page that was saved answers from what it holds. */
import { UNSAVED, keep, recall, saved } from './replay';

export class Refusal extends Error {}

let key = '';
export const setKey = (given: string): void => void (key = given);

/* A text is sent as it is, anything else as JSON. */
async function send(
  path: string,
  body: unknown,
  signal: AbortSignal,
  method = body === undefined ? 'GET' : 'POST'
): Promise<Response> {
  const headers: Record<string, string> = { 'Content-Type': 'application/json' };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal('The server does not answer; is keyhole serve still running?');
  }
  if (response.ok) return response;
  let said = '';
  try {
    said = (await response.json())?.error?.message ?? '';
  } catch {
    /* not JSON: the status says what there is to say */
  }
  throw new Refusal(said || `The server answered ${response.status} to ${path}.`);
}

function recalled(path: string, body: unknown): string {
  const answer = recall(path, body);
  if (answer === undefined) throw new Refusal(`${UNSAVED}.`);
  return answer;
}

export async function ask<T>(
  path: string,
  body: unknown,
  signal: AbortSignal,
  kept = true
): Promise<T> {
  const text = saved ? recalled(path, body) : await (await send(path, body, signal)).text();
  if (kept) keep(path, body, text);
  return JSON.parse(text) as T;
}

/* What is read or changed beside the view: no file of a view keeps it, and nothing gives it up. */
export async function exchange(method: string, path: string, body?: unknown): Promise<string> {
  return await (await send(path, body, new AbortController().signal, method)).text();
}

function frameOf<T>(line: string): T {
  const frame = JSON.parse(line);
  if (frame.type === 'error') throw new Refusal(frame.error?.message ?? 'The server failed.');
  return frame as T;
}

/* The frames of an NDJSON answer as they come. What is kept elsewhere need not be `kept` here. */
export async function* frames<T>(
  path: string,
  body: unknown,
  signal: AbortSignal,
  kept = true
): AsyncGenerator<T> {
  if (saved) {
    for (const line of recalled(path, body).split('\n')) if (line) yield frameOf<T>(line);
    return;
  }
  const response = await send(path, body, signal);
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let whole = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (value ?? '')).split('\n');
      rest = done ? '' : lines.pop()!;
      for (const line of lines) {
        if (!line.trim()) continue;
        if (kept) whole += `${line}\n`;
        yield frameOf<T>(line);
      }
      if (!done) continue;
      if (kept) keep(path, body, whole);
      return;
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refusal) throw error;
    throw new Refusal('The answer of the server broke off.');
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/* The sentence of an error; null where the page itself stopped asking. */
export function sentence(error: unknown): string | null {
  if (error instanceof DOMException && error.name === 'AbortError') return null;
  return error instanceof Error ? error.message : String(error);
}
