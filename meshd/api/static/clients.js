// What to write into the programs people already use.

import { html, useState } from "./vendor/htm-preact.js";
import { hasKey } from "./api.js";

const LOCAL = "local"; // any word will do where no key is asked for

const CLIENTS = [
  ["OpenAI SDKs and most tools", (url, model, key) => `export OPENAI_BASE_URL=${url}/v1\nexport OPENAI_API_KEY=${key}`],
  ["Claude Code", (url, model, key) => `export ANTHROPIC_BASE_URL=${url}\nexport ANTHROPIC_AUTH_TOKEN=${key}\nexport ANTHROPIC_MODEL=${model}`],
  ["Ollama's clients, Home Assistant", (url, model, key) => `export OLLAMA_HOST=${url}${key === LOCAL ? "" : `\nexport OLLAMA_API_KEY=${key}`}`],
  ["curl", (url, model, key) => `curl ${url}/v1/chat/completions${key === LOCAL ? "" : ` -H 'authorization: Bearer ${key}'`} -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello!"}]}'`],
];

export function Clients({ model }) {
  const [copied, setCopied] = useState("");
  const url = location.origin;
  // Browsers have no clipboard for pages that came over plain HTTP from another machine.
  const copy = (name, text) => navigator.clipboard.writeText(text).then(() => setCopied(name));
  return html`<h2>Use it from your programs</h2>
    <p class="dim">More of them, written into their own files: <code>meshctl connect</code>.</p>
    ${CLIENTS.map(([name, make]) => {
      const text = make(url, model || "MODEL", hasKey() ? "YOUR-KEY" : LOCAL);
      return html`<section><h3 class="small">${name}</h3><pre tabindex="0" aria-label=${name}>${text}</pre>
        ${navigator.clipboard && html`<button onClick=${() => copy(name, text)}>${copied === name ? "Copied" : "Copy"}</button>`}</section>`;
    })}`;
}
