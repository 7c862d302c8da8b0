//! A plugin whose start-up fails, panics or hangs, as its settings say. Only the tests use it.

use std::time::Duration;

use taskbay_plugin::{prelude::*, tokio::time::sleep};

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    start: String,
}

struct Started;

async fn start(setup: Setup) -> Result<Started, TaskError> {
    let settings: Settings = setup.settings()?;
    match settings.start.as_str() {
        "fail" => Err("the mail server is away")?,
        "panic" => panic!("no start today"),
        "hang" => sleep(Duration::from_secs(3_600)).await,
        _ => {}
    }
    Ok(Started)
}

/// Does nothing.
#[task]
async fn started(_ctx: Context<Started>) {}

plugin! { tasks: [started], state: start }
