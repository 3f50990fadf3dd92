//! Programs that look at headroom from outside in tests.

use anyhow::Result;

use super::tools::{self, Tool};

const fn tool(programs: &'static [&'static str], package: &'static str) -> Tool {
    Tool { programs, package }
}

const OBSERVERS: [Tool; 3] = [tool(&["tmux"], "tmux"), tool(&["zstd"], "zstd"), tool(&["jq"], "jq")];

/// Installs tmux, in which tests see what `headroom top` draws, and zstd and jq, with which they read recordings.
///
/// # Errors
/// Names the packages to install by hand.
pub fn ensure() -> Result<()> {
    tools::ensure("the tests of `headroom top` and of recordings", &OBSERVERS)
}
