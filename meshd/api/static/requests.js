// What was asked here, where it went, and why there.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { ask } from "./api.js";
import { isGone, time } from "./words.js";

export function Requests({ rows, open, chosen, members }) {
  return html`
    <h2>Requests through this node <span class="dim small">${open} running or waiting</span></h2>
    ${chosen && html`<${Story} key=${chosen} id=${chosen} state=${rows.find((row) => row.id === chosen)?.state} />`}
    ${rows.length === 0 && html`<p class="dim">Nothing has been asked here yet.</p>`}
    ${rows.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Requests"><table>
      <thead><tr><th>request</th><th>state</th><th class="wide">model</th><th>node</th>
        <th class="number">first word</th><th class="number wide">whole</th>
        <th class="number wide">tokens</th><th class="number wide">tries</th><th class="wide">person</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.id}>
        <td class="mono"><a href="#requests/${encodeURIComponent(row.id)}">${row.id.slice(0, 14)}</a></td>
        <td class="state-${row.state}">${row.state}${row.queue_position ? ` (${row.queue_position}.)` : ""}${row.error ? ` ${row.error}` : ""}</td>
        <td class="wide">${row.model}</td><td>${row.node ?? "–"}</td>
        <td class="number">${time(row.ttft_s)}</td><td class="number wide">${time(row.duration_s)}</td>
        <td class="number wide">${row.completion_tokens ?? "–"}</td><td class="number wide">${row.attempts}</td>
        <td class="wide mono">${(row.person ?? "").slice(0, 6)}</td></tr>`)}</tbody>
    </table></div>`}
    <${People} members=${members} />`;
}

// What each person was served lately, over all nodes: who has had least goes first in every queue.
// People are hashes, the same on every node. Of nodes that are gone the last word is kept, and old.
function People({ members }) {
  const served = new Map();
  const here = members.filter((node) => !isGone(node));
  for (const node of here)
    for (const { person, tokens } of node.load?.people ?? []) served.set(person, (served.get(person) ?? 0) + tokens);
  const waiting = here.reduce((sum, node) => sum + (node.load?.queued ?? 0), 0);
  const most = Math.max(1, ...served.values());
  const order = [...served].sort(([, a], [, b]) => a - b);
  return html`<h2>Queue and people <span class="dim small">${waiting} waiting in the mesh</span></h2>
    ${order.length === 0 ? html`<p class="dim">Nobody was served enough lately to be told apart.</p>`
      : html`<p class="dim">Tokens served lately, fading; whoever has the least goes first.</p>
        <ul class="cards">${order.map(([person, tokens]) => html`<li class="card" key=${person}>
          <span class="mono">${person.slice(0, 6)}</span> <span class="dim small">${Math.round(tokens)} tokens</span>
          <div class="bar"><i style="width:${((tokens / most) * 100).toFixed(0)}%"></i></div></li>`)}</ul>`}`;
}

// Asked for anew when its state changes: a request that ran when it was looked at ends.
function Story({ id, state }) {
  const [story, setStory] = useState(null);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    const end = new AbortController();
    ask(`/mesh/v1/requests/${encodeURIComponent(id)}`, { signal: end.signal })
      .then((body) => (setTrouble(""), setStory(body)), (error) => end.signal.aborted || setTrouble(error.message));
    return () => end.abort();
  }, [id, state]);
  if (trouble) return html`<p class="note bad" role="alert">${trouble}</p>`;
  if (!story) return null;
  const last = story.decisions[story.decisions.length - 1];
  return html`<section class="note" aria-label="One request">
    <strong class="mono">${story.id}</strong> <a href="#requests">close</a>
    <p><bdi>${story.model}</bdi>: ${story.message ?? last?.reason ?? ""}</p>
    <${Tries} attempts=${story.attempts} />
    ${last && html`<h3 class="small">Why here: the score in seconds, by node</h3><${Scores} decision=${last} />`}
  </section>`;
}

function Tries({ attempts }) {
  return html`<ol>${attempts.map((each) => html`<li>${each.node}: ${each.outcome}
    <span class="dim small"> ${each.why}, began after ${time(each.started_s)}${each.first_byte_s === null ? "" : `, first word after ${time(each.first_byte_s)}`}${each.message ? `: ${each.message}` : ""}</span></li>`)}</ol>`;
}

export function Scores({ decision }) {
  const names = [...new Set(decision.candidates.flatMap((one) => Object.keys(one.terms ?? {})))];
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table><thead><tr><th>node</th><th class="number">sum</th>
    ${names.map((name) => html`<th class="number">${name.replace(/_s$/, "").replaceAll("_", " ")}</th>`)}<th>in the way</th></tr></thead>
    <tbody>${decision.candidates.map((one) => html`<tr><td>${one.id === decision.chosen_id ? html`<strong>${one.node}</strong>` : one.node}</td>
      <td class="number">${one.score_s?.toFixed(2)}</td>
      ${names.map((name) => html`<td class="number">${typeof one.terms?.[name] === "number" ? one.terms[name].toFixed(2) : "–"}</td>`)}
      <td class="small">${(one.gates ?? []).filter((gate) => !gate.ok).map((gate) => gate.detail || gate.name).join(", ")}</td></tr>`)}</tbody></table></div>`;
}
