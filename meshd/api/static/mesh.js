// The mesh as a picture and as cards: memory as the fill of each node, requests as moving lines.

import { html } from "./vendor/htm-preact.js";
import { count, gib, isGone, memory, rate, short, standing, time } from "./words.js";

const WIDTH = 720;
const HEIGHT = 360;
const RADIUS = 38;
const NAME_CHARS = 22; // what stands between two of ten nodes, and between the outermost and the edge

// This node in the middle, the others around it; two nodes side by side. The sides of the ellipse are
// its steep ends: there they stand further apart, so that nobody stands on another's name.
function places(members, self) {
  const others = members.filter((node) => node.id !== self);
  const at = new Map([[self, [others.length === 1 ? WIDTH * 0.3 : WIDTH / 2, HEIGHT / 2 - 8]]]);
  others.forEach((node, index) => {
    if (others.length === 1) return at.set(node.id, [WIDTH * 0.7, HEIGHT / 2 - 8]);
    const even = (2 * Math.PI * index) / others.length - (others.length === 3 ? Math.PI / 2 : 0);
    const angle = even + 0.2 * Math.sin(2 * even);
    at.set(node.id, [WIDTH / 2 + Math.cos(angle) * 270, HEIGHT / 2 - 8 + Math.sin(angle) * 112]);
  });
  return at;
}

function Node({ node, at: [x, y], self }) {
  const held = memory(node);
  const fill = held ? 2 * RADIUS * held.ratio : 0;
  const warm = node.models.filter((model) => model.warm).length;
  const gone = isGone(node);
  const busy = node.load?.in_flight ?? 0;
  const queued = node.load?.queued ?? 0;
  return html`<g class="${node.state} ${held?.pressure ?? ""} ${self ? "self" : ""}"
      transform="translate(${x} ${y})">
    <clipPath id="clip-${node.id}"><circle r=${RADIUS} /></clipPath>
    <circle class="node" r=${RADIUS} />
    <rect class="memory" clip-path="url(#clip-${node.id})" x=${-RADIUS} y=${RADIUS - fill}
      width=${2 * RADIUS} height=${fill} />
    <circle class="node" r=${RADIUS} fill="none" style="fill:none" />
    <text y="-2">${gone ? node.state : busy ? `${busy} busy` : "idle"}</text>
    <text class="minor" y="13">${gone ? "" : queued ? `${queued} wait` : `${warm} warm`}</text>
    <text y=${RADIUS + 16}>${short(node.name, NAME_CHARS)}</text>
  </g>`;
}

export function Picture({ members, self, requests }) {
  const at = places(members, self);
  const busy = new Set(requests.filter((row) => row.state === "running").map((row) => row.node_id));
  const [cx, cy] = at.get(self);
  const told = members.map((node) => `${node.name} ${standing(node)}`).join(", ");
  return html`<svg class="picture" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img"
      aria-label="${count(members.length, "node")}: ${told}">
    ${members.filter((node) => node.id !== self).map((node) => {
      const [x, y] = at.get(node.id);
      const flow = busy.has(node.id) ? html`<line class="flow" x1=${cx} y1=${cy} x2=${x} y2=${y} />` : null;
      return html`<g><line class="link" x1=${cx} y1=${cy} x2=${x} y2=${y} />${flow}</g>`;
    })}
    ${members.map((node) => html`<${Node} key=${node.id} node=${node} at=${at.get(node.id)} self=${node.id === self} />`)}
  </svg>`;
}

function ModelLine({ model, gone }) {
  const speed = model.generation_tps ? ` · ${rate(model.generation_tps)}` : "";
  const work = !gone && (model.in_flight || model.queued) ? ` · ${model.in_flight}/${model.slots} busy` : "";
  return html`<li><span class=${model.warm ? "state-alive" : "dim"}>${model.warm ? "●" : "○"}</span>
    ${" "}<bdi>${model.id}</bdi><span class="dim small">${model.warm ? "" : " cold"}${speed}${work}${model.emulated ? " · emulated" : ""}</span></li>`;
}

export function Cards({ members, self }) {
  return html`<ul class="cards">${members.map((node) => {
    const held = memory(node);
    const gpus = (node.capacity?.gpus ?? []).map((gpu) => gpu.name).join(", ");
    return html`<li class="card" key=${node.id}>
      <h3>${node.name} <span class="small state-${node.load?.draining ? "draining" : node.state}">${standing(node)}</span>
        <small class="dim">${node.id === self ? "this node" : time(node.rtt_s)}</small></h3>
      <div class="dim small">${node.capacity?.chip ?? ""}${gpus ? ` · ${gpus}` : ""}</div>
      ${held && html`<div class="bar ${held.pressure}"><i style="width:${(held.ratio * 100).toFixed(0)}%"></i></div>
        <div class="small dim">${gib(held.used)} of ${gib(held.total)} in use</div>`}
      <ul class="small">${node.models.slice(0, 8).map((model) => html`<${ModelLine} key=${model.id} model=${model} gone=${isGone(node)} />`)}
        ${node.models.length > 8 && html`<li class="dim">and ${node.models.length - 8} more</li>`}</ul>
    </li>`;
  })}</ul>`;
}
