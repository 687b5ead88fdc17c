// The service's REST API: the token, and answers as JSON.

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
