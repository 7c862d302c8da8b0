//! A private Postgres cluster for development, made with the machine's own server programs.
