// What a source has to say and hasn't sent yet: a bounded queue over the newest state. What the queue can't hold is said
// later, by a snapshot.

import { NewestState } from "./state.js";

/** Beyond it a timer fires at once. */
export const LONGEST_MS = 2 ** 31 - 1;
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** Keeps what waits; `sent` and `dropped` count events. */
export class Outbound {
  sent = 0;
  dropped = 0;
  #state = new NewestState();
  #waiting = [];
  #waitingBytes = 0;
  #snapshotDue = false;
  #keeping = true;
  #live = false;
  #inHand = false;
  #watchers = new Set();

  /** Take over one event; `packed` is the same in msgpack. */
  put(event, packed) {
    this.#state.apply(event);
    if (!this.#keeping) {
      this.dropped += 1;
      return;
    }
    if (this.#waitingBytes + packed.length > MAX_WAITING_BYTES) this.#drop();
    this.#waiting.push(packed);
    this.#waitingBytes += packed.length;
  }

  /** Hand out all that waits and the snapshot that is due, or null; left to send until `allSent` or `lost`. */
  take() {
    const snapshot = this.#snapshotDue ? this.#state.snapshot() : null;
    const batch = { waiting: this.#waiting, snapshot, now: this.#state.now };
    [this.#waiting, this.#waitingBytes, this.#snapshotDue] = [[], 0, false];
    this.#inHand = batch.waiting.length > 0 || snapshot !== null;
    return batch;
  }

  /** Report that all that was taken has been sent; returns whether more waits by now. */
  allSent() {
    this.#inHand = false;
    if (this.#isSettled()) this.#watchers.forEach((settled) => settled());
    return this.#waiting.length > 0 || this.#snapshotDue;
  }

  /** Have the next batch end with a snapshot. */
  requireSnapshot() {
    this.#snapshotDue = true;
  }

  /** Report that the daemon listens: events are kept for it from now on. */
  connected() {
    this.#keeping = this.#live = true;
  }

  /** Report that the daemon is away, and that `inHand` of the events taken were not sent; a snapshot is due then. */
  lost(inHand) {
    this.dropped += inHand;
    this.#drop();
    this.#keeping = this.#live = this.#inHand = false;
  }

  /** Wait at most `ms` until the daemon listens and nothing is left to send; resolves to whether that came. */
  settled(ms) {
    if (this.#isSettled()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = (came) => {
        clearTimeout(timer);
        this.#watchers.delete(settled);
        resolve(came);
      };
      const settled = () => end(true);
      const timer = setTimeout(() => end(false), Math.min(ms, LONGEST_MS));
      this.#watchers.add(settled);
    });
  }

  #isSettled() {
    return this.#live && !(this.#waiting.length || this.#snapshotDue || this.#inHand);
  }

  #drop() {
    this.dropped += this.#waiting.length;
    [this.#waiting, this.#waitingBytes, this.#snapshotDue] = [[], 0, true];
  }
}
