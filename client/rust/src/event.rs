//! What a simulation says: one function per event type. Each returns the event as it goes on the wire, or what is wrong
//! with it. Times and durations are in units of the stream's clock.

use serde_json::{json, Map, Value};

use crate::wire::number;

const MAX_ID_BYTES: usize = 256;
const MAX_NESTING: usize = 32;
const MAX_ITEMS: usize = 1 << 20;
const MAX_PAIRS: usize = 1 << 10;

/// An event, or what is wrong with it.
pub type Checked = Result<Value, String>;

/// How long an agent acts without the LLM.
#[derive(Clone, Copy, Debug)]
pub enum Lasts {
    /// So many clock units from now.
    For(f64),
    /// To this clock value.
    Until(f64),
}

/// Where an agent is and where it goes, in space units.
#[derive(Clone, Debug, Default)]
pub struct Move<'a> {
    pub xy: Option<[f64; 2]>,
    pub place: Option<&'a str>,
    pub destination: Option<[f64; 2]>,
    /// Space units per clock unit.
    pub speed: Option<f64>,
    /// The radius at which it meets others.
    pub vision: Option<f64>,
}

/// Who calls next: `agents` in order, one per clock unit from now; or all at clock value `at`; or each with one of
/// `probabilities` per clock unit. None calls before clock value `not_before`.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    pub agents: &'a [&'a str],
    pub at: Option<f64>,
    pub probabilities: Option<&'a [f64]>,
    pub not_before: Option<f64>,
}

/// What memory an agent's requests use: a LoRA (its directory, and the model name that requests use), and/or a prompt
/// prefix as at most one of token ids, text and messages (OpenAI's chat form). `model` is the base model's served name.
#[derive(Clone, Debug, Default)]
pub struct Memory<'a> {
    pub lora: Option<&'a str>,
    pub lora_name: Option<&'a str>,
    pub token_ids: Option<&'a [u32]>,
    pub text: Option<&'a str>,
    pub messages: Option<&'a [Value]>,
    pub cache_salt: Option<&'a str>,
    pub model: Option<&'a str>,
}

pub(crate) fn stream_opened(simulation: &str, source: &str, incarnation: u64, clock: &str) -> Checked {
    check_id("simulation", simulation)?;
    check_id("source", source)?;
    ensure(!simulation.contains('/'), "simulation must not contain '/'")?;
    ensure(["step", "sim_seconds", "wall_seconds"].contains(&clock), "clock must be step, sim_seconds or wall_seconds")?;
    Ok(json!({
        "type": "stream.opened",
        "simulation": simulation,
        "source": source,
        "incarnation": incarnation,
        "clock": clock,
        "schema_version": "1.0",
    }))
}

/// The stream's clock now shows `now`.
pub fn step_advanced(now: f64) -> Checked {
    let now = amount("now", Some(now))?;
    Ok(wire("step.advanced", [("now", now)]))
}

/// An event that names nothing but its agent: `agent.registered`, `agent.released`, `agent.woken`, `agent.idled`,
/// `memory.unbound`.
pub fn of_agent(kind: &str, agent: &str) -> Checked {
    check_id("agent", agent)?;
    Ok(wire(kind, [("agent", Some(json!(agent)))]))
}

/// An agent acts without the LLM.
pub fn activity_started(agent: &str, lasts: Lasts, activity: Option<&str>) -> Checked {
    check_id("agent", agent)?;
    let (key, time) = match lasts {
        Lasts::For(units) => ("for", amount("for", Some(units))?),
        Lasts::Until(until) => ("until", amount("until", Some(until))?),
    };
    Ok(wire("agent.activity_started", [("agent", Some(json!(agent))), (key, time), ("activity", text(activity))]))
}

/// An agent is somewhere and goes somewhere.
pub fn agent_moved(agent: &str, moved: &Move) -> Checked {
    check_id("agent", agent)?;
    Ok(wire(
        "agent.moved",
        [
            ("agent", Some(json!(agent))),
            ("xy", point("xy", moved.xy)?),
            ("place", text(moved.place)),
            ("destination", point("destination", moved.destination)?),
            ("speed", amount("speed", moved.speed)?),
            ("vision", amount("vision", moved.vision)?),
        ],
    ))
}

/// Who calls next.
pub fn plan_declared(plan: &Plan) -> Checked {
    ensure(plan.agents.len() <= MAX_ITEMS, "'agents' must be at most 2**20")?;
    plan.agents.iter().try_for_each(|agent| check_id("agents", agent))?;
    if let Some(chances) = plan.probabilities {
        ensure(plan.at.is_none(), "give at most one of 'at' and 'probabilities'")?;
        ensure(chances.len() == plan.agents.len(), "'probabilities' needs one value per agent")?;
        ensure(chances.iter().all(|chance| (0.0..=1.0).contains(chance)), "'probabilities' must lie in 0..1")?;
    }
    let chances = plan.probabilities.map(|all| all.iter().map(|chance| number(*chance)).collect());
    Ok(wire(
        "plan.declared",
        [
            ("agents", Some(json!(plan.agents))),
            ("at", amount("at", plan.at)?),
            ("probabilities", chances),
            ("not_before", amount("not_before", plan.not_before)?),
        ],
    ))
}

/// An LLM request of an agent: `invocation.started` or `invocation.finished`.
pub fn invocation(kind: &str, agent: &str, request: Option<&str>) -> Checked {
    check_id("agent", agent)?;
    Ok(wire(kind, [("agent", Some(json!(agent))), ("request", text(request))]))
}

/// What memory an agent's requests use.
pub fn memory_bound(agent: &str, memory: &Memory) -> Checked {
    check_id("agent", agent)?;
    let forms = [memory.token_ids.is_some(), memory.text.is_some(), memory.messages.is_some()];
    let prefixes = forms.iter().filter(|given| **given).count();
    ensure(prefixes <= 1, "give at most one of 'token_ids', 'text' and 'messages'")?;
    ensure(prefixes == 1 || memory.lora.is_some() || memory.model.is_some(), "give a LoRA, a prefix or a model")?;
    ensure(memory.lora.is_some() == memory.lora_name.is_some(), "'lora' and 'lora_name' go together")?;
    memory.lora_name.map_or(Ok(()), |name| check_id("lora_name", name))?;
    ensure(memory.token_ids.map_or(true, |ids| ids.len() <= MAX_ITEMS), "'token_ids' must be at most 2**20")?;
    let messages = memory.messages.map(|messages| json!(messages));
    let readable = messages.as_ref().map_or(true, |messages| is_readable(messages, MAX_NESTING));
    ensure(readable, "'messages' must be nested at most 32 levels, in arrays of 2**20 items and maps of 1,024 pairs")?;
    Ok(wire(
        "memory.bound",
        [
            ("agent", Some(json!(agent))),
            ("lora", text(memory.lora)),
            ("lora_name", text(memory.lora_name)),
            ("token_ids", memory.token_ids.map(|ids| json!(ids))),
            ("text", text(memory.text)),
            ("messages", messages),
            ("cache_salt", text(memory.cache_salt)),
            ("model", text(memory.model)),
        ],
    ))
}

fn wire<const N: usize>(kind: &str, fields: [(&str, Option<Value>); N]) -> Value {
    let mut map = Map::new();
    map.insert("type".into(), json!(kind));
    for (key, value) in fields {
        value.map(|value| map.insert(key.into(), value));
    }
    Value::Object(map)
}

fn text(text: Option<&str>) -> Option<Value> {
    text.map(|text| json!(text))
}

fn amount(name: &str, value: Option<f64>) -> Result<Option<Value>, String> {
    let valid = value.map_or(true, |value| value.is_finite() && value >= 0.0);
    ensure(valid, &format!("{name} must be finite and not negative"))?;
    Ok(value.map(number))
}

fn point(name: &str, value: Option<[f64; 2]>) -> Result<Option<Value>, String> {
    let finite = value.map_or(true, |[x, y]| x.is_finite() && y.is_finite());
    ensure(finite, &format!("{name} must be finite"))?;
    Ok(value.map(|[x, y]| json!([number(x), number(y)])))
}

fn check_id(name: &str, id: &str) -> Result<(), String> {
    ensure((1..=MAX_ID_BYTES).contains(&id.len()), &format!("{name} must be 1 to {MAX_ID_BYTES} UTF-8 bytes long"))
}

/// What the daemon can't read would cost the whole message that it stands in, and each snapshot after that.
fn is_readable(value: &Value, levels: usize) -> bool {
    let is_inner_readable = |inner| is_readable(inner, levels - 1);
    match value {
        Value::Array(items) => levels > 0 && items.len() <= MAX_ITEMS && items.iter().all(is_inner_readable),
        Value::Object(map) => levels > 0 && map.len() <= MAX_PAIRS && map.values().all(is_inner_readable),
        _ => true,
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| otherwise.to_string())
}
