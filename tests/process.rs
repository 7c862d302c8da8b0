//! The host as a process: a log that cannot be written, parts that end, slow files, and life as the first process of a container.

mod first_process;
mod output;
mod parts;
mod slow_files;
