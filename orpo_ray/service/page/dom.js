// Elements, numbers and times.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; functions are listeners, null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
export const number = (value, digits = 2) =>
  value === null || value === undefined || Number.isNaN(value) ? "–"
    : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toFixed(digits)).toString();
export const badge = (state) => h("span", { class: `badge ${state}` }, state);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
  return `${Math.floor(whole / 3600)}:${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} h`;
}

export const moment = (iso) => (iso ? new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–");

/** "57.0 % (52.6–61.3)" of an accuracy with its 95 % interval. */
export const accuracy = (one) => (one ? `${percent(one.rate)} (${(100 * one.low).toFixed(1)}–${(100 * one.high).toFixed(1)})` : "–");
