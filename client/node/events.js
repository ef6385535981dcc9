// What a simulation says: one function per event type. Each checks its fields and throws RangeError or TypeError for
// what the daemon would refuse. Times and durations are in units of the stream's clock.

import { SCHEMA_VERSION } from "./wire.js";

const MAX_NESTING = 32;
const MAX_ITEMS = 2 ** 20;
const MAX_PAIRS = 1024;
const CLOCKS = ["step", "sim_seconds", "wall_seconds"];

export function streamOpened(simulation, source, incarnation, clock) {
  id("simulation", simulation);
  if (simulation.includes("/")) throw new RangeError("simulation must not contain '/'");
  if (!CLOCKS.includes(clock)) throw new RangeError(`clock must be one of ${CLOCKS.join(", ")}`);
  if (!Number.isSafeInteger(incarnation)) throw new RangeError("incarnation must be a whole number");
  source = id("source", source);
  return { type: "stream.opened", simulation, source, incarnation, clock, schema_version: SCHEMA_VERSION };
}

export function stepAdvanced(now) {
  return { type: "step.advanced", now: amount("now", now) };
}

export function agentRegistered(agent) {
  return { type: "agent.registered", agent: id("agent", agent) };
}

export function agentReleased(agent) {
  return { type: "agent.released", agent: id("agent", agent) };
}

export function activityStarted(agent, { for: units, until, activity } = {}) {
  if ((units === undefined) === (until === undefined)) throw new RangeError("give exactly one of 'for' and 'until'");
  return {
    type: "agent.activity_started",
    agent: id("agent", agent),
    for: optional(amount, "for", units),
    until: optional(amount, "until", until),
    activity: optional(text, "activity", activity),
  };
}

export function agentMoved(agent, { xy, place, destination, speed, vision } = {}) {
  return {
    type: "agent.moved",
    agent: id("agent", agent),
    xy: optional(point, "xy", xy),
    place: optional(text, "place", place),
    destination: optional(point, "destination", destination),
    speed: optional(amount, "speed", speed),
    vision: optional(amount, "vision", vision),
  };
}

export function agentWoken(agent) {
  return { type: "agent.woken", agent: id("agent", agent) };
}

export function agentIdled(agent) {
  return { type: "agent.idled", agent: id("agent", agent) };
}

export function planDeclared(agents, { at, probabilities, notBefore } = {}) {
  if (probabilities !== undefined) {
    if (at !== undefined) throw new RangeError("give at most one of 'at' and 'probabilities'");
    if (probabilities.length !== agents.length) throw new RangeError("'probabilities' needs one value per agent");
    if (!probabilities.every((p) => typeof p === "number" && p >= 0 && p <= 1)) {
      throw new RangeError("'probabilities' must lie in 0..1");
    }
  }
  return {
    type: "plan.declared",
    agents: list("agents", agents).map((agent) => id("agents", agent)),
    at: optional(amount, "at", at),
    probabilities: probabilities && [...probabilities],
    not_before: optional(amount, "not_before", notBefore),
  };
}

export function invocationStarted(agent, request) {
  return { type: "invocation.started", agent: id("agent", agent), request: optional(text, "request", request) };
}

export function invocationFinished(agent, request) {
  return { type: "invocation.finished", agent: id("agent", agent), request: optional(text, "request", request) };
}

export function memoryBound(agent, { lora, loraName, tokenIds, text: prefix, messages, cacheSalt, model } = {}) {
  const prefixes = [tokenIds, prefix, messages].filter((form) => form !== undefined).length;
  if (prefixes > 1) throw new RangeError("give at most one of 'tokenIds', 'text' and 'messages'");
  if (!prefixes && lora === undefined && model === undefined) throw new RangeError("give a LoRA, a prefix or a model");
  if ((lora === undefined) !== (loraName === undefined)) throw new RangeError("'lora' and 'loraName' go together");
  if (tokenIds && !tokenIds.every((token) => Number.isInteger(token) && token >= 0 && token < 2 ** 32)) {
    throw new RangeError("'tokenIds' must be whole numbers from 0 to 2**32-1");
  }
  return {
    type: "memory.bound",
    agent: id("agent", agent),
    lora: optional(text, "lora", lora),
    lora_name: optional(id, "loraName", loraName),
    token_ids: optional(list, "tokenIds", tokenIds),
    text: optional(text, "text", prefix),
    messages: optional(plain, "messages", optional(list, "messages", messages)),
    cache_salt: optional(text, "cacheSalt", cacheSalt),
    model: optional(text, "model", model),
  };
}

export function memoryUnbound(agent) {
  return { type: "memory.unbound", agent: id("agent", agent) };
}

function optional(check, name, value) {
  return value === undefined ? undefined : check(name, value);
}

function text(name, value) {
  if (typeof value !== "string" || !value.isWellFormed()) throw new TypeError(`${name} must be well-formed text`);
  return value;
}

function id(name, value) {
  const bytes = Buffer.byteLength(text(name, value));
  if (bytes < 1 || bytes > 256) throw new RangeError(`${name} must be 1 to 256 UTF-8 bytes long`);
  return value;
}

function amount(name, value) {
  if (!Number.isFinite(value) || value < 0) throw new RangeError(`${name} must be finite and not negative`);
  return value;
}

function point(name, value) {
  if (value.length !== 2 || !value.every(Number.isFinite)) throw new RangeError(`${name} must be two finite numbers`);
  return [...value];
}

function list(name, value) {
  if (typeof value === "string") throw new TypeError(`${name} must be a list`);
  const items = [...value];
  if (items.length > MAX_ITEMS) throw new RangeError(`${name} must be at most 2**20 items`);
  return items;
}

// What the daemon can't read would cost the whole message that it stands in, and each snapshot after that.
function plain(name, value, levels = MAX_NESTING) {
  if (typeof value === "string") return text(name, value);
  if (value === null || value === undefined || typeof value === "boolean" || Number.isFinite(value)) return value;
  if (!Array.isArray(value) && !isMap(value)) throw new TypeError(`${name} must hold nothing but what JSON can say`);
  if (!levels) throw new RangeError(`${name} must be nested at most 32 levels deep`);
  if (Array.isArray(value)) return list(name, value).map((inner) => plain(name, inner, levels - 1));
  const pairs = Object.entries(value);
  if (pairs.length > MAX_PAIRS) throw new RangeError(`${name} must hold maps of at most 1,024 pairs`);
  return Object.fromEntries(pairs.map(([key, inner]) => [text(name, key), plain(name, inner, levels - 1)]));
}

// An object of no class of its own, also one from another realm.
function isMap(value) {
  if (typeof value !== "object") return false;
  const parent = Object.getPrototypeOf(value);
  return parent === null || Object.getPrototypeOf(parent) === null;
}
