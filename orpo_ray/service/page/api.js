// The service's REST API: the token, answers as JSON, events as they come.

const KEY = "orpo-ray-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the service refused, or that it did not answer (`status` 0). */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service does not answer.");
  }
  if (answer.ok) return answer;
  let detail = `The service answered ${answer.status}.`;
  try {
    detail = (await answer.json()).detail ?? detail;
  } catch { /* what stands before the service has no JSON to give */ }
  throw new Refusal(answer.status, typeof detail === "string" ? detail : JSON.stringify(detail));
}

export const get = async (path, signal) => (await send(path, { signal })).json();
export const post = async (path) => (await send(path, { method: "POST" })).json();
export const runPath = (name, rest = "") => `/v1/runs/${encodeURIComponent(name)}${rest}`;

/**
 * A run's events, each handed to `on`, from the byte `place.after` to the run's end. EventSource cannot send a token, so the
 * stream is read by hand; `place` moves on with each event, so that a broken stream is taken up where it stopped. Resolves
 * with whether the run is over.
 */
export async function follow(name, place, on, signal) {
  const answer = await send(runPath(name, `/events?after=${place.after}`), { headers: { Accept: "text/event-stream" }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.event === "end") return true;
      if (fields.data === undefined) continue;
      on(JSON.parse(fields.data));
      place.after = Number(fields.id);
    }
  }
}
