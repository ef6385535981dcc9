// A village of five agents for some steps: node examples/village.js [address] [steps]
// They take turns: each acts for as long as the others need, then calls its LLM.

import { Publisher } from "../publisher.js";

const [address = "tcp://127.0.0.1:5600", steps = "20"] = process.argv.slice(2);
const villagers = ["Ada", "Bob", "Cyd", "Dan", "Eve"];
const sidecar = new Publisher("village", { address });

villagers.forEach((agent) => sidecar.bind(agent, { text: `You are ${agent}, of a village of five.` }));
sidecar.step(0);
villagers.forEach((agent, turn) => sidecar.activity(agent, { for: turn + 1 }));
for (let now = 1; now <= Number(steps); now++) {
  sidecar.step(now);
  const agent = villagers[(now - 1) % villagers.length];
  await sidecar.invocation(agent, async () => {}); // Here the LLM is called.
  sidecar.activity(agent, { for: villagers.length });
}
const told = await sidecar.flush(5);
console.log(told ? `said ${sidecar.sent} events` : "no daemon listens; the village went on without");
await sidecar.close();
