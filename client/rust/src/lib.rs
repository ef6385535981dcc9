//! What a simulation holds: says events to the ScaleSim sidecar, and never waits for it, nor fails because of it.
//!
//! ```no_run
//! use scalesim_client::{Lasts, Publisher};
//!
//! let sidecar = Publisher::open("village", Default::default()).expect("a name and an address that can be");
//! sidecar.step(0.0);
//! sidecar.activity("rosa", Lasts::For(6.0), None); // rosa acts on her own for six steps
//! sidecar.invocation("rosa", || { /* her LLM request */ });
//! ```

mod curve;
pub mod event;
mod link;
mod outbound;
mod publisher;
mod state;
pub mod wire;

pub use curve::Curve;
pub use event::{Lasts, Memory, Move, Plan};
pub use publisher::{Counts, Options, Publisher};
