// Fingers and keys on a chart. The mouse is uPlot's own: drag to zoom, double click for the whole window.
const Gestures = (() => {
  function at(u, event) {
    const box = u.over.getBoundingClientRect();
    return { left: event.clientX - box.left, top: event.clientY - box.top };
  }

  function point(pod, left, top) {
    for (const figure of pod.figures) figure.u.setCursor({ left, top });
  }

  function fingers(pod, u) {
    const down = new Map();
    let pinch = null;
    const lift = event => {
      down.delete(event.pointerId);
      pinch = null;
    };
    u.over.addEventListener("pointerdown", event => {
      if (event.pointerType !== "touch") return;
      down.set(event.pointerId, at(u, event));
      pinch = null;
    });
    u.over.addEventListener("pointermove", event => {
      if (!down.has(event.pointerId)) return;
      down.set(event.pointerId, at(u, event));
      const places = [...down.values()];
      if (places.length === 1) return point(pod, places[0].left, places[0].top);
      const [a, b] = [places[0].left, places[1].left].sort((one, other) => one - other);
      pinch ??= { from: u.posToVal(a, "x"), to: u.posToVal(b, "x") };
      // What was under the fingers stays under them.
      const perPixel = (pinch.to - pinch.from) / Math.max(b - a, 10);
      const min = pinch.from - a * perPixel;
      Charts.zoom(pod, min, min + u.over.clientWidth * perPixel);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) u.over.addEventListener(end, lift);
  }

  function keys(pod, figure) {
    figure.plot.onkeydown = event => {
      const { u } = figure, step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) {
        const last = u.data[0].length - 1;
        const index = Math.min(Math.max((u.cursor.idx ?? last) + step, 0), last);
        point(pod, u.valToPos(u.data[0][index], "x"), 10);
      } else if (event.key === "+" || event.key === "-") {
        Charts.zoomBy(pod, event.key === "+" ? 0.5 : 2, u.data[0][u.cursor.idx]);
      } else if (event.key === "0" || event.key === "Escape") {
        Charts.zoom(pod, ...pod.extent);
      } else {
        return;
      }
      event.preventDefault();
    };
  }

  return {
    attach(pod, figure) {
      fingers(pod, figure.u);
      keys(pod, figure);
    },
  };
})();

(() => {
  function wire(section) {
    const pod = Charts.show(section);
    const tools = section.querySelector(".tools"), choice = section.querySelector(".switch");
    tools.hidden = choice.hidden = false;
    tools.querySelector(".hint").textContent = matchMedia("(pointer: coarse)").matches
      ? "Touch for values, pinch to zoom."
      : "Hover for values, drag to zoom, double click for the whole window.";
    const killed = pod.chart.kills.length > 0;
    tools.querySelector("[data-zoom=kill]").hidden = !killed;
    tools.addEventListener("click", event => {
      const [first, to] = pod.extent;
      switch (event.target.dataset.zoom) {
        case "kill": {
          const kill = pod.chart.kills[0].t / 1000, span = Math.max((to - first) / 8, 2);
          return Charts.zoom(pod, kill - span, Math.max(to, kill + span / 8));
        }
        case "in": return Charts.zoomBy(pod, 0.5);
        case "out": return Charts.zoomBy(pod, 2);
        case "all": return Charts.zoom(pod, first, to);
      }
    });
    choice.addEventListener("click", event => {
      const by = event.target.dataset.by;
      if (!by) return;
      pod.by = by;
      for (const button of choice.children) button.setAttribute("aria-pressed", String(button.dataset.by === by));
      pod.redraw(pod.figures.find(figure => figure.kind === "overhead"));
    });
  }

  function sort(table, column, header) {
    const body = table.tBodies[0];
    const direction = header.getAttribute("aria-sort") === "descending" ? 1 : -1;
    const key = row => {
      const cell = row.cells[column];
      return cell.dataset.sort ?? cell.textContent;
    };
    const numbers = [...body.rows].every(row => key(row) !== "" && !Number.isNaN(Number(key(row))));
    const rows = [...body.rows].sort((a, b) => direction * (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b))));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    body.append(...rows);
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      if (!header.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      button.addEventListener("click", () => sort(table, column, header));
      header.replaceChildren(button);
    });
  }

  function fold(table) {
    const hidden = table.querySelectorAll("tr.beyond-top").length;
    if (!hidden) return;
    table.classList.add("folded");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.textContent = "Show " + hidden + " more";
    button.addEventListener("click", () => {
      table.classList.remove("folded");
      button.remove();
    });
    table.parentElement.after(button);
  }

  // The first charts are drawn at once, others when they come into view: a page may hold a whole node.
  const AT_ONCE = 4;
  const waiting = new Set(document.querySelectorAll(".timeline"));
  const draw = section => {
    if (waiting.delete(section)) wire(section);
  };
  const observer = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        observer.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "400px" });
  [...waiting].forEach((section, index) => index < AT_ONCE ? draw(section) : observer.observe(section));

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("table").forEach(fold);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", Charts.repaint);

  // Paper is light and shows everything.
  let opened = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    [...waiting].forEach(draw);
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach(details => { details.open = true; });
    Charts.resize();
    Charts.repaint();
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    opened.forEach(details => { details.open = false; });
    Charts.resize();
    Charts.repaint();
  });
})();
