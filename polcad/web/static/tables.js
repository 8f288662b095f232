// Classes, the reasons of what stands, and events.
import { byId, clock, duration, el, percent, setpoint, unbroken, watts } from "./format.js";

export function drawClasses({ classes }) {
  byId("classes").replaceChildren(...classes.map((item) => {
    const bound = setpoint(item.setpoint);
    const short = item.obeying < item.gpus;
    return el("tr", {},
      el("th", { scope: "row" }, el("span", { class: `prio ${item.priority}` }, item.priority), ` ${item.role}`),
      el("td", { class: "num" }, watts(item.power_w)),
      el("td", { class: bound === "free" ? "free" : "bound" }, bound),
      el("td", { class: short ? "num warn" : "num" }, `${short ? "⚠ " : ""}${item.obeying}/${item.gpus}`));
  }));
}

export function drawWhy(standing, { t }) {
  const rules = standing.map((rule, i) => {
    const last = standing[i + 1]?.scope !== rule.scope; // what a domain waits for is said once, after its last rule
    return el("li", { class: rule.kind },
      el("p", {}, el("strong", {}, `${capital(rule.scope)}, ${rule.who}: ${rule.what}`)),
      el("p", {}, unbroken(`${capital(rule.why)}.`)),
      ...(last ? [el("p", { class: "waits" }, unbroken(waits(rule, t)))] : []));
  });
  byId("why").replaceChildren(...(rules.length ? rules : [el("li", { class: "calm" }, "No rule stands: every GPU is free.")]));
}

function waits({ since_t, waiting }, t) {
  if (!since_t) return "";  // only holds stand
  return `Since ${clock(since_t)} (${duration(t - since_t)})${waiting ? `; stays because ${waiting}` : ""}.`;
}

const MARKS = {
  tighten: "▼", loosen: "▲", brake: "■", brake_release: "□", stale: "?", fresh: "✓", sensor_fault: "!", sensor_ok: "✓",
  not_obeyed: "!", obeyed: "✓", unlisted: "?", misplaced: "?", strayed: "!", duplicate_name: "!", resume: "↻", hold: "●", hold_end: "○",
  forecast_ok: "✓", forecast_doubted: "?", hint: "→", hint_end: "○", hints_held: "?", hints_resumed: "✓",
  clock: "!",
};
let newest = { run: "", n: 0 };

// Only what is new is added, so that a screen reader hears each event once.
export function drawEvents(events, run) {
  const list = byId("events");
  if (run !== newest.run) {
    newest = { run, n: 0 };
    list.replaceChildren();
  }
  const fresh = events.filter(({ n }) => n > newest.n);
  if (!fresh.length) return;
  newest.n = fresh[0].n;
  list.prepend(...fresh.map(({ event }) => el("li", { class: event.kind },
    el("time", {}, clock(event.t)),
    el("span", { class: "mark", "aria-hidden": "true" }, MARKS[event.kind] ?? "·"),
    el("p", {}, el("strong", {}, `${event.kind.replaceAll("_", " ")} `), el("span", { class: "scope" }, event.scope), ` ${event.detail}`))));
  while (list.children.length > events.length) list.lastChild.remove();
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
