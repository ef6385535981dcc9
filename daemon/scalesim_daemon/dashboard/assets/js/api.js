// Asking the daemon. The token lies in this tab's session storage alone, and goes nowhere but into this header.
const KEPT = "scalesim.token";

// The daemon answered that it won't.
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// The daemon doesn't answer.
export class Away extends Error {}

export const token = {
  get value() {
    return sessionStorage.getItem(KEPT);
  },
  set value(given) {
    if (given) sessionStorage.setItem(KEPT, given);
    else sessionStorage.removeItem(KEPT);
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

// Return a route's answer. Throws what `request` does.
export async function ask(path, options) {
  const response = await request(path, options);
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
