// Runs side by side.

import { intervals, lines } from "./charts.js";
import { accuracy, badge, duration, h, number } from "./dom.js";
import { accuracyPoints, look, unseen } from "./view-run.js";

export async function compareView(page, names) {
  page.crumbs([["compare", null]]);
  const chosen = names.slice(0, 4);
  const seen = chosen.map(unseen);
  const body = h("div");
  page.show(h("div", { class: "row" }, h("h1", {}, "Compare"), names.length > 4 && h("span", { class: "soft" }, "the first four")), body);
  await page.every(async (signal) => {
    const looks = await Promise.all(chosen.map((name, place) => look(name, seen[place], signal, { events: false })));
    const runs = looks.map((one) => one.run);
    const series = (field) => chosen.map((name, place) => ({ name, points: seen[place].lines.filter((line) => line[field] !== undefined).map((line) => [line.step, line[field]]) }));
    const row = (title, value) => h("tr", {}, h("th", { scope: "row" }, title), runs.map((run) => h("td", {}, value(run) ?? "–")));
    const tests = (run) => (run.report?.evaluations ?? []).filter((one) => one.split === "test");
    body.replaceChildren(
      h("div", { class: "card" }, h("table", {}, h("thead", {}, h("tr", {}, h("td"), chosen.map((name) => h("th", { scope: "col" }, h("a", { href: `#/run/${encodeURIComponent(name)}` }, name))))), h("tbody", {},
        row("state", (run) => badge(run.state)),
        row("before", (run) => accuracy(tests(run)[0])),
        row("now", (run) => accuracy(tests(run).at(-1))),
        row("teacher", (run) => accuracy(run.report?.teacher)),
        row("pairs", (run) => number(run.report?.training?.pairs)),
        row("time", (run) => duration(run.report?.seconds))))), h("p"),
      h("div", { class: "grid" },
        intervals("Accuracy by epoch", chosen.map((name, place) => ({ name, points: accuracyPoints(runs[place].report) })), runs[0].report?.teacher),
        lines("Loss", series("loss")), lines("Log-odds margin of chosen over rejected", series("margin")), lines("Pairs a second", series("pairs_per_s"))));
    const again = looks.map((one) => one.again_s);
    return again.includes(0) ? 0 : Math.max(...again);
  });
}
