//! The `taskbay` program.

fn main() {}
