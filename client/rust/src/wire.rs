//! What stands in the frames: `[topic, seq (8 bytes, big-endian), payload]`, a payload `[ts, [event, ...]]` in msgpack.

use serde_json::{json, Value};

pub(crate) const MAX_EVENTS: usize = 1000;
pub(crate) const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024 - 4096;
pub(crate) const PART_BYTES: usize = 1024 * 1024;

/// Return one event in msgpack, its keys in their order.
pub fn pack(event: &Value) -> Vec<u8> {
    rmp_serde::to_vec(event).expect("JSON's values all have a form in msgpack")
}

/// Return what msgpack bytes say, `None` where they are malformed.
pub fn unpack(packed: &[u8]) -> Option<Value> {
    rmp_serde::from_slice(packed).ok()
}

/// Return the payload of events already packed, said at `ts` (wall seconds since the epoch).
pub(crate) fn join_events(ts: f64, packed: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![0x92, 0xcb];
    payload.extend(ts.to_be_bytes());
    put_list(&mut payload, packed);
    payload
}

/// Return the payload of part `part` (from 0) of a snapshot in `of` parts; `now` is the clock's value.
pub(crate) fn join_snapshot(ts: f64, part: usize, of: usize, packed: &[Vec<u8>], now: Option<f64>) -> Vec<u8> {
    let mut head = vec![json!("type"), json!("state.snapshot"), json!("part"), json!(part), json!("of"), json!(of)];
    if let Some(now) = now {
        head.extend([json!("now"), number(now)]);
    }
    let mut snapshot = vec![0x80 + (head.len() / 2 + 1) as u8];
    head.push(json!("events"));
    head.iter().for_each(|item| snapshot.extend(pack(item)));
    put_list(&mut snapshot, packed);
    join_events(ts, &[snapshot])
}

/// Return the control messages in the payload that a daemon sent; whatever isn't one is passed over.
pub(crate) fn controls(payload: &[u8]) -> Vec<Value> {
    match unpack(payload) {
        Some(Value::Array(mut pair)) if pair.len() == 2 => match pair.remove(1) {
            Value::Array(said) => said,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Split packed events into messages of at most 1,000 events and, one big event apart, about 1 MiB.
pub(crate) fn chunks(packed: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut size = 0;
    for event in packed {
        size += event.len();
        match all.last_mut() {
            Some(chunk) if chunk.len() < MAX_EVENTS && size <= PART_BYTES => chunk.push(event),
            _ => {
                size = event.len();
                all.push(vec![event]);
            }
        }
    }
    all
}

/// Return a number as it goes on the wire: a whole one as an integer.
pub(crate) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn put_list(to: &mut Vec<u8>, packed: &[Vec<u8>]) {
    match packed.len() {
        length @ 0..=15 => to.push(0x90 + length as u8),
        length => {
            to.push(0xdc);
            to.extend((length as u16).to_be_bytes());
        }
    }
    packed.iter().for_each(|event| to.extend(event));
}
