// One run, live.

import { get, post, runPath } from "./api.js";
import { bars, intervals, lines } from "./charts.js";
import { badge, duration, h, number, percent } from "./dom.js";

const LOG_LINES = 200;

/** What was seen of a run so far, and where what was not seen begins. */
export const unseen = () => ({ events: 0, metrics: 0, lines: [] });

/** The run as it is, with the lines that `seen` had not; `seen` is brought up to date. */
export async function look(name, seen, signal, { events = true } = {}) {
  const live = await get(runPath(name, `/live?metrics=${seen.metrics}${events ? `&events=${seen.events}` : ""}`), signal);
  // A step that stands there again is of a new attempt, and so is all that is behind it.
  for (const line of live.metrics.items) {
    while (seen.lines.length && seen.lines.at(-1).step >= line.step) seen.lines.pop();
    seen.lines.push(line);
  }
  [seen.events, seen.metrics] = [live.events.next, live.metrics.next];
  return live;
}

export const accuracyPoints = (report) => (report?.evaluations ?? []).filter((one) => one.split === "test" && one.rate !== null)
  .map((one) => ({ x: one.epoch, rate: one.rate, low: one.low, high: one.high }));

export async function runView(page, name) {
  page.crumbs([[name, null]]);
  const heading = h("div", { class: "row" });
  const body = h("div");
  const log = h("div", { class: "log card", tabindex: 0, "aria-label": "Events" });
  page.show(heading, body, h("h2", {}, "Events"), log);

  const seen = unseen();
  const stop = h("button", { class: "danger", click: () => askToStop(page, name) }, "Stop");

  let drawn = "";
  await page.every(async (signal) => {
    const { run, activity, events, again_s } = await look(name, seen, signal);
    const near = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(...events.items.slice(-LOG_LINES).map((event) => h("div", {}, sentence(event))));
    while (log.childElementCount > LOG_LINES) log.firstChild.remove();
    if (near) log.scrollTop = log.scrollHeight;
    const working = run.state === "running" || run.state === "pending";
    stop.disabled = !working;
    heading.replaceChildren(h("h1", {}, name), badge(run.state),
      h("span", { class: "soft" }, run.report ? duration(run.report.seconds) : ""),
      h("span", { class: "push" }),
      h("a", { href: `#/run/${encodeURIComponent(name)}/pairs` }, "Pairs"), h("a", { href: `#/run/${encodeURIComponent(name)}/traces` }, "Traces"), stop);
    // Charts are drawn anew only where there is something new: a cursor stays under the pointer.
    const now = JSON.stringify([run, activity.items, seen.metrics]);
    if (now === drawn) return again_s;
    drawn = now;
    const focus = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label")?.split(".")[0] : null;
    body.replaceChildren(...parts(run, activity.items, seen.lines));
    if (focus) [...body.querySelectorAll("svg[tabindex]")].find((one) => one.getAttribute("aria-label").startsWith(focus))?.focus();
    return again_s;
  });
}

function parts(run, groups, lines_) {
  const report = run.report;
  if (!report) return [h("p", { class: "empty" }, run.state === "pending" ? "The cluster has taken it; it has not begun." : "It has left no files.")];
  const found = [];
  if (report.error) found.push(h("pre", { class: "card" }, report.error), h("p"));
  found.push(h("ol", { class: "phases", "aria-label": "Phases" }, report.phases.map((phase) => h("li", { class: phase.state }, h("b", {}, phase.name),
    `${phase.state}${phase.seconds ? `, ${duration(phase.seconds)}` : ""}`, phase.did && h("div", { class: "soft" }, phase.did)))));
  const progress = run.progress;
  if (progress) {
    found.push(h("div", { class: "card" }, h("progress", { value: progress.done, max: progress.total, "aria-label": `${progress.phase} progress` }),
      h("div", {}, `${progress.phase} ${progress.done.toLocaleString("en")} / ${progress.total.toLocaleString("en")}`,
        progress.seconds_left === null ? "" : `, ${duration(progress.seconds_left)} left`),
      h("div", { class: "soft" }, progress.details)), h("p"));
  }
  found.push(tiles(report, groups, lines_));
  const series = (...names) => names.map(([field, title]) => ({ name: title, points: lines_.filter((line) => line[field] !== undefined).map((line) => [line.step, line[field]]) }));
  const staleness = Object.entries(report.training?.staleness ?? {}).map(([lag, rows]) => [lag, rows]);
  const policies = Object.entries(report.training?.by_policy ?? {}).filter(([, rows]) => rows);
  found.push(h("div", { class: "grid" },
    intervals("Accuracy by epoch", [{ name: "student, test", points: accuracyPoints(report) }], report.teacher),
    lines("Loss", series(["loss", "loss"], ["sft", "SFT"], ["odds_ratio", "odds ratio"])),
    lines("Log-odds margin of chosen over rejected", series(["margin", "margin"])),
    bars("Staleness of live rows", staleness, "versions behind"),
    bars("Where rejected traces came from", policies, "policy"),
    lines("Pairs a second", series(["pairs_per_s", "pairs/s"]))));
  return found;
}

function tiles(report, groups, lines_) {
  const tile = (title, value, note) => h("div", { class: "tile" }, h("span", {}, title), h("b", {}, value), h("span", {}, note ?? ""));
  const evaluated = accuracyPoints(report);
  const found = [];
  if (evaluated.length) found.push(tile("Accuracy", percent(evaluated.at(-1).rate), evaluated.length > 1 ? `from ${percent(evaluated[0].rate)}` : "before training"));
  if (lines_.length) {
    const last = lines_.at(-1);
    found.push(tile("Step", number(last.step), `epoch ${last.epoch}, version ${last.version}`));
    found.push(tile("Pairs", number(lines_.reduce((sum, line) => sum + line.pairs, 0)), `${number(last.pairs_per_s, 1)} a second`));
  }
  for (const group of groups) found.push(tile(group.group, `${number(group.tokens_per_s, 0)} tok/s`, `${percent(group.utilisation, 0)} busy, ${group.workers} ${group.workers === 1 ? "worker" : "workers"}`));
  return h("div", { class: "tiles" }, found);
}

function sentence({ time, run, phase, kind, ...rest }) {
  const fields = Object.entries(rest).filter(([, value]) => typeof value !== "object")
    .map(([name, value]) => `${name} ${typeof value === "number" ? number(value, 3) : value}`);
  return `${time?.slice(11, 19) ?? ""} ${phase ?? ""} ${kind} ${fields.join(", ").slice(0, 300)}`;
}

function askToStop(page, name) {
  const dialog = document.getElementById("ask");
  const say = h("p", { role: "alert", class: "soft" });
  const stay = h("button", { value: "no" }, "Let it work");
  dialog.replaceChildren(h("form", { method: "dialog", submit: async (event) => {
    if (event.submitter.value !== "stop") return;
    event.preventDefault();
    event.submitter.disabled = true;
    say.textContent = "Stopping; what is finished is kept …";
    try {
      await post(runPath(name, "/stop"));
      dialog.close();
      page.again();
    } catch (error) {
      say.textContent = error.message;
      event.submitter.disabled = false;
    }
  } }, h("h2", {}, `Stop ${name}?`), h("p", {}, "It ends cleanly and keeps what is finished. Submitted again, it goes on."), say,
  h("div", { class: "row" }, h("button", { value: "stop", class: "danger" }, "Stop it"), stay)));
  dialog.showModal();
  stay.focus();
}
