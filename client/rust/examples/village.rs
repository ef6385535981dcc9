//! A village of five agents for some steps: cargo run --example village [address] [steps]
//! They take turns: each acts for as long as the others need, then calls its LLM.

use std::time::Duration;

use scalesim_client::{Lasts, Memory, Options, Publisher};

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    let address = arguments.get(1).map_or("tcp://127.0.0.1:5600", String::as_str);
    let steps: usize = arguments.get(2).map_or(Ok(20), |steps| steps.parse()).map_err(|_| "steps: a number")?;
    let villagers = ["Ada", "Bob", "Cyd", "Dan", "Eve"];
    let sidecar = Publisher::open("village", Options { address, ..Default::default() })?;

    for agent in villagers {
        let persona = format!("You are {agent}, of a village of five.");
        sidecar.bind(agent, &Memory { text: Some(&persona), ..Default::default() });
    }
    sidecar.step(0.0);
    for (turn, agent) in villagers.iter().enumerate() {
        sidecar.activity(agent, Lasts::For((turn + 1) as f64), None);
    }
    for now in 1..=steps {
        let agent = villagers[(now - 1) % villagers.len()];
        sidecar.step(now as f64);
        sidecar.invocation(agent, || { /* Here the LLM is called. */ });
        sidecar.activity(agent, Lasts::For(villagers.len() as f64), None);
    }
    if sidecar.flush(Duration::from_secs(5)) {
        println!("said {} events", sidecar.counts().sent);
    } else {
        println!("no daemon listens; the village went on without");
    }
    Ok(())
}
