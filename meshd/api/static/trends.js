// The last hour of this node, as lines. Asked every ten seconds: the node samples no faster.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { ask } from "./api.js";

const EVERY_MS = 10_000;
const HEIGHT = 150;
const SPAN_S = 3600;

const CHARTS = [
  ["First word, seconds", [["median", "ttft_p50_s"], ["95 of 100", "ttft_p95_s"]]],
  ["Tokens a second, through this node", [["tokens/s", "tokens_per_s"]]],
  ["Memory in use, share", [["memory", "memory_ratio"], ["pressure (0, ½, 1)", "pressure"]]],
  ["Work on this node", [["running", "in_flight"], ["waiting", "queued"]]],
];

// As the reader's own country writes it: uPlot knows only one way.
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

const DARK = matchMedia("(prefers-color-scheme: dark)");

// The lines are painted once: where evening turns the page dark, they are painted anew.
function useDark() {
  const [dark, setDark] = useState(DARK.matches);
  useEffect(() => {
    const turn = () => setDark(DARK.matches);
    DARK.addEventListener("change", turn);
    return () => DARK.removeEventListener("change", turn);
  }, []);
  return dark;
}

export function Trends() {
  const [trends, setTrends] = useState(null);
  const dark = useDark();
  useEffect(() => {
    const end = new AbortController();
    const look = () => ask("/mesh/v1/trends", { signal: end.signal }).then(setTrends, () => {});
    look();
    const timer = setInterval(look, EVERY_MS);
    return () => (clearInterval(timer), end.abort());
  }, []);
  if (!trends) return html`<p class="dim">No figures yet: the first are taken after ten seconds.</p>`;
  return html`<div class="charts">${CHARTS.map(([title, lines]) => html`<${Chart} key=${title + dark} title=${title} lines=${lines} trends=${trends} />`)}</div>`;
}

function Chart({ title, lines, trends }) {
  const box = useRef(null);
  const plot = useRef(null);
  const now = Date.now() / 1000;
  const data = [trends.age_s.map((age) => now - age), ...lines.map(([, key]) => trends[key])];
  useEffect(() => {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    plot.current = new uPlot({
      width: box.current.clientWidth,
      height: HEIGHT,
      scales: { x: { range: () => [Date.now() / 1000 - SPAN_S, Date.now() / 1000] }, y: { range: (_, low, high) => [0, Math.max(high ?? 1, 0.01) * 1.1] } },
      axes: [{ ...axis, values: (_, at) => at.map(clock) }, axis],
      series: [{ value: (_, at) => (at === null ? "--" : clock(at)) }, ...lines.map(([label], index) => ({ label, stroke: colour(index ? "--warn" : "--accent"), width: 2, spanGaps: true }))],
    }, data, box.current);
    const watch = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    watch.observe(box.current);
    return () => (watch.disconnect(), plot.current.destroy());
  }, []);
  useEffect(() => plot.current?.setData(data), [trends]);
  const last = lines.map(([label, key]) => `${label} ${trends[key].filter((x) => x !== null).pop() ?? "none"}`).join(", ");
  return html`<section class="chart" aria-label="${title}: now ${last}"><h3>${title}</h3><div ref=${box}></div></section>`;
}
