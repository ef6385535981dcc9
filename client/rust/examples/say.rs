//! Says what it reads, one event a line, for tests and for what speaks no ZeroMQ itself:
//!   agent.activity_started agent=Ada for=2.5        (lists: agents=Ada,Bob xy=1,2)
//!   flush SECONDS | count | flood EVENTS            (answered by one line each)
//! say say ADDRESS SIMULATION [SECONDS BETWEEN SNAPSHOTS [OWN.key_secret DAEMON.key]]; `encode` prints each event in
//! msgpack, as hex, instead of saying it; `decode` reads such lines and prints JSON.

use std::collections::HashMap;
use std::io::stdin;
use std::str::FromStr;
use std::time::{Duration, Instant};

use scalesim_client::event::{self, Checked};
use scalesim_client::{wire, Curve, Lasts, Memory, Move, Options, Plan, Publisher};

/// The fields of a line.
struct Words<'a>(HashMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    fn agent(&self) -> &'a str {
        self.text("agent").unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.text(key).map(|text| text.parse().expect("a number"))
    }

    fn list<T: FromStr>(&self, key: &str) -> Option<Vec<T>> {
        let parse = |text: &str| text.parse().ok().expect("a value");
        self.text(key).map(|text| text.split(',').map(parse).collect())
    }

    fn point(&self, key: &str) -> Option<[f64; 2]> {
        self.list(key).map(|point| [point[0], point[1]])
    }
}

/// Say an event by the publisher's method for it, or return it where there is no publisher.
fn say(publisher: Option<&Publisher>, kind: &str, words: &Words) -> Checked {
    let agent = words.agent();
    match kind {
        "step.advanced" => {
            let now = words.number("now").unwrap_or(-1.0);
            publisher.map(|p| p.step(now));
            event::step_advanced(now)
        }
        "agent.activity_started" => {
            let ends = words.number("until").map(Lasts::Until);
            let lasts = ends.unwrap_or(Lasts::For(words.number("for").unwrap_or(-1.0)));
            publisher.map(|p| p.activity(agent, lasts, words.text("activity")));
            event::activity_started(agent, lasts, words.text("activity"))
        }
        "agent.moved" => {
            let moved = Move {
                xy: words.point("xy"),
                place: words.text("place"),
                destination: words.point("destination"),
                speed: words.number("speed"),
                vision: words.number("vision"),
            };
            publisher.map(|p| p.moved(agent, &moved));
            event::agent_moved(agent, &moved)
        }
        "plan.declared" => {
            let agents: Vec<&str> = words.text("agents").unwrap_or_default().split(',').collect();
            let chances: Option<Vec<f64>> = words.list("probabilities");
            let plan = Plan {
                agents: &agents,
                at: words.number("at"),
                probabilities: chances.as_deref(),
                not_before: words.number("not_before"),
            };
            publisher.map(|p| p.plan(&plan));
            event::plan_declared(&plan)
        }
        "memory.bound" => {
            let token_ids: Option<Vec<u32>> = words.list("token_ids");
            let memory = Memory {
                lora: words.text("lora"),
                lora_name: words.text("lora_name"),
                token_ids: token_ids.as_deref(),
                text: words.text("text"),
                messages: None,
                cache_salt: words.text("cache_salt"),
                model: words.text("model"),
            };
            publisher.map(|p| p.bind(agent, &memory));
            event::memory_bound(agent, &memory)
        }
        "invocation.started" | "invocation.finished" => {
            let request = words.text("request");
            publisher.map(|p| if kind.ends_with("started") { p.started(agent, request) } else { p.finished(agent, request) });
            event::invocation(kind, agent, request)
        }
        _ => {
            publisher.map(|p| match kind {
                "agent.registered" => p.register(agent),
                "agent.released" => p.release(agent),
                "agent.woken" => p.woken(agent),
                "agent.idled" => p.idled(agent),
                _ => p.unbind(agent),
            });
            event::of_agent(kind, agent)
        }
    }
}

/// Carry out what isn't an event, and return the answer.
fn answer(publisher: &Publisher, verb: &str, amount: f64) -> String {
    match verb {
        "flush" => format!("flushed {}", u8::from(publisher.flush(Duration::from_secs_f64(amount)))),
        "flood" => {
            let began = Instant::now();
            for number in 0..amount as u64 {
                publisher.activity(&(number % 1000).to_string(), Lasts::Until(number as f64), None);
            }
            format!("{}", began.elapsed().as_secs_f64())
        }
        _ => {
            let counts = publisher.counts();
            format!("{} {} {}", counts.sent, counts.dropped, counts.invalid)
        }
    }
}

fn from_hex(line: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).expect("hex");
    (0..line.len()).step_by(2).map(byte).collect()
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    let publisher = match &arguments[1..] {
        [_, address, simulation, rest @ ..] => {
            let seconds = rest.first().map_or(30.0, |text| text.parse().expect("seconds"));
            let snapshot_every = Duration::from_secs_f64(seconds);
            let keys = rest.get(1).zip(rest.get(2)).map(|(own, daemon)| Curve::load(own, daemon)).transpose()?;
            let options = Options { address, snapshot_every, curve: keys.as_ref(), ..Default::default() };
            Some(Publisher::open(simulation, options)?)
        }
        _ => None,
    };
    for line in stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if arguments[1] == "decode" {
            println!("{}", wire::unpack(&from_hex(&line)).unwrap_or_default());
        } else if verb.contains('.') {
            let words = Words(rest.split(' ').filter_map(|word| word.split_once('=')).collect());
            let said = say(publisher.as_ref(), verb, &words);
            if publisher.is_none() {
                let hex: String = wire::pack(&said?).iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{hex}");
            }
        } else if let Some(publisher) = &publisher {
            println!("{}", answer(publisher, verb, rest.parse().unwrap_or_default()));
        }
    }
    Ok(())
}
