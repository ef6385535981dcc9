//! The newest state that a source has said, kept as the shortest log that says it again.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{json, Value};

use crate::wire::{number, pack};

const TIMELESS: [&str; 3] = ["agent.registered", "memory.bound", "memory.unbound"];
const ENDED_BY_INVOCATION: [&str; 3] = ["agent.activity_started", "agent.woken", "agent.idled"];
const REGISTERED: &str = "agent.registered";
const STARTED: &str = "invocation.started";
const PLAN: &str = "plan.declared";

/// A place in the state: a type, an agent (empty for a plan) and a request.
type Key = (String, String, Option<String>);

/// Takes in events and gives back those that still hold, packed, in the order in which they were said.
///
/// An event whose meaning depends on when it was said is given back with `now`, the clock value of then, and an
/// activity's `for` as `until`. Memory is bounded by agents and invocations that run.
#[derive(Default)]
pub(crate) struct NewestState {
    pub now: Option<f64>,
    said: BTreeMap<u64, (Key, Vec<u8>)>,
    places: HashMap<Key, u64>,
    owned: HashMap<String, HashSet<Key>>,
    next: u64,
    plan: Option<(Value, Option<f64>)>,
    /// Those of the plan who are left.
    planned: HashSet<String>,
}

impl NewestState {
    pub fn apply(&mut self, event: &Value) {
        match event["type"].as_str().unwrap_or_default() {
            "step.advanced" => self.advance(event["now"].as_f64().unwrap_or_default()),
            "agent.released" => self.release(text(event, "agent")),
            PLAN => {
                self.plan = Some((event.clone(), self.now));
                let agents = event["agents"].as_array().into_iter().flatten();
                self.planned = agents.filter_map(|agent| agent.as_str().map(String::from)).collect();
                self.put(place(PLAN, ""), event);
            }
            kind => self.apply_to_agent(kind, text(event, "agent"), event),
        }
    }

    pub fn snapshot(&mut self) -> Vec<Vec<u8>> {
        if let (Some((plan, declared_at)), Some(at)) = (&self.plan, self.places.get(&place(PLAN, ""))) {
            let rest = stamped(&rest_of(plan, &self.planned), *declared_at);
            self.said.insert(*at, (place(PLAN, ""), pack(&rest)));
        }
        self.said.values().map(|(_, packed)| packed.clone()).collect()
    }

    fn apply_to_agent(&mut self, kind: &str, agent: &str, event: &Value) {
        if !self.owned.contains_key(agent) {
            self.owned.insert(agent.into(), HashSet::new());
            self.put(place(REGISTERED, agent), &json!({"type": REGISTERED, "agent": agent}));
        }
        let running: Key = (STARTED.into(), agent.into(), event["request"].as_str().map(String::from));
        match kind {
            REGISTERED => {}
            STARTED => {
                ENDED_BY_INVOCATION.iter().for_each(|ended| self.forget(&place(ended, agent)));
                self.planned.remove(agent);
                self.put(running, event);
            }
            "invocation.finished" => self.forget(&running),
            "memory.unbound" => self.put(place("memory.bound", agent), event),
            _ => {
                if kind == "agent.idled" {
                    self.planned.remove(agent);
                }
                self.put(place(kind, agent), event);
            }
        }
    }

    fn advance(&mut self, now: f64) {
        if self.now.is_some_and(|before| now < before) {
            // The simulation starts over: what it foresaw is void, what the agents are is not.
            let void = |kind: &str| kind != STARTED && !TIMELESS.contains(&kind);
            let foreseen: Vec<Key> = self.places.keys().filter(|(kind, ..)| void(kind)).cloned().collect();
            foreseen.iter().for_each(|key| self.forget(key));
            self.plan = None;
            self.planned.clear();
        }
        self.now = Some(now);
    }

    fn release(&mut self, agent: &str) {
        for key in self.owned.remove(agent).unwrap_or_default() {
            self.forget(&key);
        }
        self.planned.remove(agent);
    }

    fn put(&mut self, key: Key, event: &Value) {
        self.forget(&key);
        self.next += 1;
        if let Some(owned) = self.owned.get_mut(&key.1) {
            owned.insert(key.clone());
        }
        self.places.insert(key.clone(), self.next);
        self.said.insert(self.next, (key, pack(&stamped(event, self.now))));
    }

    fn forget(&mut self, key: &Key) {
        if let Some(at) = self.places.remove(key) {
            self.said.remove(&at);
        }
        if let Some(owned) = self.owned.get_mut(&key.1) {
            owned.remove(key);
        }
    }
}

fn place(kind: &str, agent: &str) -> Key {
    (kind.into(), agent.into(), None)
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

fn stamped(event: &Value, now: Option<f64>) -> Value {
    let mut wire = event.clone();
    let (Some(now), Some(map)) = (now, wire.as_object_mut()) else { return wire };
    if TIMELESS.contains(&text(event, "type")) {
        return wire;
    }
    map.insert("now".into(), number(now));
    if let Some(units) = map.remove("for") {
        map.insert("until".into(), number(now + units.as_f64().unwrap_or_default()));
    }
    wire
}

/// A plain order stays whole, as its places are its times.
fn rest_of(plan: &Value, agents: &HashSet<String>) -> Value {
    let mut rest = plan.clone();
    if plan.get("at").is_none() && plan.get("probabilities").is_none() {
        return rest;
    }
    let all = plan["agents"].as_array().cloned().unwrap_or_default();
    let stays = |index: &usize| agents.contains(all[*index].as_str().unwrap_or_default());
    for key in ["agents", "probabilities"] {
        if let Some(Value::Array(values)) = plan.get(key) {
            rest[key] = (0..values.len()).filter(stays).map(|index| values[index].clone()).collect();
        }
    }
    rest
}
