// Says what it reads, one event a line, for tests and for what speaks no ZeroMQ itself:
//   agent.activity_started agent=Ada for=2.5        (lists: agents=Ada,Bob xy=1,2)
//   flush SECONDS | count | flood EVENTS            (answered by one line each)
// node examples/say.js say ADDRESS SIMULATION [SECONDS BETWEEN SNAPSHOTS [OWN.key_secret DAEMON.key]]; `encode` prints
// each event in msgpack, as hex, instead of saying it; `decode` reads such lines and prints JSON.

import { createInterface } from "node:readline";

import * as events from "../events.js";
import { Curve, Publisher } from "../publisher.js";
import { pack, unpack } from "../wire.js";

const LISTS = ["agents", "probabilities", "xy", "destination", "token_ids"];
const TEXTS = ["agent", "agents", "request", "activity", "place", "lora", "lora_name", "text", "cache_salt", "model"];

const KINDS = {
  "step.advanced": ["step", "stepAdvanced", ({ now }) => [now]],
  "agent.registered": ["register", "agentRegistered", ({ agent }) => [agent]],
  "agent.released": ["release", "agentReleased", ({ agent }) => [agent]],
  "agent.activity_started": ["activity", "activityStarted", ({ agent, ...how }) => [agent, how]],
  "agent.moved": ["moved", "agentMoved", ({ agent, ...where }) => [agent, where]],
  "agent.woken": ["woken", "agentWoken", ({ agent }) => [agent]],
  "agent.idled": ["idled", "agentIdled", ({ agent }) => [agent]],
  "plan.declared": ["plan", "planDeclared", ({ agents, ...when }) => [agents, camelCase(when)]],
  "invocation.started": ["started", "invocationStarted", ({ agent, request }) => [agent, request]],
  "invocation.finished": ["finished", "invocationFinished", ({ agent, request }) => [agent, request]],
  "memory.bound": ["bind", "memoryBound", ({ agent, ...memory }) => [agent, camelCase(memory)]],
  "memory.unbound": ["unbind", "memoryUnbound", ({ agent }) => [agent]],
};

function camelCase(fields) {
  const name = (snake) => snake.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [name(key), value]));
}

function parse(words) {
  return Object.fromEntries(
    words.map((word) => {
      const key = word.slice(0, word.indexOf("="));
      const text = word.slice(key.length + 1);
      const value = (item) => (TEXTS.includes(key) ? item : Number(item));
      return [key, LISTS.includes(key) ? text.split(",").map(value) : value(text)];
    }),
  );
}

async function answer(publisher, verb, words) {
  if (verb === "flush") return `flushed ${(await publisher.flush(Number(words[0]))) ? 1 : 0}`;
  if (verb === "count") return `${publisher.sent} ${publisher.dropped} ${publisher.invalid}`;
  if (verb === "flood") {
    const began = performance.now();
    for (let number = 0; number < Number(words[0]); number++) {
      publisher.activity(String(number % 1000), { until: number });
    }
    return `${(performance.now() - began) / 1000}`;
  }
  const [method, , fields] = KINDS[verb];
  publisher[method](...fields(parse(words)));
  return null;
}

const [mode, address, simulation, snapshotEvery = "30", own, daemon] = process.argv.slice(2);
const options = { address, snapshotEvery: Number(snapshotEvery), curve: own && Curve.load(own, daemon) };
const publisher = mode === "say" ? new Publisher(simulation, options) : null;
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...words] = line.split(" ");
  if (mode === "decode") console.log(JSON.stringify(unpack(Buffer.from(line, "hex"))));
  else if (mode === "encode") {
    const [, build, fields] = KINDS[verb];
    console.log(pack(events[build](...fields(parse(words)))).toString("hex"));
  } else {
    const said = await answer(publisher, verb, words);
    if (said !== null) console.log(said);
  }
}
await publisher?.close();
