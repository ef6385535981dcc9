// What a simulation holds: says events to the daemon, and never waits for it, nor fails because of it.

import { setTimeout as delay } from "node:timers/promises";

import { Dealer, capability } from "zeromq";

import * as events from "./events.js";
import { LONGEST_MS, Outbound } from "./outbound.js";
import { MAX_EVENT_BYTES, chunks, controls, frames, joinEvents, joinSnapshot, pack } from "./wire.js";

const SEND_HIGH_WATER_MARK = 1000;
const START_GRACE_MS = 1000;
const WELCOME_WAIT_MS = 2000;
const SEND_WAIT_MS = 50;
const LINGER_MS = 500;
const HEARTBEAT_MS = 5000;
const RECONNECT_MAX_MS = 2000;
const CLOSE_WAIT_MS = 2000;
const REFUSALS = ["protocol", "auth", "other"].map((kind) => `handshake:error:${kind}`);

export { Curve } from "./curve.js";

/**
 * One source of events of one simulation.
 *
 * What the methods say is sent between two turns of the event loop. While no daemon listens, the newest state is kept
 * in memory, and said when one does. An event that is not valid is ignored, logged once per type, and counted in
 * `invalid`. Call `close` at the end: until then the socket keeps the process alive.
 */
export class Publisher {
  /** How many events were ignored because they were not valid. */
  invalid = 0;

  #opened;
  #outbound = new Outbound();
  #dealer;
  #address;
  #turnedAway = false;
  #knockTimer = null;
  #snapshotEvery;
  #phase = "away"; // "opening": stream.opened is out, its welcome awaited; "open"; "refused" until another connection
  #openWanted = false;
  #seq = 0n;
  #restatedUpTo = -1n;
  #outbox = []; // [events, payload], numbered when it is sent
  #deadline = null;
  #snapshotTimer = null;
  #pumping = false;
  #pumpWanted = false;
  #ending = false;
  #requests = 0;
  #refused = new Set();

  /**
   * @param {string} simulation name of the simulation, without "/"
   * @param {object} [options]
   * @param {"step"|"sim_seconds"|"wall_seconds"} [options.clock] what the times count
   * @param {string} [options.address] the daemon's ZeroMQ door
   * @param {string} [options.source] this process among those of the simulation; default: the simulation's name
   * @param {number} [options.incarnation] greater each time the source starts; default: wall time in milliseconds
   * @param {number} [options.snapshotEvery] seconds after which the whole state is said again
   * @param {Curve} [options.curve] the keys for a daemon that asks for some
   * @throws {RangeError|TypeError|Error} for a name, clock, address or keys that can't be
   */
  constructor(simulation, options = {}) {
    const { clock = "step", address = "tcp://127.0.0.1:5600", source = simulation } = options;
    const { incarnation = Date.now(), snapshotEvery = 30, curve } = options;
    if (curve && !capability.curve) throw new Error("this zeromq was built without CURVE: it can't speak to a daemon that asks for keys");
    this.#opened = events.streamOpened(simulation, source, incarnation, clock);
    this.#snapshotEvery = Math.min(snapshotEvery * 1000, LONGEST_MS);
    this.#address = address;
    this.#dealer = new Dealer({
      sendHighWaterMark: SEND_HIGH_WATER_MARK,
      sendTimeout: SEND_WAIT_MS,
      linger: LINGER_MS,
      immediate: true, // nothing is queued for a daemon that isn't there
      heartbeatInterval: HEARTBEAT_MS,
      reconnectMaxInterval: RECONNECT_MAX_MS,
      ...(curve && { curveServerKey: curve.server, curvePublicKey: curve.public, curveSecretKey: curve.secret }),
    });
    this.#dealer.events.on("handshake", () => this.#letIn());
    this.#dealer.events.on("disconnect", () => this.#goneAway());
    REFUSALS.forEach((refusal) => this.#dealer.events.on(refusal, () => this.#turnAway()));
    try {
      this.#dealer.connect(address);
    } catch (error) {
      this.#dealer.close();
      throw error;
    }
    this.#setDeadline(START_GRACE_MS);
    this.#planSnapshot();
    this.#listen().catch((error) => console.warn(`scalesim: the daemon is no longer heard: ${error.message}`));
  }

  /** How many events were handed to ZeroMQ, those of snapshots not counted. */
  get sent() {
    return this.#outbound.sent;
  }

  /** How many events were not sent, as no daemon listened or too much waited; snapshots say what they changed. */
  get dropped() {
    return this.#outbound.dropped;
  }

  /** Say that the simulation's clock now shows `now`. */
  step(now) {
    this.#say("stepAdvanced", now);
  }

  /** Say that an agent exists. */
  register(agent) {
    this.#say("agentRegistered", agent);
  }

  /** Say that an agent is gone for good: its memory may be dropped. */
  release(agent) {
    this.#say("agentReleased", agent);
  }

  /** Say that the agent acts without the LLM: `{ for: units }` from now, or `{ until: clock value }`. */
  activity(agent, how) {
    this.#say("activityStarted", agent, how);
  }

  /**
   * Say where the agent is and where it goes: `{ xy: [x, y], place, destination: [x, y], speed, vision }`, in space
   * units and, for `speed`, space units per clock unit.
   */
  moved(agent, where) {
    this.#say("agentMoved", agent, where);
  }

  /** Say that something outside the plan makes the agent call now: distance 0. */
  woken(agent) {
    this.#say("agentWoken", agent);
  }

  /** Say that no call of the agent is foreseen. */
  idled(agent) {
    this.#say("agentIdled", agent);
  }

  /**
   * Say who calls next: `agents` in order, one per clock unit; all at clock value `at`; or each with one of
   * `probabilities` per clock unit. None calls before clock value `notBefore`. Replaces the earlier plan.
   */
  plan(agents, options) {
    this.#say("planDeclared", agents, options);
  }

  /**
   * Say what memory the agent's requests use: `{ lora, loraName }` and/or a prompt prefix as one of `tokenIds`, `text`
   * and `messages`, with `cacheSalt` and `model`.
   */
  bind(agent, memory) {
    this.#say("memoryBound", agent, memory);
  }

  /** Say that the agent no longer uses the memory that it bound. */
  unbind(agent) {
    this.#say("memoryUnbound", agent);
  }

  /** Say that an LLM request of the agent is being sent; `request` tells it from others of the same agent. */
  started(agent, request) {
    this.#say("invocationStarted", agent, request);
  }

  /** Say that an LLM request of the agent has been answered, or has failed. */
  finished(agent, request) {
    this.#say("invocationFinished", agent, request);
  }

  /** Run `work`, an async function that makes one LLM request of the agent, and say so; returns what it returns. */
  async invocation(agent, work) {
    const request = String(++this.#requests);
    this.started(agent, request);
    try {
      return await work();
    } finally {
      this.finished(agent, request);
    }
  }

  /** Wait at most `seconds` until a daemon listens and has been sent everything; resolves to whether it has. */
  flush(seconds) {
    return this.#outbound.settled(seconds * 1000);
  }

  /** Send what waits and `stream.closed`, within about two seconds; later events are dropped. */
  async close() {
    if (this.#ending) return;
    this.#ending = true;
    const hopeless = this.#phase === "refused" || (this.#phase === "away" && this.#deadline === null);
    if (!hopeless) await this.#outbound.settled(CLOSE_WAIT_MS);
    if (this.#phase === "open") await this.#transmit(joinEvents(seconds(), [pack({ type: "stream.closed" })]));
    this.#phase = "refused";
    this.#lose();
    this.#setDeadline(null);
    clearTimeout(this.#snapshotTimer);
    clearTimeout(this.#knockTimer);
    this.#dealer.close();
  }

  #say(kind, ...fields) {
    try {
      const event = events[kind](...fields);
      const packed = pack(event);
      if (packed.length > MAX_EVENT_BYTES) throw new RangeError(`an event holds at most ${MAX_EVENT_BYTES} bytes`);
      this.#outbound.put(event, packed);
    } catch (error) {
      this.invalid += 1;
      if (!this.#refused.has(kind)) console.warn(`scalesim: ${kind} ignored, and further ones silently: ${error.message}`);
      this.#refused.add(kind);
      return;
    }
    this.#wake();
  }

  #letIn() {
    this.#turnedAway = false;
    clearTimeout(this.#knockTimer);
    this.#open();
  }

  #turnAway() {
    if (!this.#turnedAway) {
      console.warn("scalesim: the daemon ends the handshake: it goes, or it takes keys, or none, or others (curve)");
    }
    this.#turnedAway = true;
    clearTimeout(this.#knockTimer);
    if (!this.#dealer.closed) this.#knockTimer = setTimeout(() => this.#knockAgain(), RECONNECT_MAX_MS);
  }

  /** ZeroMQ gives up a connection that was refused; the daemon may know the key by now, or ask for none. */
  #knockAgain() {
    try {
      this.#dealer.disconnect(this.#address);
    } catch {
      // It has been given up already.
    }
    this.#dealer.connect(this.#address);
  }

  #open() {
    this.#phase = "opening";
    this.#openWanted = true;
    this.#wake();
  }

  #goneAway() {
    this.#phase = "away";
    this.#openWanted = false;
    this.#setDeadline(null);
    this.#lose();
  }

  #lose() {
    this.#outbound.lost(this.#outbox.reduce((sum, [count]) => sum + count, 0));
    this.#outbox = [];
  }

  async #listen() {
    for await (const parts of this.#dealer) controls(parts).forEach((control) => this.#obey(control));
  }

  #obey(control) {
    if (control.type === "welcome" && typeof control.error === "string") {
      console.warn(`scalesim: the daemon refuses stream ${this.#opened.source}: ${control.error}`);
      this.#phase = "refused";
      this.#setDeadline(null);
      this.#lose();
    } else if (control.type === "welcome") {
      this.#phase = "open";
      this.#setDeadline(null);
      this.#outbound.connected();
      if (control.resync) this.#outbound.requireSnapshot();
    } else if (control.type === "resync" && this.#phase === "open") {
      const last = Number.isInteger(control.last_seq) ? control.last_seq : -1;
      // A daemon that doesn't know this stream hears it opened anew; an answer that is on its way is not doubled.
      if (last < 0) this.#open();
      if (last < 0 || last >= this.#restatedUpTo) this.#outbound.requireSnapshot();
    }
    this.#wake();
  }

  #setDeadline(wait) {
    clearTimeout(this.#deadline);
    this.#deadline = wait === null ? null : setTimeout(() => this.#late(), wait);
  }

  #late() {
    this.#deadline = null;
    this.#lose();
    if (this.#phase === "opening") this.#open();
  }

  #planSnapshot() {
    clearTimeout(this.#snapshotTimer);
    this.#snapshotTimer = setTimeout(() => {
      this.#planSnapshot();
      if (this.#phase !== "open") return;
      this.#outbound.requireSnapshot();
      this.#wake();
    }, this.#snapshotEvery);
  }

  #wake() {
    if (this.#pumpWanted) return;
    this.#pumpWanted = true;
    setImmediate(() => this.#pump());
  }

  /** Send all that may be sent; the one place that does, as a socket takes one message at a time. */
  async #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#pumpWanted) {
        this.#pumpWanted = false;
        if (this.#openWanted) await this.#sendOpened();
        if (this.#phase === "open") await this.#sendWaiting();
      }
    } finally {
      this.#pumping = false;
    }
  }

  async #sendOpened() {
    this.#openWanted = false;
    const sent = await this.#transmit(joinEvents(seconds(), [pack(this.#opened)]));
    if (this.#phase === "opening") this.#setDeadline(sent ? WELCOME_WAIT_MS : SEND_WAIT_MS);
  }

  async #sendWaiting() {
    if (!this.#outbox.length) this.#refill();
    while (this.#outbox.length && this.#phase === "open") {
      const message = this.#outbox[0];
      if (await this.#transmit(message[1])) {
        if (this.#outbox[0] !== message) return; // The connection went meanwhile, and the outbox with it.
        this.#outbox.shift();
        this.#outbound.sent += message[0];
      }
    }
    if (!this.#outbox.length && this.#outbound.allSent()) this.#pumpWanted = true;
  }

  #refill() {
    const { waiting, snapshot, now } = this.#outbound.take();
    const ts = seconds();
    for (const chunk of chunks(waiting)) this.#outbox.push([chunk.length, joinEvents(ts, chunk)]);
    if (snapshot === null) return;
    const parts = snapshot.length ? [...chunks(snapshot)] : [[]];
    parts.forEach((chunk, part) => this.#outbox.push([0, joinSnapshot(ts, part, parts.length, chunk, now)]));
    this.#restatedUpTo = this.#seq + BigInt(this.#outbox.length) - 1n;
    this.#planSnapshot();
  }

  /** Hand one message to ZeroMQ; resolves to whether it took it within 50 ms. */
  async #transmit(payload) {
    try {
      await this.#dealer.send(frames(this.#opened.source, this.#seq, payload));
    } catch (error) {
      if (error.code !== "EAGAIN") await delay(SEND_WAIT_MS);
      return false;
    }
    this.#seq += 1n;
    return true;
  }
}

function seconds() {
  return Date.now() / 1000;
}
