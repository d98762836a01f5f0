// Numbers and states as people read them.

export const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 1 : 0)} GiB`;

export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

export const rate = (tps) => (tps ? `${tps < 10 ? tps.toFixed(1) : Math.round(tps)} tok/s` : "–");

// A name by its beginning and its end, where two of one make often differ.
export const short = (name, most) => (name.length <= most ? name : `${name.slice(0, most / 2)}…${name.slice(1 - most / 2)}`);

// A part of an address or a header as it was meant; as it is, where it was cut in the middle.
export function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// What a machine's memory says: how full, and how hard pressed.
export function memory(node) {
  const total = node.capacity?.memory_total_bytes ?? 0;
  const free = node.load?.memory_available_bytes ?? 0;
  if (!total) return null;
  const used = Math.max(0, total - free);
  return { total, used, ratio: Math.min(1, used / total), pressure: node.load?.pressure ?? "normal" };
}

export function standing(node) {
  if (node.state !== "alive") return node.state;
  if (node.load?.draining) return "draining";
  if (node.load?.pressure && node.load.pressure !== "normal") return `${node.load.pressure}: short of memory`;
  return "alive";
}

// What such a node last said of itself is old.
export const isGone = (node) => node.state === "dead" || node.state === "left";
