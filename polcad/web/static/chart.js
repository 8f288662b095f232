// Row power, uncapped demand and its forecast bound against the budget and the policy's thresholds, and below it what
// was locked when.
import { clock, el, percent, watts } from "./format.js";

const LEFT = 58; // room for the axes, shared with the lanes below
const RIGHT = 70;
const GAP_S = 5; // points further apart are not joined: nobody knows what lay between
const LINE_PX = 13; // of an axis
const LEAST_S = 60; // a chart of two seconds tells nothing
const LANES = [["low", "Low"], ["high", "High"]];
const WILDEST = 1.3; // of the budget: a bound above it may leave the picture, so that the power stays readable
const ABOUT = { outlook: "What the uncapped demand is to stay below while a setting takes to act" };

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  constructor(place, lanes, key, reading) {
    Object.assign(this, { place, lanes, key, reading, plot: null, names: "", points: [], limits: [] });
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(place);
  }

  // Colours or thresholds changed: build anew at the next draw.
  forget() {
    this.plot?.destroy();
    this.plot = null;
  }

  draw(points, thresholds) {
    if (!points.length) return;
    this.points = points;
    const budget_w = points.at(-1).budget_w;
    this.limits = limitsOf(thresholds).map((limit) => ({ ...limit, w: limit.frac * budget_w }));
    this.foreseen = points.some(({ upper_w }) => upper_w !== null);
    const names = JSON.stringify([this.foreseen, ...this.limits.map(({ label }) => label)]);
    if (names !== this.names) this.forget();
    this.names = names;
    if (this.plot) this.plot.setData(this.columns());
    else this.build();
    this.drawLanes();
    this.describe();
  }

  build() {
    this.place.replaceChildren();
    this.plot = new uPlot(this.options(), this.columns(), this.place);
    const lines = this.plot.series.slice(1).filter(({ className }) => this.foreseen || className !== "outlook");
    this.key.replaceChildren(...lines.map(({ label, className: kind }) =>
      el("span", { class: `line ${kind}`, title: ABOUT[kind] ?? "" }, label)));
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight };
  }

  columns() {
    const data = [[], [], [], [], ...this.limits.map(() => [])];
    const push = (...values) => {
      values.slice(0, 4).forEach((value, i) => data[i].push(value));
      this.limits.forEach(({ frac }, i) => data[4 + i].push(values[4] === null ? null : frac * values[4]));
    };
    let last = null;
    for (const { t, power_w, demand_w, upper_w, budget_w } of this.points) {
      if (last !== null && t - last > GAP_S) push(last + 1, null, null, null, null);
      push(t, power_w, demand_w, upper_w, budget_w);
      last = t;
    }
    return data;
  }

  span() {
    const last = this.points.at(-1).t;
    return [Math.min(Math.max(this.points[0].t, last - 900), last - LEAST_S), last];
  }

  range() {
    const budget = this.points.at(-1).budget_w;
    const low = Math.min(0.6 * budget, ...this.points.map((point) => 0.95 * point.power_w));
    const top = ({ power_w, demand_w, upper_w }) => Math.max(power_w, demand_w, Math.min(upper_w ?? 0, WILDEST * budget));
    const high = Math.max(1.06 * budget, ...this.points.map((point) => 1.03 * top(point)));
    return [low, high];
  }

  options() {
    const ink = css("--muted");
    const axis = { stroke: ink, font: "12px system-ui, sans-serif", ticks: { show: false } };
    const limits = this.limits.map(({ label, kind, dash }) => ({
      label, className: kind, stroke: css(`--${kind}`), width: kind === "budget" ? 2 : 1.5, dash, points: { show: false },
    }));
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      padding: [10, 0, 0, 0],
      scales: { x: { range: () => this.span() }, w: { range: () => this.range() } },
      axes: [
        { ...axis, grid: { show: false }, values: (_, ts) => ts.map((t) => clock(t)), space: 90, size: 26, incrs: [10, 30, 60, 120, 180, 300] },
        { ...axis, scale: "w", size: LEFT, grid: { stroke: css("--rule"), width: 1 }, space: 44, values: (_, ws) => ws.map((w) => watts(w).replace(/\.0+(?=\s)/, "")) },
        { ...axis, scale: "w", side: 1, size: RIGHT, grid: { show: false }, gap: 4, stroke: css("--ink"),
          splits: () => this.limits.map(({ w }) => w).reverse(),
          values: (plot) => this.labels(plot) },
      ],
      series: [
        {},
        { label: "power", className: "power", scale: "w", stroke: css("--power"), fill: css("--power-fill"), width: 2, points: { show: false } },
        { label: "demand if uncapped", className: "demand", scale: "w", stroke: css("--demand"), dash: [2, 4], width: 1.5, points: { show: false } },
        { label: "forecast bound", className: "outlook", scale: "w", stroke: css("--outlook"), width: 1, points: { show: false } },
        ...limits.map((limit) => ({ ...limit, scale: "w" })),
      ],
      bands: [{ series: [3, 1], fill: css("--outlook-fill") }], // from the bound down to the power
      hooks: { setCursor: [(plot) => this.read(plot.cursor.idx)], drawClear: [(plot) => this.shade(plot)] },
    };
  }

  // The limits' names, lowest first; one that would touch the one above it stands in the key alone.
  labels(plot) {
    let above = -Infinity;
    return this.limits.map(({ label, w }) => {
      const y = plot.valToPos(w, "w");
      if (y - above < LINE_PX) return "";
      above = y;
      return label;
    }).reverse();
  }

  // A brake tints the whole height of the chart.
  shade(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = css("--brake-tint");
    for (const { from, to, label } of runs(this.points, "high")) {
      if (!label.startsWith("BRAKE")) continue;
      const x = Math.max(bbox.left, plot.valToPos(from, "x", true));
      ctx.fillRect(x, bbox.top, Math.max(2, plot.valToPos(to, "x", true) - x), bbox.height);
    }
    ctx.restore();
  }

  read(index) {
    const [ts, power, demand, upper, ...limits] = this.plot ? this.plot.data : [[]];
    const t = ts[index];
    if (t === undefined || power[index] === null) return this.reading.replaceChildren();
    const budget = limits[this.limits.findIndex(({ frac }) => frac === 1)][index];
    const bound = upper[index] === null ? "" : `, forecast ≤ ${watts(upper[index])}`;
    this.reading.textContent =
      `${clock(t)}  ${watts(power[index])} (${percent(power[index] / budget)}), demand ${watts(demand[index])}${bound}`;
  }

  drawLanes() {
    const [start, end] = this.span();
    this.lanes.replaceChildren(...LANES.map(([key, name]) => {
      const track = el("div", { class: "track" });
      for (const { from, to, label } of runs(this.points, key)) {
        if (!label || to <= start) continue;
        const kind = label.split(" ")[0].toLowerCase();
        const wide = ((to - from) / (end - start)) * (this.place.clientWidth - LEFT - RIGHT) > 6.4 * label.length; // else its title must do
        const part = el("span", { class: `run ${kind}`, title: `${label}: ${clock(from)}–${clock(to)}` }, wide ? label : "");
        part.style.left = `${(100 * (Math.max(from, start) - start)) / (end - start)}%`;
        part.style.width = `${(100 * (to - Math.max(from, start))) / (end - start)}%`;
        track.append(part);
      }
      return el("div", { class: "lane" }, el("span", { class: "name" }, name), track);
    }));
  }

  describe() {
    const { power_w, upper_w, budget_w } = this.points.at(-1);
    const peak = Math.max(...this.points.map((point) => point.power_w));
    const minutes = Math.round((this.points.at(-1).t - this.points[0].t) / 60);
    this.place.setAttribute("aria-label",
      `Row power, last ${minutes} minutes: now ${watts(power_w)}, highest ${watts(peak)}, ` +
      `${upper_w === null ? "" : `forecast at most ${watts(upper_w)}, `}budget ${watts(budget_w)}`);
  }
}

// The budget and the thresholds, highest first; a brake at the budget is the same line.
function limitsOf(thresholds) {
  const limits = [{ label: "budget", frac: 1, kind: "budget", dash: [] }];
  const others = Object.entries(thresholds).filter(([, frac]) => frac !== 1).sort((a, b) => b[1] - a[1]);
  others.forEach(([name, frac], i) => limits.push({
    label: `${name.toUpperCase()} ${percent(frac)}`, frac, kind: i === 0 ? "upper" : "lower", dash: i === 0 ? [10, 4] : [5, 5],
  }));
  return limits.sort((a, b) => b.frac - a.frac);
}

// Stretches of equal text: { from, to, label }.
function runs(points, key) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && last.label === point[key] && point.t - last.to <= GAP_S) last.to = point.t;
    else {
      if (last && point.t - last.to <= GAP_S) last.to = point.t;
      found.push({ from: point.t, to: point.t, label: point[key] });
    }
  }
  return found;
}
