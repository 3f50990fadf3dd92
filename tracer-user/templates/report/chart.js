// The two charts of a pod: usage against the limit, and growth of overhead. They share cursor and zoom.
const Charts = (() => {
  const NARROW = 640;
  const binary = Array.from({ length: 50 }, (_, power) => 2 ** power);
  const all = [];

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  const colour = name => () => css(name);

  function faint(name, alpha) {
    return () => css(name) + Math.round(alpha * 255).toString(16).padStart(2, "0");
  }

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text != null) made.textContent = text;
    return made;
  }

  // The role that is to blame has a colour that no other has.
  function colours(chart) {
    let next = 1;
    return chart.roles.map(layer => {
      if (layer.name === chart.blamed) return "--r0";
      if (/^\d+ others$/.test(layer.name)) return "--r8";
      return next < 8 ? "--r" + next++ : "--r8";
    });
  }

  function time(u, splits) {
    const span = u.scales.x.max - u.scales.x.min;
    return splits.map(split => Stack.clock(split, span < 5).replace(/^(\d\d:\d\d):00$/, span > 300 ? "$1" : "$&"));
  }

  function axes() {
    const font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    const lines = { stroke: colour("--line"), width: 1 };
    return [
      { values: time, stroke: colour("--soft"), font, grid: lines, ticks: lines, space: 80 },
      { values: (u, splits) => splits.map(Stack.tick), stroke: colour("--soft"), font, grid: lines, ticks: lines, incrs: binary, space: 42, size: 72 },
    ];
  }

  // A vertical line with a word at its top.
  function mark(u, t, text, name, row) {
    const { min, max } = u.scales.x;
    if (t < min || t > max) return;
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    const x = Math.round(u.valToPos(t, "x", true));
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css(name);
    ctx.lineWidth = 2 * ratio;
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.font = "600 " + 12 * ratio + "px system-ui, sans-serif";
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    const width = ctx.measureText(text).width, gap = 6 * ratio;
    const left = x + gap + width > bbox.left + bbox.width;
    const at = left ? x - gap - width : x + gap, y = bbox.top + (3 + 18 * row) * ratio;
    ctx.globalAlpha = 0.85;
    ctx.fillStyle = css("--card");
    ctx.fillRect(at - 3 * ratio, y - 2 * ratio, width + 6 * ratio, 17 * ratio);
    ctx.globalAlpha = 1;
    ctx.fillStyle = css(name);
    ctx.fillText(text, at, y);
    ctx.restore();
  }

  // From where usage was to where it was expected to hit the limit, and how sure that was.
  function forecast(u, chart, made, first) {
    const index = u.data[0].findIndex(t => t >= made.at / 1000);
    if (index < 0) return;
    const limit = chart.limit[index] ?? Stack.last(chart.limit);
    if (limit == null) return;
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    const x = t => u.valToPos(t / 1000, "x", true), y = value => u.valToPos(value, "y", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.globalAlpha = first ? 1 : 0.35;
    ctx.strokeStyle = ctx.fillStyle = css("--forecast");
    ctx.lineWidth = (first ? 2 : 1) * ratio;
    ctx.setLineDash([6 * ratio, 4 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x(made.at), y(chart.usage[index]));
    ctx.lineTo(x(made.kill), y(limit));
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.arc(x(made.at), y(chart.usage[index]), (first ? 4 : 2.5) * ratio, 0, 2 * Math.PI);
    ctx.fill();
    if (first) {
      ctx.globalAlpha = 0.3;
      const from = x(made.low);
      ctx.fillRect(from, y(limit) - 4 * ratio, Math.max(x(made.high) - from, 2 * ratio), 8 * ratio);
    }
    ctx.restore();
  }

  function marks(pod, u, withForecasts) {
    const { chart } = pod;
    if (withForecasts) {
      chart.forecasts.forEach((made, index) => forecast(u, chart, made, index === 0));
      const first = chart.forecasts[0];
      if (first) mark(u, first.at / 1000, "first forecast", "--forecast", 1);
      chart.alerts.forEach((alert, index) => mark(u, alert.t / 1000, alert.label, "--warn", 2 + index % 3));
    }
    chart.marks.forEach((set, index) => mark(u, set.t / 1000, set.label, "--soft", 1 + index % 4));
    chart.kills.forEach((kill, index) => mark(u, kill.t / 1000, kill.label, "--limit", index === 0 ? 0 : 2));
  }

  // All of the window, kills and near forecasts included.
  function extent(chart) {
    const first = chart.t[0] / 1000, end = Stack.last(chart.t) / 1000, span = Math.max(end - first, 0.001);
    let to = end;
    for (const kill of chart.kills) to = Math.max(to, kill.t / 1000);
    for (const made of chart.forecasts) if (made.kill / 1000 < end + span / 2) to = Math.max(to, made.kill / 1000);
    return [first, to + span * 0.01];
  }

  function options(pod, figure, height, series, bands, yRange, hooks) {
    const [first, to] = pod.extent;
    return {
      width: Math.max(figure.plot.clientWidth, 200),
      height: height(),
      padding: [10, 26, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: pod.key }, drag: { x: true, y: false, dist: 4 }, points: { show: false }, y: false },
      scales: {
        x: { time: true, range: (u, min, max) => min <= first && max >= Stack.last(u.data[0]) ? [first, to] : [Math.max(min, first), Math.min(max, to)] },
        y: { range: yRange },
      },
      axes: axes(),
      series: [{}, ...series],
      bands,
      hooks,
    };
  }

  const area = name => ({ scale: "y", width: 0, fill: faint(name, 0.85), points: { show: false } });
  const line = (name, width, dash) => ({ scale: "y", stroke: colour(name), width, dash, points: { show: false } });

  function memory(pod, figure) {
    const { chart } = pod;
    const seconds = chart.t.map(t => t / 1000);
    const { guest, start, up } = Stack.pile(chart);
    const data = [seconds, guest, start, ...up.map(layer => layer.edge), chart.usage, chart.limit];
    const series = [area("--guest"), area("--start"), ...up.map(layer => area(pod.colours[layer.index])), line("--usage", 1.5), line("--limit", 2, [8, 5])];
    const bands = series.slice(1, 2 + up.length).map((_, index) => ({ series: [index + 2, index + 1] }));
    const most = Math.max(...chart.usage, ...chart.limit.map(limit => limit ?? 0), 1);
    const height = () => figure.plot.clientWidth < NARROW ? 230 : 300;
    const u = new uPlot(options(pod, figure, height, series, bands, () => [0, most * 1.16], {
      draw: [u => marks(pod, u, true)],
      setCursor: [() => figure.update()],
    }), data, figure.plot);
    const rows = [
      { name: "limit", style: "line dashed", colour: "--limit", value: at => chart.limit[at] },
      { name: "usage", style: "line", colour: "--usage", value: at => chart.usage[at] },
      { name: "headroom", style: "none", value: at => chart.limit[at] == null ? null : chart.limit[at] - chart.usage[at] },
      { name: "guest RAM", colour: "--guest", value: at => chart.guest[at], rule: true },
      { name: "overhead at the start", colour: "--start", value: at => Math.max(start[at] - guest[at], 0) },
      ...up.map(({ index }) => layerRow(pod, index, pod.colours[index], chart.roles[index], "+ ")),
    ];
    if (chart.reclaimable.some(value => value > 0)) {
      rows.push({ name: "reclaimable page cache", style: "none", value: at => chart.reclaimable[at], rule: true });
    }
    if (chart.forecasts.length) {
      rows.push({ name: chart.forecasts.length > 1 ? "forecasts of the kill" : "forecast of the kill", style: "line dashed", colour: "--forecast", value: () => undefined, rule: true });
    }
    if (chart.alerts.length) {
      rows.push({ name: chart.alerts.length > 1 ? "alerts" : "alert", style: "line", colour: "--warn", value: () => undefined });
    }
    if (chart.marks.length) {
      rows.push({ name: chart.marks.length > 1 ? "marks" : "mark", style: "line", colour: "--soft", value: () => undefined });
    }
    return { u, rows, height };
  }

  function layerRow(pod, index, name, layer, sign) {
    return { name: sign + layer.name, colour: name, value: at => layer.bytes[at], blamed: layer.name === pod.chart.blamed };
  }

  function overhead(pod, figure) {
    const { chart } = pod;
    const layers = pod.by === "kinds" ? chart.kinds : chart.roles;
    const names = pod.by === "kinds" ? chart.kinds.map(layer => "--k-" + layer.name) : pod.colours;
    const { up, down } = Stack.diverge(layers, chart.t.length);
    const left = chart.budget == null ? null : chart.budget - chart.start;
    const edges = [...up, ...down];
    const data = [chart.t.map(t => t / 1000), ...edges.map(layer => layer.edge)];
    const series = edges.map(layer => area(names[layer.index]));
    const bands = [];
    up.slice(1).forEach((_, index) => bands.push({ series: [index + 2, index + 1] }));
    down.slice(1).forEach((_, index) => bands.push({ series: [up.length + index + 2, up.length + index + 1], dir: 1 }));
    let most = 0, least = 0;
    for (const layer of up) for (const value of layer.edge) most = Math.max(most, value);
    for (const layer of down) for (const value of layer.edge) least = Math.min(least, value);
    // The budget shows where growth comes near it; else it would flatten everything.
    const near = left != null && left > 0 && left < most * 4;
    if (near) {
      data.push(chart.t.map(() => left));
      series.push(line("--usage", 1.5, [2, 4]));
      most = Math.max(most, left);
    }
    most = Math.max(most, 4096);
    const height = () => figure.plot.clientWidth < NARROW ? 210 : 250;
    const u = new uPlot(options(pod, figure, height, series, bands, () => [least * 1.08, most * 1.16], {
      draw: [u => marks(pod, u, false)],
      setCursor: [() => figure.update()],
    }), data, figure.plot);
    const sum = at => layers.reduce((total, layer) => total + layer.bytes[at], 0);
    const rows = [
      { name: "growth of overhead", style: "none", value: sum },
      { name: "budget left at the start", style: "line dashed", colour: near ? "--usage" : null, value: () => left },
      ...layers.map((layer, index) => ({ ...layerRow(pod, index, names[index], layer, ""), rule: index === 0 })),
    ];
    return { u, rows, height };
  }

  function when(pod, at) {
    const { chart } = pod, t = chart.t[at] / 1000;
    const kill = chart.kills[0];
    let relative = "";
    if (kill) {
      const before = kill.t / 1000 - t;
      relative = Math.abs(before) < 0.0015 ? "at the kill" : Stack.duration(before) + (before > 0 ? " before the kill" : " after the kill");
    } else {
      relative = Stack.duration(t - chart.t[0] / 1000) + " into the window";
    }
    return [Stack.clock(t, true) + " UTC", relative];
  }

  function draw(pod, figure, make) {
    figure.plot.replaceChildren();
    Object.assign(figure, make(pod, figure));
    figure.legend.replaceChildren();
    const head = element("p", "when"), list = element("ul");
    const cells = figure.rows.map(row => {
      const item = element("li", (row.rule ? "rule " : "") + (row.blamed ? "blamed" : ""));
      const swatch = element("i", row.style);
      if (row.colour) {
        if (row.style) swatch.style.borderTopColor = "var(" + row.colour + ")";
        else swatch.style.background = "var(" + row.colour + ")";
      } else {
        swatch.className = "";
      }
      const value = element("b"), name = element("span", "", row.name);
      name.title = row.name;
      item.append(swatch, name, value);
      list.append(item);
      return value;
    });
    figure.legend.append(head, list);
    figure.update = () => {
      const at = figure.u?.cursor.idx ?? pod.chart.t.length - 1;
      const [clock, relative] = when(pod, at);
      head.replaceChildren(element("b", "", clock), relative);
      figure.rows.forEach((row, index) => {
        const value = row.value(at);
        cells[index].textContent = value === undefined ? "" : Stack.bytes(value);
      });
    };
    figure.update();
    if (typeof Gestures !== "undefined") Gestures.attach(pod, figure);
  }

  function zoom(pod, min, max) {
    const [first, to] = pod.extent, least = Math.max((to - first) / 500, 0.05);
    if (max - min < least) {
      const middle = (min + max) / 2;
      min = middle - least / 2;
      max = middle + least / 2;
    }
    min = Math.max(min, first);
    max = Math.min(max, to);
    for (const figure of pod.figures) figure.u.setScale("x", { min, max });
  }

  // Around where the cursor is, else around the middle.
  function zoomBy(pod, factor, around) {
    const { min, max } = pod.figures[0].u.scales.x;
    const at = around ?? (min + max) / 2;
    zoom(pod, at - (at - min) * factor, at + (max - at) * factor);
  }

  function show(section) {
    const chart = JSON.parse(section.querySelector("script.series").textContent);
    const pod = { chart, key: section.closest(".pod").id, by: "roles", colours: colours(chart), extent: extent(chart) };
    pod.figures = [...section.querySelectorAll("figure.chart")].map(figure => ({
      kind: figure.dataset.chart,
      plot: figure.querySelector(".plot"),
      legend: figure.querySelector(".legend"),
      update: () => {},
    }));
    const make = { memory, overhead };
    pod.draw = () => pod.figures.forEach(figure => draw(pod, figure, make[figure.kind]));
    pod.redraw = figure => {
      const { min, max } = figure.u.scales.x;
      figure.u.destroy();
      draw(pod, figure, make[figure.kind]);
      zoom(pod, min, max);
    };
    pod.resize = () => pod.figures.forEach(figure => figure.u.setSize({ width: Math.max(figure.plot.clientWidth, 200), height: figure.height() }));
    pod.draw();
    new ResizeObserver(() => pod.resize()).observe(pod.figures[0].plot);
    all.push(pod);
    return pod;
  }

  function repaint() {
    for (const pod of all) for (const figure of pod.figures) figure.u.redraw(false);
  }

  return { show, zoom, zoomBy, repaint, resize: () => all.forEach(pod => pod.resize()) };
})();
