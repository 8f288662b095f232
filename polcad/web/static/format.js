// Figures as a person reads them (as polcad.words), and the one way this page makes elements: text is only ever text.

const NBSP = "\u00a0"; // a number is never parted from its unit

export function watts(w) {
  if (w === null || w === undefined) return "–";
  for (const [unit, size] of [["MW", 1e6], ["kW", 1e3]]) {
    if (Math.abs(w) >= size) {
      const value = w / size;
      return `${value.toFixed(Math.max(0, 3 - String(Math.trunc(Math.abs(value))).length))}${NBSP}${unit}`;
    }
  }
  return `${Math.round(w)}${NBSP}W`;
}

export const percent = (frac) => `${Math.round(100 * frac)}${NBSP}%`;

export function duration(s) {
  s = Math.max(0, Math.round(s));
  const two = (n) => String(n).padStart(2, "0");
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
  return s >= 60 ? `${Math.floor(s / 60)} min ${two(s % 60)} s` : `${s} s`;
}

// Text of the daemon, its numbers held to their units.
export const unbroken = (text) => text.replace(/(\d) (?=%|[kM]?W\b|s\b|min\b|h\b|d\b)/g, `$1${NBSP}`);

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const clock = (t) => CLOCK.format(new Date(1000 * t));

export function setpoint({ clock_frac, cap_frac }) {
  const parts = [];
  if (clock_frac < 1) parts.push(`clock ≤ ${percent(clock_frac)}`);
  if (cap_frac < 1) parts.push(`power limit ≤ ${percent(cap_frac)}`);
  return parts.join(", ") || "free";
}

// el("td", { class: "num" }, "12") — children are elements or text, never markup.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}
