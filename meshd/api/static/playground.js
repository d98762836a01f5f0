// A conversation with the mesh that shows which node answered, and why that one.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { COMMENT, events, headers, reach, refusal } from "./api.js";
import { plain, time } from "./words.js";

// Who answers is said in the head; where that went out before anybody was chosen, in a comment. A
// later comment says who carried on.
const NAMED = /^x-mesh-node: (\S+) .*x-mesh-route-reason: (.*?) x-mesh-load-age-ms:/;
const SEAM = /^(continued|begun anew) on /;

// A question that got no word is taken back: models are taught that turns alternate.
const told = (talk) => talk.filter((turn, at) => turn.content && talk[at + 1]?.content !== "");

function words({ content, ended, thinks }) {
  return content || (ended ? "(no answer)" : thinks ? "thinking …" : "…");
}

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
    const answer = { content: "", from: [] };
    show(answer);
    try {
      await stream(chosen, told(asked), answer, stop.current.signal, () => show(answer));
    } catch (error) {
      answer.from.push(stop.current.signal.aborted ? "stopped" : error.message);
    }
    show({ ...answer, ended: true });
    setBusy(false);
  }

  return html`<h2>Try it</h2>
    <ol class="talk" aria-live="polite">${talk.map((turn) => html`<li class=${turn.role}>${words(turn)}
      ${turn.from?.length > 0 && html`<span class="from">${turn.from.join(" · ")}</span>`}</li>`)}</ol>
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

// Fills `answer` as it comes, and calls `show` at each piece.
async function stream(model, talk, answer, signal, show) {
  const began = performance.now();
  const messages = talk.map(({ role, content }) => ({ role, content }));
  const reply = await reach("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: headers({ "content-type": "application/json" }),
    body: JSON.stringify({ model, messages, stream: true }),
  });
  if (!reply.ok) throw await refusal(reply);
  const credit = (node, why) => node && answer.from.push(plain(node), plain(why ?? ""));
  credit(reply.headers.get("x-mesh-node"), reply.headers.get("x-mesh-route-reason"));
  let first = 0;
  for await (const [name, text] of events(reply)) {
    if (text === "[DONE]") return;
    if (name === COMMENT) {
      credit(...(NAMED.exec(text)?.slice(1) ?? []));
      if (SEAM.test(text)) answer.from.push(text);
      continue;
    }
    const chunk = JSON.parse(text);
    if (chunk.error) throw new Error(chunk.error.message);
    const { delta = {}, finish_reason: finish } = chunk.choices?.[0] ?? {};
    answer.content += delta.content ?? "";
    answer.thinks ||= !!delta.reasoning_content;
    if (!first && (answer.content || answer.thinks)) {
      first = performance.now() - began;
      answer.from.push(`first word after ${time(first / 1000)}`);
    }
    if (finish === "length") answer.from.push("cut at its longest");
    show();
  }
  throw new Error("the answer broke off without an end");
}
