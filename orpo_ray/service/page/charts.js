// Charts as SVG: lines with a cursor for pointer and keyboard, points with intervals, bars.

import { h, number, s } from "./dom.js";

const W = 420, H = 210, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 26;
const MOST_POINTS = 500;

/** Round numbers that cover low to high in about `count` steps. */
export function ticks(low, high, count = 4) {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

/** Means of equal stretches, where there are more points than a screen shows. */
export function thinned(points, most = MOST_POINTS) {
  if (points.length <= most) return points;
  const found = [];
  for (let place = 0; place < most; place += 1) {
    const part = points.slice(Math.floor((place * points.length) / most), Math.floor(((place + 1) * points.length) / most));
    found.push([part[part.length - 1][0], part.reduce((sum, [, y]) => sum + y, 0) / part.length]);
  }
  return found;
}

function frame(xs, ys, { integers = false, yText = number } = {}) {
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06;
  [y0, y1] = [y0 - room, y1 + room];
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const y = (value) => H - BOTTOM - ((value - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const parts = ticks(y0, y1).flatMap((value) => [
    s("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value) }),
    s("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, yText(value)),
  ]);
  for (const value of ticks(x0, x1, 5)) {
    if (integers && !Number.isInteger(value)) continue;
    parts.push(s("text", { class: "tick", x: x(value), y: H - 8, "text-anchor": "middle" }, number(value)));
  }
  return { x, y, parts };
}

function figure(title, body, legend, summary) {
  return h("figure", { class: "card" }, h("h2", {}, title), body, h("figcaption", { class: "legend" }, legend), h("p", { class: "soft", hidden: !summary }, summary ?? ""));
}

const key = (name, place) => h("span", {}, h("i", { class: `s${place + 1}` }), name);
const nothing = (title) => h("figure", { class: "card" }, h("h2", {}, title), h("p", { class: "empty" }, "Nothing yet."));

/**
 * Lines over steps. `series`: [{name, points: [[x, y], …]}]. The cursor follows the pointer, and the arrow keys where the
 * chart has the focus; what it is at stands below.
 */
export function lines(title, series, { xName = "step" } = {}) {
  const drawn = series.map((one) => ({ ...one, points: thinned(one.points) })).filter((one) => one.points.length);
  if (!drawn.length) return nothing(title);
  const every = drawn.flatMap((one) => one.points);
  const { x, y, parts } = frame(every.map(([at]) => at), every.map(([, value]) => value), { integers: true });
  const cursor = s("line", { class: "cursor", y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
  const legend = drawn.map((one, place) => key(one.name, place));
  const readout = h("span", { "aria-live": "polite" });
  const paths = drawn.map((one, place) => s("path", { class: `series s${place + 1}`, d: one.points.map(([at, value], first) => `${first ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
  const longest = drawn.reduce((best, one) => (one.points.length > best.points.length ? one : best)).points;
  let place = longest.length - 1;
  const show = (next) => {
    place = Math.max(0, Math.min(longest.length - 1, next));
    const [at] = longest[place];
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    cursor.setAttribute("visibility", "visible");
    const nearest = (points) => points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
    readout.textContent = `${xName} ${number(at)}: ${drawn.map((one) => `${one.name} ${number(nearest(one.points)[1], 4)}`).join(", ")}`;
  };
  const svg = s("svg", {
    viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0,
    "aria-label": `${title}. ${drawn.map((one) => `${one.name} from ${number(one.points[0][1], 4)} to ${number(one.points.at(-1)[1], 4)}`).join("; ")}. Arrow keys move a cursor.`,
    pointermove: (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * W;
      show(longest.reduce((best, point, index) => (Math.abs(x(point[0]) - at) < Math.abs(x(longest[best][0]) - at) ? index : best), 0));
    },
    keydown: (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      show(place + by);
    },
  }, parts, paths, cursor);
  return figure(title, svg, [...legend, readout]);
}

/**
 * Accuracy by epoch: `series` [{name, points: [{x, rate, low, high}]}], whiskers for the 95 % intervals, and `level` (the
 * teacher's) as a dashed line in its band.
 */
export function intervals(title, series, level = null) {
  const drawn = series.filter((one) => one.points.length);
  if (!drawn.length) return nothing(title);
  const every = drawn.flatMap((one) => one.points);
  const ys = every.flatMap((one) => [one.low, one.high]).concat(level ? [level.low, level.high] : []);
  const { x, y, parts } = frame(every.map((one) => one.x), ys, { integers: true, yText: (value) => `${Math.round(100 * value)} %` });
  const marks = [];
  if (level) {
    marks.push(s("rect", { class: "levels", x: LEFT, width: W - LEFT - RIGHT, y: y(level.high), height: y(level.low) - y(level.high) }));
    marks.push(s("line", { class: "level", x1: LEFT, x2: W - RIGHT, y1: y(level.rate), y2: y(level.rate) }));
  }
  drawn.forEach((one, place) => {
    marks.push(s("path", { class: `series s${place + 1}`, d: one.points.map((point, first) => `${first ? "L" : "M"}${x(point.x)} ${y(point.rate)}`).join("") }));
    for (const point of one.points) {
      const label = `${one.name}, epoch ${point.x}: ${(100 * point.rate).toFixed(1)} % (${(100 * point.low).toFixed(1)} to ${(100 * point.high).toFixed(1)})`;
      marks.push(s("line", { class: `whisker s${place + 1}`, x1: x(point.x), x2: x(point.x), y1: y(point.low), y2: y(point.high) }));
      marks.push(s("circle", { class: `f${place + 1}`, cx: x(point.x), cy: y(point.rate), r: 4 }, s("title", {}, label)));
    }
  });
  const words = drawn.map((one) => `${one.name}: ${one.points.map((point) => `epoch ${point.x} ${(100 * point.rate).toFixed(1)} %`).join(", ")}`).join("; ");
  const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}. ${words}${level ? `; teacher ${(100 * level.rate).toFixed(1)} %` : ""}` }, parts, marks);
  return figure(title, svg, [...drawn.map((one, place) => key(one.name, place)), level && h("span", {}, `- - teacher ${(100 * level.rate).toFixed(1)} %`)]);
}

/** A bar for each of [label, count], with its share. */
export function bars(title, entries, xName) {
  const total = entries.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return nothing(title);
  const most = Math.max(...entries.map(([, count]) => count));
  const room = (W - LEFT - RIGHT) / entries.length;
  const parts = entries.flatMap(([label, count], place) => {
    const height = (count / most) * (H - TOP - BOTTOM - 20);
    const left = LEFT + place * room + room * 0.15;
    return [
      s("rect", { class: "f1", x: left, width: Math.min(room * 0.7, 90), y: H - BOTTOM - height, height, rx: 3 }),
      s("text", { class: "tick", x: left + Math.min(room * 0.7, 90) / 2, y: H - BOTTOM - height - 5, "text-anchor": "middle" }, `${count.toLocaleString("en")} · ${((100 * count) / total).toFixed(0)} %`),
      s("text", { class: "tick", x: left + Math.min(room * 0.7, 90) / 2, y: H - 8, "text-anchor": "middle" }, label),
    ];
  });
  const words = entries.map(([label, count]) => `${xName} ${label}: ${count}`).join(", ");
  return figure(title, s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}. ${words}` }, parts), [h("span", {}, xName)]);
}
