// The page's state is what the server's stream has told; each message is merged and drawn once, in the next frame.
import { byId, clock, duration, el, percent, say, unbroken, watts } from "./format.js";
import { Chart } from "./chart.js";
import { NodeMap } from "./nodes.js";
import { drawClasses, drawEvents, drawWhy } from "./tables.js";

const HISTORY_S = 900;
const EVENTS = 200;
const LATE_S = 5; // as polcad.words
const SILENT_S = 15;

const state = { run: "", site: "", status: null, standing: [], outlook: "", nodes: null, points: [], events: [], heardAt: 0, linked: false };
const chart = new Chart(byId("plot"), byId("lanes"), byId("key"), byId("reading"));
const map = new NodeMap(byId("nodes"), byId("heat-key"), byId("tip"));

function merge(news) {
  if (news.whole || news.run !== state.run) Object.assign(state, { run: news.run, points: [], events: [] });
  state.site = news.site;
  if (news.status) {
    state.status = news.status;
    state.standing = news.standing;
    state.outlook = news.outlook;
    state.heardAt = performance.now() - 1000 * news.age_s;
  }
  if (news.nodes) state.nodes = news.nodes.columns;
  for (const point of news.points) {
    while (state.points.length && state.points.at(-1).t >= point.t) state.points.pop();
    state.points.push(point);
  }
  state.points.splice(0, state.points.length - HISTORY_S);
  state.events.unshift(...news.events.reverse());
  state.events.splice(EVENTS);
}

function draw() {
  const { status } = state;
  drawEvents(state.events, state.run);
  if (state.nodes) map.draw(state.nodes, status?.domains ?? []);
  if (!status) return;
  drawHeader(status);
  drawFigures(status);
  drawClasses(status);
  drawWhy(state.standing, status);
  chart.draw(state.points, status.thresholds);
  byId("outlook").hidden = !state.outlook;
  say("outlook", unbroken(state.outlook));
  drawCondition();
}

function drawHeader(status) {
  say("row", status.row);
  const tags = [["site", state.site], ["policy", status.policy && `policy ${status.policy}`], ["host", status.host && `led by ${status.host}`]];
  for (const [id, text] of tags) {
    byId(id).hidden = !text;
    say(id, text || "");
  }
  byId("shadow").hidden = !status.shadow;
  byId("brake").hidden = !state.standing.some(({ kind }) => kind === "brake");
}

function drawFigures(status) {
  const row = status.domains.find((domain) => domain.scope === "row");
  if (!row) return;
  const used = row.budget_w ? row.power_w / row.budget_w : 0;
  const left = row.budget_w - row.power_w;
  const held = row.demand_w - row.power_w;
  say("power", watts(row.power_w));
  say("budget", watts(row.budget_w));
  say("used", percent(used));
  say("used-sub", passed(used, status.thresholds));
  say("headroom-name", left < 0 ? "Over budget" : "Headroom");
  say("headroom", `${left < 0 ? "▲ " : ""}${watts(Math.abs(left))}`);
  say("headroom-sub", `peak ${percent(status.peak_frac)}${status.over_budget_s > 0 ? `, over ${duration(status.over_budget_s)}` : ""}`);
  byId("headroom-sub").title = "the highest use, and the time over budget, since the daemon started";
  say("demand", watts(row.demand_w));
  say("demand-sub", held > 0.005 * row.budget_w ? `${watts(held)} held back` : "if uncapped, estimated");
  say("heard", `${status.nodes - status.nodes_stale} / ${status.nodes}`);
  say("heard-sub", status.nodes_stale ? `⚠ ${status.nodes_stale} stale` : `${status.gpus} GPUs`);
  byId("heard-sub").classList.toggle("warn", status.nodes_stale > 0);
  document.body.dataset.level = left < 0 ? "over" : "";
  document.title = `${percent(used)} · ${status.row} · polcad`;
  drawGauge(used, status.thresholds);
}

function passed(used, thresholds) {
  const below = Object.entries(thresholds).filter(([, frac]) => used > frac).sort((a, b) => b[1] - a[1]);
  return below.length ? `above ${below[0][0].toUpperCase()} (${percent(below[0][1])})` : "below every threshold";
}

function drawGauge(used, thresholds) {
  const gauge = byId("gauge");
  const top = 1.1; // the gauge ends a little above the budget
  gauge.style.setProperty("--used", Math.min(1, used / top));
  gauge.setAttribute("aria-valuenow", Math.round(100 * used));
  gauge.setAttribute("aria-valuetext", `${percent(used)} of the budget`);
  const marks = [...Object.entries(thresholds), ["100 %", 1]].filter(([, frac]) => frac <= top);
  const ticks = marks.map(([name, frac]) => {
    const tick = el("span", { class: frac >= 1 ? "tick budget" : "tick", title: `${name} ${percent(frac)}` });
    tick.style.setProperty("--at", frac / top);
    return tick;
  });
  gauge.replaceChildren(gauge.firstElementChild, ...ticks);
}

// How much the latest word is worth: told by words and shape, colour only repeats it.
function drawCondition() {
  const age = (performance.now() - state.heardAt) / 1000;
  let [condition, text] = ["waiting", "waiting for the daemon"];
  if (state.status) {
    if (!state.status.online) [condition, text] = ["offline", state.status.t ? `daemon offline since ${clock(state.status.t)}` : "daemon offline"];
    else if (age > SILENT_S) [condition, text] = ["silent", `no word for ${duration(age)}`];
    else if (age > LATE_S) [condition, text] = ["late", `late: ${duration(age)}`];
    else [condition, text] = ["live", "live"];
  }
  if (!state.linked && condition === "live") [condition, text] = ["late", "reconnecting"];
  document.body.dataset.condition = condition;
  say("condition-text", text);
}

let asked = false;
function soon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

const stream = new EventSource("/api/stream");
stream.onopen = () => (state.linked = true);
stream.onerror = () => {
  state.linked = false;
  drawCondition();
};
stream.addEventListener("state", (message) => {
  merge(JSON.parse(message.data));
  soon();
});
setInterval(drawCondition, 1000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  chart.forget();
  soon();
});
