// What stands in the frames: [topic, seq (8 bytes, big-endian), payload], a payload [ts, [event, ...]] in msgpack.

import { decode, encode } from "@msgpack/msgpack";

export const SCHEMA_VERSION = "1.0";
export const MAX_EVENTS = 1000;
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
export const MAX_EVENT_BYTES = MAX_MESSAGE_BYTES - 4096;
export const PART_BYTES = 1024 * 1024;

/** Return one event, a plain object, in msgpack; keys that are undefined are left out. */
export function pack(event) {
  return Buffer.from(encode(event, { ignoreUndefined: true }));
}

/** Return what msgpack bytes say. */
export function unpack(packed) {
  return decode(packed);
}

/** Return the payload of events already packed, said at `ts` (wall seconds since the epoch). */
export function joinEvents(ts, packed) {
  const time = Buffer.alloc(10);
  time.set([0x92, 0xcb]);
  time.writeDoubleBE(ts, 2);
  return Buffer.concat([time, arrayHeader(packed.length), ...packed]);
}

/** Return the payload of part `part` (from 0) of a snapshot in `of` parts; `now` is the clock's value, or null. */
export function joinSnapshot(ts, part, of, packed, now) {
  const head = { type: "state.snapshot", part, of, ...(now === null ? {} : { now }) };
  const entries = Object.entries(head).flat().map((item) => pack(item));
  const size = Buffer.from([0x80 + Object.keys(head).length + 1]);
  return joinEvents(ts, [Buffer.concat([size, ...entries, pack("events"), arrayHeader(packed.length), ...packed])]);
}

/** Return the three frames of message number `seq` (a BigInt) of the source `topic`. */
export function frames(topic, seq, payload) {
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(seq);
  return [topic, number, payload];
}

/** Return the control messages in the frames that a daemon sent; whatever isn't one is passed over. */
export function controls(parts) {
  if (parts.length !== 3) return [];
  try {
    const [, said] = unpack(parts[2]);
    return said.filter((control) => control !== null && typeof control === "object");
  } catch {
    return [];
  }
}

/** Split packed events into messages of at most 1,000 events and, one big event apart, about 1 MiB. */
export function* chunks(packed) {
  let chunk = [];
  let size = 0;
  for (const event of packed) {
    if (chunk.length && (chunk.length === MAX_EVENTS || size + event.length > PART_BYTES)) {
      yield chunk;
      [chunk, size] = [[], 0];
    }
    chunk.push(event);
    size += event.length;
  }
  if (chunk.length) yield chunk;
}

function arrayHeader(length) {
  if (length < 16) return Buffer.from([0x90 + length]);
  const header = Buffer.alloc(3, 0xdc);
  header.writeUInt16BE(length, 1);
  return header;
}
