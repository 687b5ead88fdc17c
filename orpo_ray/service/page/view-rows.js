// The traces or the pairs of a run, filtered.

import { get, runPath } from "./api.js";
import { badge, h, number } from "./dom.js";

const FILTERS = {
  traces: [["source", ["teacher", "initial", "live"]], ["verdict", ["right", "wrong", "unparsed"]], ["search"], ["version"], ["overlap"]],
  pairs: [["source", ["live", "initial", "teacher", "none"]], ["verdict", ["wrong", "unparsed"]], ["search"], ["version"], ["epoch"], ["overlap"]],
};

export async function rowsView(page, name, kind) {
  page.crumbs([[name, `#/run/${encodeURIComponent(name)}`], [kind, null]]);
  const field = ([title, choices]) => h("label", {}, title, choices
    ? h("select", { name: title }, h("option", { value: "" }, "any"), choices.map((choice) => h("option", {}, choice)))
    : h("input", { name: title, placeholder: title === "search" ? "in prompt or trace" : "3, 3.. or 3..8" }));
  const form = h("form", { class: "filters", submit: (event) => { event.preventDefault(); begin(); } }, FILTERS[kind].map(field), h("button", { class: "main" }, "Show"));
  const list = h("div", { class: "list" });
  const more = h("button", { hidden: true, click: () => load() }, "More");
  const say = h("p", { class: "soft", role: "status" });
  const tab = (title) => h("a", { href: `#/run/${encodeURIComponent(name)}/${title}`, "aria-current": title === kind ? "page" : null }, title);
  page.show(h("div", { class: "row" }, h("h1", {}, name)), h("div", { class: "tabs" }, tab("pairs"), tab("traces")), form, list, say, more);

  let next = 0, shown = 0, round = 0;
  async function load() {
    const mine = round;
    more.disabled = true;
    say.textContent = "Reading …";
    try {
      const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim()));
      asked.set("after", next);
      asked.set("limit", 25);
      const found = await get(runPath(name, `/${kind}?${asked}`), page.signal);
      if (mine !== round) return;
      list.append(...found.items.map(kind === "pairs" ? pair : trace));
      shown += found.items.length;
      next = found.next;
      more.hidden = next === null;
      say.textContent = shown ? `${shown} ${kind}${next === null ? ", which is all" : ""}` : next === null ? `No ${kind} like that.` : `None in the first ${next.toLocaleString("en")}; look on?`;
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error, (text) => { say.textContent = text; });
    } finally {
      more.disabled = false;
    }
  }
  function begin() {
    round += 1;
    [next, shown] = [0, 0];
    list.replaceChildren();
    return load();
  }
  await begin();
}

const facts = (...parts) => h("div", { class: "soft" }, parts.filter(Boolean).join(" · "));

function trace(row) {
  return h("article", { class: "card" },
    h("div", { class: "row" }, badge(row.verdict ?? "not judged"), badge(row.source), facts(`prompt ${row.prompt_id}`, `version ${row.version}`, row.epoch && `epoch ${row.epoch}`,
      `${row.tokens} tokens`, row.overlap !== null && `overlap ${number(row.overlap)}`, row.truncated && "cut", row.kept ? "kept" : "not kept")),
    h("details", {}, h("summary", { class: "soft" }, "Prompt"), h("pre", {}, row.prompt ?? "")), h("pre", {}, row.text));
}

function pair(row) {
  return h("article", { class: "card" },
    h("div", { class: "row" }, badge(row.source), facts(`prompt ${row.prompt_id}`, `epoch ${row.epoch}, step ${row.step}`, `version ${row.version}`,
      row.overlap !== null && `overlap ${number(row.overlap)}`, row.trained ? "trained" : "not trained yet")),
    h("details", {}, h("summary", { class: "soft" }, "Prompt"), h("pre", {}, row.prompt)),
    h("div", { class: "pair" },
      h("div", {}, facts("chosen", `${row.chosen_tokens} tokens`), h("pre", {}, row.chosen)),
      h("div", {}, row.rejected === null ? h("p", { class: "soft" }, "no rejected trace: trained on the chosen one alone")
        : [facts("rejected", row.verdict, `${row.rejected_tokens} tokens`, row.rejected_logp !== null && `log-probability ${number(row.rejected_logp, 3)} a token`), h("pre", {}, row.rejected)])));
}
