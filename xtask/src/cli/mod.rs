//! One file per command: its arguments and its `run`.

pub mod accuracy;
pub mod bench;
pub mod dist;
pub mod forecast;
pub mod lab;
pub mod matrix;
pub mod setup;
pub mod test;
pub mod vm;
