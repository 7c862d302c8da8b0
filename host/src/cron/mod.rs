//! A clock adds jobs: the schedules of the crontab file and of the plugins, each tick once in the whole fleet.
//!
//! Nothing here knows how jobs run.
