// Asking the daemon. The token lies in this tab's session storage alone, and goes nowhere but into this header.
const KEPT = "scalesim.token";
const PATIENCE = 30_000;

// The daemon answered that it won't.
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// The daemon doesn't answer.
export class Away extends Error {}

// Where the browser lets this site keep nothing, the token holds until the page is loaded anew.
let held = null;

export const token = {
  get value() {
    try {
      return sessionStorage.getItem(KEPT) ?? held;
    } catch {
      return held;
    }
  },
  set value(given) {
    held = given || null;
    try {
      if (given) sessionStorage.setItem(KEPT, given);
      else sessionStorage.removeItem(KEPT);
    } catch {
      // It is held.
    }
  },
};

// Return the response of a route, which is relative to this page. Throws `Refused` and `Away`.
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json, text/event-stream" };
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
  } catch (error) {
    throw new Away(signal?.aborted ? String(signal.reason?.message ?? "it was silent") : error.message);
  }
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

// Return a route's answer, which is waited for until `signal` ends that, else for `PATIENCE`. Throws what `request` does.
export async function ask(path, { signal = AbortSignal.timeout(PATIENCE), ...options } = {}) {
  const response = await request(path, { ...options, signal });
  try {
    return await response.json();
  } catch (error) {
    throw new Away(error.message);
  }
}

async function reason(response) {
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}
