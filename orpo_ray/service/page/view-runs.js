// All runs, the newest first.

import { get } from "./api.js";
import { accuracy, badge, h, moment } from "./dom.js";

export async function runsView(page) {
  const chosen = new Set();
  const compare = h("button", { disabled: true, click: () => { location.hash = `#/compare/${[...chosen].map(encodeURIComponent).join(",")}`; } }, "Compare");
  const body = h("tbody");
  const table = h("table", { class: "wide" }, h("thead", {}, h("tr", {}, ["", "Run", "State", "Before", "Now", "Teacher", "Started"].map((name) => h("th", { scope: "col" }, name)))), body);
  const more = h("button", { hidden: true }, "More");
  const place = h("div");
  page.crumbs([]);
  page.show(h("div", { class: "row" }, h("h1", {}, "Runs"), h("span", { class: "push" }), compare), place);

  let pages = 1;
  more.addEventListener("click", () => { pages += 1; page.again(); });
  const pick = (name) => h("input", {
    type: "checkbox", "aria-label": `Compare ${name}`, checked: chosen.has(name),
    change: (event) => {
      if (event.target.checked) chosen.add(name); else chosen.delete(name);
      compare.disabled = chosen.size < 2;
      compare.textContent = chosen.size ? `Compare ${chosen.size}` : "Compare";
    },
  });

  await page.every(async (signal) => {
    const items = [];
    let next = null, again = 0;
    for (let at = 0; at < pages && (at === 0 || next !== null); at += 1) {
      const found = await get(`/v1/runs?limit=50${next ? `&after=${encodeURIComponent(next)}` : ""}`, signal);
      items.push(...found.items);
      [next, again] = [found.next, found.again_s];
    }
    more.hidden = next === null;
    if (!items.length) {
      place.replaceChildren(h("div", { class: "card empty" },
        h("p", {}, "No runs yet."),
        h("p", {}, "Submit one to this service:"),
        h("pre", {}, `orpo_ray.Client("${location.origin}", token).submit("run.yaml")`)));
      return again;
    }
    const focused = document.activeElement?.getAttribute("aria-label");
    body.replaceChildren(...items.map((run) => h("tr", {},
      h("td", {}, pick(run.name)),
      h("td", {}, h("a", { href: `#/run/${encodeURIComponent(run.name)}` }, run.name), run.error && h("div", { class: "soft" }, run.error.split("\n")[0])),
      h("td", {}, badge(run.state), " ", run.state === "done" ? "" : h("span", { class: "soft" }, run.phase ?? "")),
      h("td", { "data-name": "before" }, accuracy(run.before)),
      h("td", { "data-name": "now" }, accuracy(run.now)),
      h("td", { "data-name": "teacher" }, accuracy(run.teacher)),
      h("td", { "data-name": "started" }, moment(run.started)))));
    if (!table.isConnected) place.replaceChildren(h("div", { class: "card" }, table, more));
    // The row was made anew under the keyboard.
    if (focused) [...body.querySelectorAll("input")].find((box) => box.getAttribute("aria-label") === focused)?.focus();
    return again;
  });
}
