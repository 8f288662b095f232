// The nodes as a heat map: one tile a node, grouped by rack. Tiles are made once and changed only where they differ.
import { el, percent, watts } from "./format.js";

const STEPS = 10;
const SIZES = [[40, "large"], [160, "medium"], [Infinity, "small"]]; // up to so many nodes

export class NodeMap {
  constructor(place, key, tip) {
    Object.assign(this, { place, tip, names: "", tiles: [], texts: [], current: 0, shown: null });
    key.replaceChildren(...legend());
    place.addEventListener("keydown", (event) => this.move(event));
    for (const type of ["pointerover", "focusin", "click"]) place.addEventListener(type, (event) => this.show(event.target));
    for (const type of ["pointerleave", "focusout"]) place.addEventListener(type, () => this.hide());
    addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
  }

  draw(columns, domains) {
    const names = JSON.stringify([columns.name, columns.rack]);
    if (names !== this.names) this.build(columns);
    this.names = names;
    this.columns = columns;
    columns.name.forEach((_, i) => this.paint(i));
    domains.forEach((domain) => this.drawRack(domain));
    if (this.shown !== null) this.fill(this.shown);
  }

  build({ name, rack }) {
    const groups = new Map();
    this.tiles = name.map((text, i) => {
      const tile = el("button", { type: "button", class: "tile", tabindex: i ? -1 : 0, "data-i": i }, el("b", {}, text), el("i"));
      if (!groups.has(rack[i])) groups.set(rack[i], []);
      groups.get(rack[i]).push(tile);
      return tile;
    });
    this.texts = name.map(() => "");
    this.current = 0;
    this.hide();
    this.place.className = SIZES.find(([most]) => name.length <= most)[1];
    this.heads = new Map([...groups.keys()].map((text) => [`rack/${text}`, el("p", { class: "rack-head" }, el("span", {}, text))]));
    this.place.replaceChildren(...[...groups].map(([text, tiles]) =>
      el("div", { class: "rack" }, this.heads.get(`rack/${text}`), el("div", { class: "tiles" }, ...tiles))));
  }

  // A rack with a budget has a bar beside its name.
  drawRack({ scope, power_w, budget_w, rules, outlook }) {
    const head = this.heads.get(scope);
    if (!head || !budget_w) return;
    const used = power_w / budget_w;
    if (head.children.length === 1) head.append(el("span", { class: "bar" }, el("span")), el("span", { class: "num" }));
    head.classList.toggle("over", used > 1);
    const bound = outlook && !outlook.doubt ? `, forecast ≤ ${watts(outlook.upper_w)}` : "";
    head.title = `${watts(power_w)} of ${watts(budget_w)}${bound}`;
    head.children[1].style.setProperty("--used", Math.min(1, used));
    head.lastChild.textContent = `${used > 1 ? "▲ over: " : ""}${percent(used)}${rules.length ? ", limited" : ""} of ${watts(budget_w)}`;
  }

  facts(i) {
    const of = (column) => this.columns[column][i];
    const power_w = of("power_w");
    const share = power_w === null || !of("max_w") ? null : power_w / of("max_w");
    const locked = (of("clock_frac") ?? 1) < 1;
    const capped = (of("cap_frac") ?? 1) < 1;
    return { name: of("name"), rack: of("rack"), power_w, max_w: of("max_w"), share, locked, capped, clock: of("clock_frac"),
      cap: of("cap_frac"), priority: of("priority"), stale: of("stale") || power_w === null, fault: of("fault") };
  }

  paint(i) {
    const facts = this.facts(i);
    const step = facts.share === null ? "none" : Math.min(STEPS, Math.max(0, Math.round(facts.share * STEPS)));
    const marks = [["high", facts.priority === "high"], ["stale", facts.stale], ["lock", facts.locked || facts.capped], ["fault", facts.fault]];
    const look = ["tile", `h${step}`, ...marks.filter(([, on]) => on).map(([mark]) => mark)].join(" ");
    const share = facts.share === null ? "?" : percent(facts.share);
    const text = lines(facts).join(", ");
    const tile = this.tiles[i];
    if (tile.className !== look) tile.className = look;
    if (this.texts[i] === text) return;
    this.texts[i] = text;
    tile.setAttribute("aria-label", text);
    tile.lastChild.textContent = share;
  }

  move(event) {
    const row = this.perLine();
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !this.tiles.length) return;
    event.preventDefault();
    this.tiles[this.current].tabIndex = -1;
    this.current = Math.min(this.tiles.length - 1, Math.max(0, this.current + by));
    this.tiles[this.current].tabIndex = 0;
    this.tiles[this.current].focus();
  }

  perLine() {
    const top = this.tiles[this.current]?.offsetTop;
    return Math.max(1, this.tiles.filter((tile) => tile.offsetTop === top).length);
  }

  show(target) {
    const tile = target.closest?.(".tile");
    if (!tile) return this.hide();
    this.shown = Number(tile.dataset.i);
    this.fill(this.shown);
    this.tip.hidden = false;
    const at = tile.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const left = Math.min(innerWidth - width - 8, Math.max(8, at.left + at.width / 2 - width / 2));
    const top = at.top > height + 12 ? at.top - height - 8 : at.bottom + 8;
    this.tip.style.left = `${left + scrollX}px`;
    this.tip.style.top = `${top + scrollY}px`;
  }

  fill(i) {
    const [name, ...rest] = lines(this.facts(i));
    this.tip.replaceChildren(el("strong", {}, name), ...rest.map((line) => el("span", {}, line)));
  }

  hide() {
    this.shown = null;
    this.tip.hidden = true;
  }
}

// What one tile means, in words: the tooltip and the label for those who cannot see it.
function lines({ name, rack, power_w, max_w, share, locked, capped, clock, cap, priority, stale, fault }) {
  const power = share === null ? "never heard" : `${watts(power_w)} of ${watts(max_w)} (${percent(share)})`;
  const found = [`${name} · rack ${rack}`, power, priority ? `${priority} priority` : "both priorities"];
  if (locked) found.push(`clock locked at ${percent(clock)}`);
  if (capped) found.push(`power limit at ${percent(cap)}`);
  if (!locked && !capped) found.push(clock === null ? "setpoint not known" : "free");
  if (stale) found.push("stale: counted at its worst");
  if (fault) found.push(`⚠ ${fault}`);
  return found;
}

function legend() {
  const scale = el("span", { class: "scale", "aria-hidden": "true" });
  for (let step = 0; step <= STEPS; step += 1) scale.append(el("span", { class: `h${step}` }));
  const marks = [["high", "high priority"], ["lock", "locked"], ["stale", "stale"], ["fault", "fault"]];
  return [
    el("span", { class: "scaled" }, "0 %", scale, "100 % of max"),
    ...marks.map(([mark, text]) => el("span", { class: "sample" }, el("span", { class: `tile h2 ${mark}`, "aria-hidden": "true" }), text)),
  ];
}
