// The page: who is in the mesh, what it does, and what its owner may change. Reads only the public
// mesh API, live over server-sent events.

import { h, html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { follow, keepKey } from "./api.js";
import { Clients } from "./clients.js";
import { Models, Pairing } from "./controls.js";
import { Cards, Picture } from "./mesh.js";
import { Playground } from "./playground.js";
import { Requests } from "./requests.js";
import { Trends } from "./trends.js";
import { count, gib, plain } from "./words.js";

const ROOMS = [["mesh", "Mesh"], ["requests", "Requests"], ["try", "Try it"], ["node", "This node"], ["connect", "Connect"]];

function useRoom() {
  const read = () => location.hash.slice(1).split("/").map(plain);
  const [room, setRoom] = useState(read());
  useEffect(() => {
    const turn = () => setRoom(read());
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  return [room[0] || "mesh", room[1] ?? ""];
}

function App() {
  const [status, setStatus] = useState(null);
  const [asked, setAsked] = useState({ open: 0, requests: [] });
  const [trouble, setTrouble] = useState(null);
  const [round, setRound] = useState(0);
  const [room, chosen] = useRoom();
  useEffect(() => {
    const end = new AbortController();
    follow((name, body) => (name === "status" ? setStatus(body) : name === "requests" && setAsked(body)), setTrouble, end.signal);
    return () => end.abort();
  }, [round]);
  if (trouble?.status === 401) return html`<${Key} message=${trouble.message} done=${() => setRound(round + 1)} />`;
  if (!status) return html`<p class="loading" role="status">${trouble ? `No answer: ${trouble.message}` : "Asking this node about its mesh …"}</p>`;
  const myself = status.members.find((node) => node.id === status.self);
  const models = [...new Set(status.members.filter((node) => node.state === "alive")
    .flatMap((node) => node.models.filter((model) => (model.capabilities ?? ["chat"]).includes("chat")).map((model) => model.id)))].sort();
  return html`<header><h1>meshd</h1>
      <nav aria-label="Rooms">${ROOMS.map(([id, name]) => html`<a href="#${id}" aria-current=${room === id ? "page" : undefined}>${name}</a>`)}</nav>
      <span class="sum">${sum(status)}</span></header>
    <main>${trouble && html`<p class="note bad" role="alert">This node does not answer now (${trouble.message}). What you see is old; the page tries again.</p>`}
      <${Room} ...${{ room, chosen, status, myself, models, asked }} />
      <div hidden=${room !== "try"}><${Playground} models=${models} /></div></main>`;
}

function Room({ room, chosen, status, myself, models, asked }) {
  switch (room) {
    case "requests": return html`<${Requests} rows=${asked.requests} open=${asked.open} chosen=${chosen} members=${status.members} />`;
    case "try": return null; // always there, so that a look at another room costs no conversation
    case "node": return html`<${Models} myself=${myself} /><${Pairing} myself=${myself} />`;
    case "connect": return html`<${Clients} model=${models[0]} />`;
    default: return html`<h2>${status.node.name} and the machines it knows</h2>
      <${Picture} members=${status.members} self=${status.self} requests=${asked.requests} />
      <h2>Nodes</h2><${Cards} members=${status.members} self=${status.self} />
      <h2>The last hour of ${status.node.name}</h2><${Trends} />`;
  }
}

function sum({ totals }) {
  const free = gib(totals.memory_available_bytes);
  return `${count(totals.nodes, "node")} · ${count(totals.models, "model")}, ${totals.warm_models} warm · ${totals.in_flight} running, ${totals.queued} waiting · ${free} free`;
}

function Key({ message, done }) {
  const [key, setKey] = useState("");
  const submit = (event) => (event.preventDefault(), keepKey(key), done());
  return html`<main><h2>This node asks for an API key</h2><p class="note" role="alert">${message}</p>
    <form class="row" onSubmit=${submit}><label>Key <input type="password" autocomplete="off" value=${key} onInput=${(e) => setKey(e.target.value)} /></label>
    <button class="main">Go on</button></form></main>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(h(App), root);
