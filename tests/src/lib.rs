//! A test vocabulary for headroom: memory cgroups of one's own, the built program and its recordings, scenarios of
//! the lab with readable differences, workloads whose bytes are conserved.

pub mod browser;
pub mod capability;
pub mod conserve;
pub mod disk;
pub mod format;
pub mod http;
pub mod lab;
pub mod memcg;
pub mod memory;
pub mod oomlog;
pub mod program;
pub mod readers;
pub mod recording;
pub mod simulate;
pub mod tmux;
pub mod work;

pub use browser::{Browser, Screen};
pub use disk::SmallDisk;
pub use lab::Scenario;
pub use memcg::Memcg;
pub use program::{PATIENCE, Recorder, Run, headroom};
pub use tmux::Tmux;
pub use work::Worker;
