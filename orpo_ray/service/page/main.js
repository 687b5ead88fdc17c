// The page's frame: which view is shown, the token, and what is said when the service does not answer.

import { token } from "./api.js";
import { h } from "./dom.js";
import { compareView } from "./view-compare.js";
import { rowsView } from "./view-rows.js";
import { runView } from "./view-run.js";
import { runsView } from "./view-runs.js";

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const crumbs = document.getElementById("crumbs");
const leave = document.getElementById("leave");
const SOONEST_MS = 2000, SLOWEST_MS = 20000;

/** One view while it is shown. All that it started ends with it. */
class Page {
  #ended = new AbortController();
  #wake = () => {};

  get signal() { return this.#ended.signal; }
  end() { this.#ended.abort(); this.#wake(); }
  again() { this.#wake(); }
  show(...parts) { main.replaceChildren(...parts); }

  crumbs(parts) {
    const all = [["Runs", "#/"], ...parts];
    crumbs.replaceChildren(...all.flatMap(([title, href], place) => [place ? "/" : "", href && place < all.length - 1 ? h("a", { href }, title) : h("span", { "aria-current": "page" }, title)]));
    document.title = `${parts.map(([title]) => title).join(" · ") || "Runs"} – orpo_ray`;
  }

  /** `work` now and again, after the seconds that it gives; more seldom while it fails, and while nobody looks. */
  async every(work) {
    let wait = SOONEST_MS;
    while (!this.signal.aborted) {
      try {
        if (document.hidden) {
          wait = SOONEST_MS;
        } else {
          wait = 1000 * await work(this.signal);
          trouble.hidden = true;
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!this.failed(error)) return;
        wait = Math.min(2 * Math.max(wait, SOONEST_MS), SLOWEST_MS);
      }
      await new Promise((resolve) => { const timer = setTimeout(resolve, wait); this.#wake = () => { clearTimeout(timer); resolve(); }; });
    }
  }

  /** Says what went wrong; whether to try again. */
  failed(error, say = null) {
    if (error.status === 401) {
      askForToken(error.message);
      return false;
    }
    if (error.status === 404) {
      main.replaceChildren(h("p", { class: "empty" }, error.message), h("p", { class: "empty" }, h("a", { href: "#/" }, "All runs")));
      return false;
    }
    if (error.status === undefined) console.error(error);
    const text = error.status === 0 ? `${error.message} What is shown may be old; it is tried again.` : error.message;
    if (say && error.status !== 0) {
      say(text);
    } else {
      trouble.textContent = text;
      trouble.hidden = false;
    }
    return true;
  }
}

let page = new Page();

function route() {
  page.end();
  page = new Page();
  trouble.hidden = true;
  leave.hidden = !token.get();
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const shown = page;
  const view = parts[0] === "run" && parts[2] ? rowsView(shown, parts[1], parts[2] === "traces" ? "traces" : "pairs")
    : parts[0] === "run" ? runView(shown, parts[1])
      : parts[0] === "compare" ? compareView(shown, parts[1].split(","))
        : runsView(shown);
  view.catch((error) => { if (error.name !== "AbortError") shown.failed(error); });
  main.focus({ preventScroll: true });
}

function askForToken(message) {
  page.crumbs([]);
  leave.hidden = true;
  const field = h("input", { type: "password", name: "token", autocomplete: "off", required: true, "aria-label": "Token" });
  main.replaceChildren(h("div", { class: "card" }, h("form", { class: "filters", submit: (event) => {
    event.preventDefault();
    token.set(field.value.trim());
    route();
  } }, h("label", {}, "The service's token", field), h("button", { class: "main" }, "Go on")), token.get() ? h("p", { role: "alert" }, "That token was not taken.") : h("p", { class: "soft" }, message),
  h("p", { class: "soft" }, "It is kept until this tab is closed.")));
  field.focus();
}

leave.addEventListener("click", () => { token.forget(); route(); });
window.addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => { if (!document.hidden) page.again(); });
route();
