//! Set up, build, test and show headroom: the parts that `cargo xtask` and the end-to-end tests share.
//!
//! [`setup`] installs what a build or a VM needs, [`build`] makes the binaries, [`vm`] boots a kernel around them,
//! [`dist`] packs them for nodes, [`bench`] measures what tracing costs.

pub mod bench;
pub mod build;
pub mod dist;
pub mod matrix;
pub mod paths;
pub mod process;
pub mod setup;
pub mod vm;
