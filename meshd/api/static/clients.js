// What to write into the programs people already use.

import { html, useState } from "./vendor/htm-preact.js";

const CLIENTS = [
  ["OpenAI SDKs and most tools", (url) => `export OPENAI_BASE_URL=${url}/v1\nexport OPENAI_API_KEY=local`],
  ["Claude Code", (url, model) => `export ANTHROPIC_BASE_URL=${url}\nexport ANTHROPIC_AUTH_TOKEN=local\nexport ANTHROPIC_MODEL=${model}`],
  ["Ollama's clients, Home Assistant", (url) => `export OLLAMA_HOST=${url}`],
  ["curl", (url, model) => `curl ${url}/v1/chat/completions -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello!"}]}'`],
];

export function Clients({ model }) {
  const [copied, setCopied] = useState("");
  const url = location.origin;
  const copy = (name, text) => navigator.clipboard?.writeText(text).then(() => setCopied(name));
  return html`<h2>Use it from your programs</h2>
    <p class="dim">More of them, written into their own files: <code>meshctl connect</code>.</p>
    ${CLIENTS.map(([name, make]) => {
      const text = make(url, model || "MODEL");
      return html`<section><h3 class="small">${name}</h3><pre tabindex="0" aria-label=${name}>${text}</pre>
        <button onClick=${() => copy(name, text)}>${copied === name ? "Copied" : "Copy"}</button></section>`;
    })}`;
}
