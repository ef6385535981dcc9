//! The publisher: what a simulation holds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::curve::Curve;
use crate::event::{self, Checked, Lasts, Memory, Move, Plan};
use crate::link::{connect, Link, Shared};
use crate::outbound::Outbound;
use crate::wire::{pack, MAX_EVENT_BYTES};

const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What a publisher may be told.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// What times count: `step`, `sim_seconds` or `wall_seconds`.
    pub clock: &'a str,
    /// The daemon's ZeroMQ door.
    pub address: &'a str,
    /// This process among those of the simulation; default: the simulation's name.
    pub source: Option<&'a str>,
    /// Greater each time that the source starts; default: wall time in milliseconds.
    pub incarnation: Option<u64>,
    /// After so long the whole state is said again.
    pub snapshot_every: Duration,
    /// The keys for a daemon that asks for some.
    pub curve: Option<&'a Curve>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            clock: "step",
            address: "tcp://127.0.0.1:5600",
            source: None,
            incarnation: None,
            snapshot_every: Duration::from_secs(30),
            curve: None,
        }
    }
}

/// Of events: `sent` were handed to ZeroMQ (those of snapshots not counted), `dropped` not, as no daemon listened or too
/// much waited (snapshots say what they changed), and `invalid` were ignored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    pub sent: u64,
    pub dropped: u64,
    pub invalid: u64,
}

/// One source of events of one simulation; any thread may use it.
///
/// A background thread sends. While no daemon listens, the newest state is kept in memory, and said when one does. An
/// event that is not valid is ignored and counted. Dropping a publisher closes it: what waits is sent, then
/// `stream.closed`, within about two seconds.
pub struct Publisher {
    shared: Arc<Shared>,
    wake_out: Mutex<zmq::Socket>,
    thread: Option<JoinHandle<()>>,
    requests: AtomicU64,
}

impl Publisher {
    /// Open a stream of events; fails for a name, clock, address or keys that can't be.
    pub fn open(simulation: &str, options: Options) -> Result<Self, String> {
        let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let source = options.source.unwrap_or(simulation);
        let incarnation = options.incarnation.unwrap_or(milliseconds);
        let opened = event::stream_opened(simulation, source, incarnation, options.clock)?;
        if options.curve.is_some() && zmq::has("curve") != Some(true) {
            return Err("this libzmq was built without CURVE: it can't speak to a daemon that asks for keys".into());
        }
        let (sockets, wake_out) = connect(options.address, options.curve).map_err(|error| format!("{}: {error}", options.address))?;
        let shared = Arc::new(Shared {
            outbound: Mutex::new(Outbound::new()),
            changed: Condvar::new(),
            woken: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        });
        let shared_with_thread = shared.clone();
        let thread = Builder::new()
            .name(format!("scalesim-{}", simulation.replace('\0', "")))
            .spawn(move || Link::new(sockets, &shared_with_thread, &opened, options.snapshot_every).run())
            .map_err(|error| error.to_string())?;
        Ok(Self { shared, wake_out: Mutex::new(wake_out), thread: Some(thread), requests: AtomicU64::new(0) })
    }

    /// The simulation's clock now shows `now`.
    pub fn step(&self, now: f64) -> bool {
        self.say(event::step_advanced(now))
    }

    /// An agent exists.
    pub fn register(&self, agent: &str) -> bool {
        self.say(event::of_agent("agent.registered", agent))
    }

    /// An agent is gone for good: its memory may be dropped.
    pub fn release(&self, agent: &str) -> bool {
        self.say(event::of_agent("agent.released", agent))
    }

    /// An agent acts without the LLM; `activity` names what it does.
    pub fn activity(&self, agent: &str, lasts: Lasts, activity: Option<&str>) -> bool {
        self.say(event::activity_started(agent, lasts, activity))
    }

    /// An agent is somewhere and goes somewhere.
    pub fn moved(&self, agent: &str, moved: &Move) -> bool {
        self.say(event::agent_moved(agent, moved))
    }

    /// Something outside the plan makes an agent call now: distance 0.
    pub fn woken(&self, agent: &str) -> bool {
        self.say(event::of_agent("agent.woken", agent))
    }

    /// No call of an agent is foreseen.
    pub fn idled(&self, agent: &str) -> bool {
        self.say(event::of_agent("agent.idled", agent))
    }

    /// Who calls next; replaces the earlier plan.
    pub fn plan(&self, plan: &Plan) -> bool {
        self.say(event::plan_declared(plan))
    }

    /// What memory an agent's requests use.
    pub fn bind(&self, agent: &str, memory: &Memory) -> bool {
        self.say(event::memory_bound(agent, memory))
    }

    /// An agent no longer uses the memory that it bound.
    pub fn unbind(&self, agent: &str) -> bool {
        self.say(event::of_agent("memory.unbound", agent))
    }

    /// An LLM request of an agent is being sent; `request` tells it from others of the same agent.
    pub fn started(&self, agent: &str, request: Option<&str>) -> bool {
        self.say(event::invocation("invocation.started", agent, request))
    }

    /// An LLM request of an agent has been answered, or has failed.
    pub fn finished(&self, agent: &str, request: Option<&str>) -> bool {
        self.say(event::invocation("invocation.finished", agent, request))
    }

    /// Run `work`, one LLM request of an agent, and say so, also where it panics; returns what it returns.
    pub fn invocation<T>(&self, agent: &str, work: impl FnOnce() -> T) -> T {
        struct Ends<'a>(&'a Publisher, &'a str, String);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.finished(self.1, Some(&self.2));
            }
        }
        let request = (self.requests.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        self.started(agent, Some(&request));
        let _ends = Ends(self, agent, request);
        work()
    }

    /// Wait at most `timeout` until a daemon listens and has been sent everything; return whether it has.
    pub fn flush(&self, timeout: Duration) -> bool {
        let outbound = self.shared.outbound();
        let waited = self.shared.changed.wait_timeout_while(outbound, timeout, |outbound| !outbound.is_settled());
        waited.map_or(false, |(outbound, _)| outbound.is_settled())
    }

    /// How many events were sent, dropped and invalid.
    pub fn counts(&self) -> Counts {
        let outbound = self.shared.outbound();
        Counts { sent: outbound.sent, dropped: outbound.dropped, invalid: outbound.invalid }
    }

    fn say(&self, event: Checked) -> bool {
        let checked = event.map(|event| (pack(&event), event));
        let mut outbound = self.shared.outbound();
        match checked {
            Ok((packed, event)) if packed.len() <= MAX_EVENT_BYTES => outbound.put(&event, packed),
            _ => {
                outbound.invalid += 1;
                return false;
            }
        }
        drop(outbound);
        self.wake();
        true
    }

    fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::SeqCst) {
            let socket = self.wake_out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _ = socket.send(&b""[..], zmq::DONTWAIT); // Fails where the thread has enough to read already.
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        *self.shared.stop_by.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Instant::now() + CLOSE_WAIT);
        self.shared.woken.store(false, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
