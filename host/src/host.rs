//! The wiring: starts the stages, stops them in reverse, takes the stop signal as an argument.
