
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const places = [...document.querySelectorAll(".plot")];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const percent = (value) => (value == null ? "–" : `${+(100 * value).toPrecision(4)} %`);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const moment = (s) => `day ${1 + Math.floor(s / 86400)} ${two((s / 3600) % 24)}:${two((s / 60) % 60)}`;
  const STEPS_S = [60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

  function options(plot, place, reading) {
    const axis = { stroke: css("muted"), grid: { stroke: css("rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const x = plot.time
      ? { ...axis, incrs: STEPS_S, space: 90, size: 30, values: (_, marks) => marks.map(moment) }
      : plot.xNames.length ? { ...axis, incrs: [1], size: 28, values: (_, marks) => marks.map((mark) => plot.xNames[mark]) }
      : { ...axis, label: plot.xLabel, size: 28, labelSize: 18, labelGap: 0, labelFont: "12px system-ui, sans-serif" };
    return {
      width: place.clientWidth,
      height: place.clientHeight,
      legend: { show: false },
      padding: [8, plot.time || plot.xNames.length ? 36 : 8, 0, 0],
      scales: { x: { time: false }, y: plot.yFrom === null ? {} : { range: (_, low, high) => [Math.min(plot.yFrom, high), high + 0.05 * (high - plot.yFrom)] } },
      cursor: { y: false, drag: { x: true, y: false }, sync: plot.sync ? { key: plot.sync } : undefined },
      axes: [x, { ...axis, size: 56, values: (_, marks) => marks.map(percent) }],
      bands: plot.series.flatMap((line, i) => (line.fillTo === null ? [] : [{ series: [i + 1, line.fillTo + 1], fill: css("power-fill") }])),
      series: [{}, ...plot.series.map((line) => ({
        label: line.label, stroke: css(line.colour), width: line.width, dash: line.dash ? [6, 4] : undefined, points: { show: plot.xNames.length > 0 },
      }))],
      hooks: { setCursor: [(drawn) => tell(plot, drawn.cursor.idx, reading)] },
    };
  }

  function tell(plot, idx, reading) {
    if (idx == null) reading.textContent = plot.time ? "drag to look closer, double-click to go back" : "";
    else {
      const at = plot.time ? moment(plot.x[idx]) : plot.xNames[idx] ?? `${+plot.x[idx].toPrecision(4)}`;
      reading.textContent = `${at}: ${plot.series.map((line) => `${line.label} ${percent(line.values[idx])}`).join(", ")}`;
    }
  }

  function key(plot, place) {
    place.replaceChildren(...plot.series.filter(({ width }) => width > 0).map((line) => {
      const name = document.createElement("span");
      name.textContent = line.label;
      name.className = line.dash ? "dash" : "";
      name.style.setProperty("--own", css(line.colour));
      return name;
    }));
  }

  let drawn = [];
  function draw() {
    drawn.forEach((each) => each.destroy());
    drawn = plots.map((plot, i) => {
      const [canvas, reading] = [".canvas", ".reading"].map((name) => places[i].querySelector(name));
      key(plot, places[i].querySelector(".key"));
      tell(plot, null, reading);
      return new uPlot(options(plot, canvas, reading), [plot.x, ...plot.series.map(({ values }) => values)], canvas);
    });
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", () => drawn.forEach((each, i) => {
    const canvas = places[i].querySelector(".canvas");
    each.setSize({ width: canvas.clientWidth, height: canvas.clientHeight });
  }));
})();
