//! Programs that look at headroom from outside in tests.

use anyhow::Result;

use super::tools::{self, Tool};

const TMUX: [Tool; 1] = [Tool {
    programs: &["tmux"],
    package: "tmux",
}];

/// Installs tmux, in which tests see what `headroom top` draws.
///
/// # Errors
/// Names the package to install by hand.
pub fn tmux() -> Result<()> {
    tools::ensure("the test of `headroom top`", &TMUX)
}
