//! A job becomes an outcome: the only place that knows both Postgres and plugins.
