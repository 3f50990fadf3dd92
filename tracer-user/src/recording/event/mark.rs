//! Marks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Somebody said what happens: `headroom mark`. A sample stands right before and right behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mark {
    /// What happens, as it was said.
    pub text: String,
    /// Number of the pod that it happens to; absent where it concerns them all.
    pub pod: Option<u32>,
}
