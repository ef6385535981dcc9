//! What a source has to say and hasn't sent yet: a bounded queue over the newest state. What the queue can't hold is said
//! later, by a snapshot.

use std::mem::take;

use serde_json::Value;

use crate::state::NewestState;

const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// Events to send, packed and in order, and then the snapshot that is due, if any, as of clock value `now`.
pub(crate) struct Batch {
    pub events: Vec<Vec<u8>>,
    pub snapshot: Option<Vec<Vec<u8>>>,
    pub now: Option<f64>,
}

pub(crate) struct Outbound {
    pub sent: u64,
    pub dropped: u64,
    pub invalid: u64,
    pub snapshot_due: bool,
    state: NewestState,
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    keeping: bool,
    live: bool,
    in_hand: bool,
}

impl Outbound {
    pub fn new() -> Self {
        Self {
            sent: 0,
            dropped: 0,
            invalid: 0,
            snapshot_due: false,
            state: NewestState::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            keeping: true,
            live: false,
            in_hand: false,
        }
    }

    /// Take over one event; `packed` is the same in msgpack.
    pub fn put(&mut self, event: &Value, packed: Vec<u8>) {
        self.state.apply(event);
        if !self.keeping {
            self.dropped += 1;
            return;
        }
        if self.waiting_bytes + packed.len() > MAX_WAITING_BYTES {
            self.drop_waiting();
        }
        self.waiting_bytes += packed.len();
        self.waiting.push(packed);
    }

    /// Hand out all that waits; it counts as left to send until `all_sent` or `lost`.
    pub fn take(&mut self) -> Batch {
        let snapshot = take(&mut self.snapshot_due).then(|| self.state.snapshot());
        self.waiting_bytes = 0;
        let batch = Batch { events: take(&mut self.waiting), snapshot, now: self.state.now };
        self.in_hand = !batch.events.is_empty() || batch.snapshot.is_some();
        batch
    }

    /// Report that all that was taken has been sent; return whether more waits by now.
    pub fn all_sent(&mut self) -> bool {
        self.in_hand = false;
        !self.waiting.is_empty() || self.snapshot_due
    }

    /// Report that the daemon listens: events are kept for it from now on.
    pub fn connected(&mut self, resync: bool) {
        self.keeping = true;
        self.live = true;
        self.snapshot_due |= resync;
    }

    /// Report that the daemon is away, and that `in_hand` of the events taken were not sent; a snapshot is due then.
    pub fn lost(&mut self, in_hand: u64) {
        self.dropped += in_hand;
        self.drop_waiting();
        self.keeping = false;
        self.live = false;
        self.in_hand = false;
    }

    /// Return whether the daemon listens and nothing is left to send.
    pub fn is_settled(&self) -> bool {
        self.live && self.waiting.is_empty() && !self.snapshot_due && !self.in_hand
    }

    fn drop_waiting(&mut self) {
        self.dropped += take(&mut self.waiting).len() as u64;
        self.waiting_bytes = 0;
        self.snapshot_due = true;
    }
}
