//! The thread that owns the socket to the daemon: shakes hands, sends what waits, restates when asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{json, Value};
use zmq::{Context, Socket, SocketEvent, DONTWAIT, POLLIN, POLLOUT};

use crate::curve::Curve;
use crate::outbound::Outbound;
use crate::wire::{chunks, controls, join_events, join_snapshot, pack};

const SEND_HIGH_WATER_MARK: i32 = 1000;
const LINGER_MS: i32 = 500;
const HEARTBEAT_MS: i32 = 5000;
const RECONNECT_MAX_MS: i32 = 2000;
const REFUSALS: i32 = SocketEvent::HANDSHAKE_FAILED_AUTH as i32
    | SocketEvent::HANDSHAKE_FAILED_PROTOCOL as i32
    | SocketEvent::HANDSHAKE_FAILED_NO_DETAIL as i32;
const START_GRACE: Duration = Duration::from_secs(1);
const WELCOME_WAIT: Duration = Duration::from_secs(2);
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// What ZeroMQ can wait for.
const LONGEST_WAIT: Duration = Duration::from_millis(i32::MAX as u64 - 1);
const WAKE: &str = "inproc://wake";
const MONITOR: &str = "inproc://monitor";

/// What the simulation's threads and the link share.
pub(crate) struct Shared {
    pub outbound: Mutex<Outbound>,
    pub changed: Condvar,
    pub woken: AtomicBool,
    pub stop_by: Mutex<Option<Instant>>,
}

impl Shared {
    pub fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn stop_by(&self) -> Option<Instant> {
        *self.stop_by.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// No connection.
    Away,
    /// Connected; `stream.opened` is sent, its welcome awaited.
    Opening,
    /// Welcome: events go out.
    Open,
    /// The daemon doesn't take this stream; another connection may.
    Refused,
}

/// The thread's sockets.
pub(crate) struct Sockets {
    dealer: Socket,
    monitor: Socket,
    wake_in: Socket,
    address: String,
}

/// Return the thread's sockets, connected, and the one by which the simulation's side wakes it.
pub(crate) fn connect(address: &str, curve: Option<&Curve>) -> zmq::Result<(Sockets, Socket)> {
    let context = Context::new();
    let dealer = context.socket(zmq::DEALER)?;
    dealer.set_sndhwm(SEND_HIGH_WATER_MARK)?;
    dealer.set_linger(LINGER_MS)?;
    dealer.set_immediate(true)?; // Nothing is queued for a daemon that isn't there.
    dealer.set_heartbeat_ivl(HEARTBEAT_MS)?;
    dealer.set_reconnect_ivl_max(RECONNECT_MAX_MS)?;
    if let Some(curve) = curve {
        dealer.set_curve_serverkey(curve.server.as_bytes())?;
        dealer.set_curve_publickey(curve.public.as_bytes())?;
        dealer.set_curve_secretkey(curve.secret.as_bytes())?;
    }
    let events = SocketEvent::HANDSHAKE_SUCCEEDED as i32 | SocketEvent::DISCONNECTED as i32 | REFUSALS;
    dealer.monitor(MONITOR, events)?;
    let monitor = context.socket(zmq::PAIR)?;
    monitor.connect(MONITOR)?;
    let (wake_in, wake_out) = (context.socket(zmq::PAIR)?, context.socket(zmq::PAIR)?);
    wake_out.set_linger(0)?;
    wake_in.bind(WAKE)?;
    wake_out.connect(WAKE)?;
    dealer.connect(address)?;
    Ok((Sockets { dealer, monitor, wake_in, address: address.into() }, wake_out))
}

pub(crate) struct Link<'a> {
    shared: &'a Shared,
    dealer: Socket,
    monitor: Socket,
    wake_in: Socket,
    address: String,
    turned_away: bool,
    knock_at: Option<Instant>,
    source: String,
    opened: Vec<u8>,
    snapshot_every: Duration,
    phase: Phase,
    seq: u64,
    restated_up_to: i64,
    outbox: VecDeque<(u64, Vec<u8>)>,
    blocked: bool,
    more_waits: bool,
    deadline: Option<Instant>,
    next_snapshot: Instant,
}

impl<'a> Link<'a> {
    pub fn new(sockets: Sockets, shared: &'a Shared, opened: &Value, snapshot_every: Duration) -> Self {
        Self {
            shared,
            dealer: sockets.dealer,
            monitor: sockets.monitor,
            wake_in: sockets.wake_in,
            address: sockets.address,
            turned_away: false,
            knock_at: None,
            source: opened["source"].as_str().unwrap_or_default().into(),
            opened: pack(opened),
            snapshot_every: snapshot_every.min(LONGEST_WAIT),
            phase: Phase::Away,
            seq: 0,
            restated_up_to: -1,
            outbox: VecDeque::new(),
            blocked: false,
            more_waits: false,
            deadline: Some(Instant::now() + START_GRACE),
            next_snapshot: Instant::now() + snapshot_every.min(LONGEST_WAIT),
        }
    }

    /// Serve the connection until stopped.
    pub fn run(&mut self) {
        while !self.is_over() {
            let outgoing = if self.blocked { POLLOUT } else { zmq::PollEvents::empty() };
            let mut items = [
                self.dealer.as_poll_item(POLLIN | outgoing),
                self.monitor.as_poll_item(POLLIN),
                self.wake_in.as_poll_item(POLLIN),
            ];
            let _ = zmq::poll(&mut items, self.wait_ms());
            self.rest();
            self.follow_connection();
            self.listen();
            self.watch_time();
            self.send_waiting();
        }
        if self.phase == Phase::Open {
            let closed = pack(&json!({"type": "stream.closed"}));
            self.transmit(&join_events(wall_seconds(), &[closed]));
        }
        self.lose();
    }

    fn is_over(&self) -> bool {
        let Some(stop_by) = self.shared.stop_by() else { return false };
        let hopeless = match self.phase {
            Phase::Open => self.shared.outbound().is_settled(),
            Phase::Refused => true,
            Phase::Away => self.deadline.is_none(),
            Phase::Opening => false,
        };
        hopeless || Instant::now() >= stop_by
    }

    fn wait_ms(&self) -> i64 {
        if self.more_waits {
            return 0;
        }
        let moments = [Some(self.next_snapshot), self.deadline, self.knock_at, self.shared.stop_by()];
        let next = moments.into_iter().flatten().min().unwrap_or(self.next_snapshot);
        next.saturating_duration_since(Instant::now()).as_millis() as i64 + 1
    }

    /// Empty the wake-up pipe, and only then take the mark away: the other way round, a wake-up could be swallowed.
    fn rest(&self) {
        while self.wake_in.recv_bytes(DONTWAIT).is_ok() {}
        self.shared.woken.store(false, Ordering::SeqCst);
    }

    fn follow_connection(&mut self) {
        while let Ok(frames) = self.monitor.recv_multipart(DONTWAIT) {
            let event = frames.first().and_then(|frame| frame.get(..2)).map_or(0, |raw| u16::from_ne_bytes([raw[0], raw[1]]));
            if event == SocketEvent::HANDSHAKE_SUCCEEDED as u16 {
                self.turned_away = false;
                self.knock_at = None;
                self.open();
            } else if i32::from(event) & REFUSALS != 0 {
                self.turn_away();
            } else if event == SocketEvent::DISCONNECTED as u16 {
                self.phase = Phase::Away;
                self.deadline = None;
                self.lose();
            }
        }
    }

    fn turn_away(&mut self) {
        if !self.turned_away {
            eprintln!("scalesim: the daemon ends the handshake: it goes, or it takes keys, or none, or others (curve)");
        }
        self.turned_away = true;
        self.knock_at = Some(Instant::now() + Duration::from_millis(RECONNECT_MAX_MS as u64));
    }

    /// ZeroMQ gives up a connection that was refused; the daemon may know the key by now, or ask for none.
    fn knock_again(&mut self) {
        self.knock_at = None;
        let _ = self.dealer.disconnect(&self.address);
        let _ = self.dealer.connect(&self.address);
    }

    fn open(&mut self) {
        self.phase = Phase::Opening;
        let sent = self.transmit(&join_events(wall_seconds(), &[self.opened.clone()]));
        self.deadline = Some(Instant::now() + if sent { WELCOME_WAIT } else { RETRY_WAIT });
    }

    fn listen(&mut self) {
        while let Ok(frames) = self.dealer.recv_multipart(DONTWAIT) {
            if let [_, _, payload] = &frames[..] {
                controls(payload).iter().for_each(|control| self.obey(control));
            }
        }
    }

    fn obey(&mut self, control: &Value) {
        match (control["type"].as_str(), control["error"].as_str()) {
            (Some("welcome"), Some(error)) => {
                eprintln!("scalesim: the daemon refuses stream {}: {error}", self.source);
                self.phase = Phase::Refused;
                self.deadline = None;
                self.lose();
            }
            (Some("welcome"), None) => {
                self.phase = Phase::Open;
                self.deadline = None;
                self.shared.outbound().connected(control["resync"] == true);
            }
            (Some("resync"), _) if self.phase == Phase::Open => self.restate(control["last_seq"].as_i64().unwrap_or(-1)),
            _ => {}
        }
    }

    /// A daemon that doesn't know this stream hears it opened anew; an answer that is on its way is not doubled.
    fn restate(&mut self, last_seq: i64) {
        if last_seq < 0 || last_seq >= self.restated_up_to {
            self.shared.outbound().snapshot_due = true;
        }
        if last_seq < 0 {
            self.open();
        }
    }

    fn watch_time(&mut self) {
        let now = Instant::now();
        if self.knock_at.is_some_and(|knock_at| now >= knock_at) {
            self.knock_again();
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.lose();
            if self.phase == Phase::Opening {
                self.open();
            }
        }
        if now >= self.next_snapshot {
            self.next_snapshot = now + self.snapshot_every;
            if self.phase == Phase::Open {
                self.shared.outbound().snapshot_due = true;
            }
        }
    }

    fn send_waiting(&mut self) {
        self.blocked = false;
        self.more_waits = false;
        if self.phase != Phase::Open {
            return;
        }
        if self.outbox.is_empty() {
            self.refill();
        }
        while let Some((events, payload)) = self.outbox.pop_front() {
            if !self.transmit(&payload) {
                self.outbox.push_front((events, payload));
                self.blocked = true;
                return;
            }
            self.shared.outbound().sent += events;
        }
        self.more_waits = self.shared.outbound().all_sent();
        self.shared.changed.notify_all();
    }

    fn refill(&mut self) {
        let batch = self.shared.outbound().take();
        let ts = wall_seconds();
        for chunk in chunks(batch.events) {
            self.outbox.push_back((chunk.len() as u64, join_events(ts, &chunk)));
        }
        let Some(snapshot) = batch.snapshot else { return };
        let parts = if snapshot.is_empty() { vec![Vec::new()] } else { chunks(snapshot) };
        for (part, chunk) in parts.iter().enumerate() {
            self.outbox.push_back((0, join_snapshot(ts, part, parts.len(), chunk, batch.now)));
        }
        self.restated_up_to = (self.seq + self.outbox.len() as u64) as i64 - 1;
        self.next_snapshot = Instant::now() + self.snapshot_every;
    }

    fn transmit(&mut self, payload: &[u8]) -> bool {
        let frames = [self.source.as_bytes(), &self.seq.to_be_bytes(), payload];
        let sent = self.dealer.send_multipart(frames, DONTWAIT).is_ok();
        self.seq += u64::from(sent);
        sent
    }

    fn lose(&mut self) {
        self.shared.outbound().lost(self.outbox.iter().map(|(events, _)| events).sum());
        self.outbox.clear();
    }
}

fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
