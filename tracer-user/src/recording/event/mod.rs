//! The events that the ledger adds up and a recording keeps, one JSON line each: `{"t": ns, "type": "...", ...}`.
//!
//! Sizes are bytes, times nanoseconds of CLOCK_BOOTTIME. Fields may be added within a major format version; readers
//! skip types and fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod charge;
mod forecast;
mod header;
mod loss;
mod mark;
mod names;
mod oom;
mod pod;
mod sample;
mod stack;

pub(super) use charge::ChargeLine;
pub use charge::{Charge, Live};
pub use forecast::{Alert, AlertKind, Basis, Driver, Forecast};
pub use header::{Baseline, FileCache, Following, Footer, Header, Total};
pub use loss::Loss;
pub use mark::Mark;
pub use oom::{Oom, OomTask};
pub use pod::{Memcg, Pod, Process, Thread, VmShape};
pub use sample::{Reclaim, Sample};
pub use stack::{Frame, Stack, StackCharge};

/// Name and major version of the recording format, in every header.
pub const FORMAT: &str = "headroom.recording/1";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// What.
    #[serde(flatten)]
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is documented on its type")]
pub enum Body {
    Header(Header),
    Baseline(Baseline),
    Pod(Pod),
    Process(Process),
    Thread(Thread),
    Charge(Charge),
    Live(Live),
    Sample(Sample),
    Reclaim(Reclaim),
    Forecast(Forecast),
    Alert(Alert),
    Oom(Oom),
    Mark(Mark),
    Frame(Frame),
    Stack(Stack),
    StackCharge(StackCharge),
    Loss(Loss),
    Footer(Footer),
    /// A type of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
