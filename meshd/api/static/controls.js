// What the owner of this node may change: its models, whether it takes work, who is in the mesh.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { ask } from "./api.js";
import qrcode from "./vendor/qrcode.js";
import { gib } from "./words.js";

function useDoing() {
  const [doing, setDoing] = useState("");
  const [said, setSaid] = useState("");
  async function act(name, path, body) {
    setDoing(name);
    setSaid("");
    try {
      const answer = await ask(path, { method: "POST", body });
      setSaid(`${name}: done.`);
      return answer;
    } catch (error) {
      setSaid(error.message);
    } finally {
      setDoing("");
    }
    return null;
  }
  return [doing, said, act];
}

export function Models({ myself }) {
  const [doing, said, act] = useDoing();
  const change = (verb, id) => act(`${verb} ${id}`, `/mesh/v1/models/${verb}`, { model: id });
  const draining = myself.load?.draining;
  return html`<h2>This node, ${myself.name}</h2>
    <p class="note" role="status" aria-live="polite">${doing ? `${doing} …` : said || "Changes here concern this node alone, and are for its owner."}</p>
    <div class="row"><button disabled=${!!doing} onClick=${() => act(draining ? "resume" : "drain", `/mesh/v1/${draining ? "resume" : "drain"}`, {})}>
      ${draining ? "Take work again" : "Drain: finish, take no new work"}</button></div>
    <ul class="cards">${myself.models.map((model) => html`<li class="card" key=${model.id}>
      <h3>${model.id}</h3>
      <div class="small dim">${model.engine} · ${model.quantisation || "?"} · ${model.context_length} tokens · ${gib(model.size_bytes)}</div>
      <div class="small">${model.warm ? "in memory" : "not in memory"}</div>
      <div class="row">
        ${model.warm
          ? html`<button disabled=${!!doing} onClick=${() => change("unload", model.id)}>Unload</button>`
          : html`<button disabled=${!!doing} onClick=${() => change("load", model.id)}>Load</button>`}
        <button disabled=${!!doing} onClick=${() => change("pin", model.id)}>Pin</button>
        <button disabled=${!!doing} onClick=${() => change("unpin", model.id)}>Unpin</button>
      </div></li>`)}</ul>`;
}

export function Pairing({ myself }) {
  const [, said, act] = useDoing();
  const [open, setOpen] = useState(null);
  const [left, setLeft] = useState(0);
  useEffect(() => {
    if (!open) return undefined;
    const timer = setInterval(() => setLeft(Math.max(0, Math.round((open.until - Date.now()) / 1000))), 500);
    return () => clearInterval(timer);
  }, [open]);
  async function invite() {
    const body = await act("invite", "/mesh/v1/pair", { token: false });
    setOpen(body && { ...body, until: Date.now() + body.expires_s * 1000 });
    setLeft(body ? Math.round(body.expires_s) : 0);
  }
  const line = open && `meshctl join ${open.code} --at ${place(myself, open.door)}`;
  return html`<h2>Let another machine in</h2>
    ${open && left > 0
      ? html`<p>On the new machine, within ${left} seconds:</p><p class="code">${open.code}</p><pre>${line}</pre>
          <div class="qr" role="img" aria-label="The same line as a QR code" dangerouslySetInnerHTML=${{ __html: picture(line) }}></div>`
      : html`<p class="dim">Shows a code for two minutes. The machine that is given it joins this mesh.</p>
          <button class="main" onClick=${invite}>Show a code</button>`}
    ${said && !open && html`<p class="note bad" role="alert">${said}</p>`}`;
}

// Where the new machine knocks: an address of this node on the network, and the door's port.
function place(myself, door) {
  const host = (myself.endpoints[0] ?? "").replace(/:\d+$/, "") || location.hostname;
  return `${host}:${door}`;
}

function picture(text) {
  const code = qrcode(0, "M");
  code.addData(text);
  code.make();
  return code.createSvgTag({ scalable: true, margin: 0 });
}
