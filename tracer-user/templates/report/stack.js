"use strict";
// Numbers and texts of the timeline: no page, no chart.
const Stack = (() => {
  const SUFFIXES = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];

  // Written as the rest of the report writes sizes.
  function bytes(value, digits = 1) {
    if (value == null) return "–";
    for (const [suffix, unit] of SUFFIXES) {
      if (Math.abs(value) >= unit) return (value / unit).toFixed(digits) + " " + suffix;
    }
    return value + " B";
  }

  // Labels of an axis with even steps need no digits that are all zero.
  function tick(value) {
    return bytes(value).replace(/\.0 /, " ");
  }

  function duration(seconds) {
    const s = Math.abs(seconds);
    if (s < 0.95) return Math.round(s * 1000) + " ms";
    if (s < 9.95) return s.toFixed(1) + " s";
    if (s < 120) return Math.round(s) + " s";
    if (s < 7200) return Math.round(s / 60) + " min";
    return (s / 3600).toFixed(1) + " h";
  }

  function clock(seconds, fraction) {
    const iso = new Date(Math.round(seconds * 1000)).toISOString();
    return fraction ? iso.slice(11, 21) : iso.slice(11, 19);
  }

  // What grew stands above zero, what shrank below it. Each edge is the sum of the layers up to it.
  function diverge(layers, length) {
    const up = [], down = [];
    let top = new Array(length).fill(0), bottom = new Array(length).fill(0);
    layers.forEach((layer, index) => {
      if (layer.bytes.some(value => value > 0)) {
        top = top.map((sum, at) => sum + Math.max(layer.bytes[at], 0));
        up.push({ index, edge: top });
      }
      if (layer.bytes.some(value => value < 0)) {
        bottom = bottom.map((sum, at) => sum + Math.min(layer.bytes[at], 0));
        down.push({ index, edge: bottom });
      }
    });
    return { up, down };
  }

  // Guest RAM, then the overhead that was there at the start (less what was given back of it), then what grew.
  function pile(chart) {
    const length = chart.t.length;
    const guest = chart.guest.map(value => value || 0);
    const shrunk = new Array(length).fill(0);
    for (const layer of chart.roles) {
      layer.bytes.forEach((value, at) => { shrunk[at] += Math.min(value, 0); });
    }
    const start = shrunk.map((value, at) => guest[at] + Math.max(chart.start + value, 0));
    const { up } = diverge(chart.roles, length);
    return { guest, start, up: up.map(({ index, edge }) => ({ index, edge: edge.map((value, at) => value + start[at]) })) };
  }

  function last(list) {
    return list[list.length - 1];
  }

  return { bytes, tick, duration, clock, diverge, pile, last };
})();
