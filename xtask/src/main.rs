//! Set up, build, test and show headroom.

fn main() {}
