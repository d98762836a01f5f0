// A conversation with the mesh that shows which node answered, and why that one.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { events, headers, refusal } from "./api.js";

export function Playground({ models }) {
  const [talk, setTalk] = useState([]);
  const [model, setModel] = useState("");
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const stop = useRef(null);
  const chosen = model || models[0] || "";

  async function send(event) {
    event.preventDefault();
    if (!text.trim() || busy) return;
    const asked = [...talk, { role: "user", content: text }];
    setText("");
    setBusy(true);
    stop.current = new AbortController();
    const show = (answer) => setTalk([...asked, { role: "assistant", ...answer }]);
    const answer = { content: "", from: "" };
    try {
      await stream(chosen, asked, stop.current.signal, (more) => show(Object.assign(answer, more(answer))));
    } catch (error) {
      answer.from += stop.current.signal.aborted ? " · stopped" : ` · ${error.message}`;
      show(answer);
    }
    setBusy(false);
  }

  return html`<h2>Try it</h2>
    <ol class="talk" aria-live="polite">${talk.map((turn) => html`<li class=${turn.role}>${turn.content || "…"}
      ${turn.from && html`<span class="from">${turn.from}</span>`}</li>`)}</ol>
    <form onSubmit=${send}>
      <label for="question" class="small dim">Your question</label>
      <textarea id="question" rows="3" value=${text} onInput=${(e) => setText(e.target.value)}
        onKeyDown=${(e) => e.key === "Enter" && !e.shiftKey && !e.isComposing && send(e)}></textarea>
      <div class="row"><label>Model <select value=${chosen} onChange=${(e) => setModel(e.target.value)}>
        ${models.map((id) => html`<option value=${id}>${id}</option>`)}</select></label>
        <button class="main" disabled=${busy || !chosen}>Ask</button>
        ${busy && html`<button type="button" onClick=${() => stop.current.abort()}>Stop</button>`}
        ${talk.length > 0 && !busy && html`<button type="button" onClick=${() => setTalk([])}>New conversation</button>`}
      </div>
    </form>`;
}

async function stream(model, talk, signal, show) {
  const began = performance.now();
  const messages = talk.map(({ role, content }) => ({ role, content }));
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: headers({ "content-type": "application/json" }),
    body: JSON.stringify({ model, messages, stream: true }),
  });
  if (!answer.ok) throw await refusal(answer);
  const node = answer.headers.get("x-mesh-node");
  const why = answer.headers.get("x-mesh-route-reason");
  show(() => ({ from: `${node} · ${why}` }));
  let first = 0;
  for await (const [, text] of events(answer)) {
    if (text === "[DONE]") break;
    const chunk = JSON.parse(text);
    if (chunk.error) throw new Error(chunk.error.message);
    const more = chunk.choices?.[0]?.delta?.content;
    if (more) {
      first ||= performance.now() - began;
      show((held) => ({ content: held.content + more, from: `${node} · ${why} · first word after ${Math.round(first)} ms` }));
    }
  }
}
