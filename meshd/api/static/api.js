// Asking the node. A key, where the node wants one, is kept for this tab alone.

const KEY = "meshd-key";
const POLL_MS = 2000; // where a stream of events cannot be had
const SILENT_MS = 8000; // the node says something every second, if only that it is there

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// What no header can hold came along when the key was copied.
export const keepKey = (key) => sessionStorage.setItem(KEY, key.replace(/[^\x21-\x7e]/g, ""));

export const hasKey = () => !!sessionStorage.getItem(KEY);

export function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
}

// As `fetch`; that nobody was there is said in our words, as each browser has its own.
export async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    throw error instanceof TypeError ? new Error("no connection to the node; is meshd running there?") : error;
  }
}

export async function ask(path, { method = "GET", body, signal } = {}) {
  const answer = await reach(path, {
    method,
    signal,
    headers: headers(body === undefined ? {} : { "content-type": "application/json" }),
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export async function refusal(answer) {
  const said = await answer.json().catch(() => ({}));
  return new Refused(answer.status, said.error?.message ?? `The node answered ${answer.status}.`);
}

// Settles when somebody looks at the page. One that nobody looks at asks nothing: browsers have six
// connections to a host for all their tabs, and a seventh page that holds one gets no answer at all.
const seen = () => new Promise((wake) => {
  if (!document.hidden) return wake();
  document.addEventListener("visibilitychange", wake, { once: true });
});

// Calls `talk` with a signal that ends it once the node was silent for SILENT_MS, or nobody looks, and
// with what to call at each word of it. A machine that is switched off or hangs says no goodbye.
async function unlessSilent(signal, talk) {
  const line = new AbortController();
  const end = () => line.abort(signal.reason);
  const look = () => document.hidden && line.abort(new Error("nobody looks"));
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => line.abort(new Error(`silent for ${SILENT_MS / 1000} s`)), SILENT_MS);
  };
  signal.addEventListener("abort", end);
  document.addEventListener("visibilitychange", look);
  heard();
  try {
    return await talk(line.signal, heard);
  } catch (error) {
    throw line.signal.aborted ? line.signal.reason : error; // browsers word it each in its own way
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    document.removeEventListener("visibilitychange", look);
  }
}

export const COMMENT = ":";

// The events of one server-sent stream, as [name, text], a comment's name being COMMENT; `heard` is
// called for whatever comes.
// fetch and not EventSource, which could send no key.
export async function* events(answer, heard = () => {}) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      const name = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      if (part.startsWith(COMMENT)) yield [COMMENT, part.slice(1).trim()];
      else if (data.length) yield [name, data.join("\n")];
    }
  }
}

// Calls `on(name, body)` for ever: from the live stream, or by asking again and again where the
// browser or a proxy lets no stream through.
export async function follow(on, trouble, signal) {
  while (!signal.aborted) {
    await seen();
    let begun = false;
    try {
      await unlessSilent(signal, async (line, heard) => {
        const answer = await fetch("/mesh/v1/events", { headers: headers(), signal: line });
        if (!answer.ok) throw await refusal(answer);
        if (!answer.body || typeof TextDecoderStream === "undefined") throw new Error("no streams here");
        for await (const [name, text] of events(answer, heard)) {
          if (name === COMMENT) continue;
          begun = true;
          trouble(null);
          on(name, JSON.parse(text));
        }
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 401) return trouble(error);
      if (document.hidden) continue;
      if (begun) trouble(error);
    }
    try {
      await unlessSilent(signal, async (line) => {
        on("status", await ask("/mesh/v1/status", { signal: line }));
        on("requests", await ask("/mesh/v1/requests", { signal: line }));
      });
      trouble(null);
    } catch (error) {
      if (signal.aborted) return;
      if (document.hidden) continue;
      trouble(error);
      if (error instanceof Refused && error.status === 401) return;
    }
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}
