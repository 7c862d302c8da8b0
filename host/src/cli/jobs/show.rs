//! `taskbay jobs show`: everything that is known of a job.

use clap::Args;

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        moment::{relative, written},
        note,
        options::DatabaseOptions,
        output::{Text, print_stored_json},
        print, print_json,
    },
    filter::parse_id,
    json::{JsonJob, indent},
};
use crate::{
    config::Layer,
    queue::{JobState, RowAccess, StoredJob},
};

/// Show everything of a job: its payload, its last error, who holds it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay jobs show 42
  taskbay jobs show --key nightly
  taskbay jobs show 42 --payload | jq .to")]
pub(super) struct Show {
    /// The job's id
    #[arg(required_unless_present = "key", value_parser = parse_id)]
    id: Option<i64>,
    /// The key that the job is under
    #[arg(long, conflicts_with = "id")]
    key: Option<String>,
    /// Print the payload alone, as it is stored
    #[arg(long, conflicts_with = "json")]
    payload: bool,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) database: DatabaseOptions,
}

impl Show {
    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let (database, admin) = connected.open(RowAccess::Read).await?;
        let found = match (self.id, &self.key) {
            (Some(id), _) => admin.job(id).await,
            (None, key) => admin.job_under_key(key.as_deref().unwrap_or_default()).await,
        };
        let Some(job) = found.map_err(explain(&database))? else {
            let name = match (self.id, &self.key) {
                (Some(id), _) => format!("job {id} does not exist in {}; it may be done already", database.name()),
                (None, key) => format!("there is no job under the key {:?}", key.as_deref().unwrap_or_default()),
            };
            note(&name);
            return Ok(Ending::Refusals);
        };
        if self.json {
            print_json(&JsonJob::of(&job))?;
        } else if self.payload {
            print_stored_json(&job.payload)?;
        } else {
            print(describe(&job))?;
        }
        Ok(Ending::Success)
    }
}

fn describe(job: &StoredJob) -> Text {
    let when = |time| format!("{} ({})", written(time), relative(time));
    let held = match (&job.locked_by, job.locked_at) {
        (Some(worker), Some(since)) => format!("{worker}, since {}", when(since)),
        (None, Some(since)) => format!("somebody, since {}", when(since)),
        _ => String::new(),
    };
    let failed = job.state == JobState::Failed;
    let lines = [
        ("job", job.id.to_string()),
        (
            "task",
            if job.task_identifier.is_empty() {
                "? (its name was deleted)".into()
            } else {
                job.task_identifier.clone()
            },
        ),
        ("state", if failed { "failed for good: it is not tried again".to_owned() } else { job.state.to_string() }),
        // A job that fails for good loses the attempts that it has left, and they count as used.
        (
            "tried",
            match failed {
                true => format!("no attempts left, of {}", job.max_attempts),
                false => format!("{} of {} times", job.attempts, job.max_attempts),
            },
        ),
        ("runs at", if failed { String::new() } else { when(job.run_at) }),
        ("priority", job.priority.to_string()),
        ("queue", job.queue_name.clone().unwrap_or_default()),
        ("key", job.key.clone().unwrap_or_default()),
        ("flags", job.flags.as_deref().map(flag_names).unwrap_or_default()),
        ("held by", held),
        ("added", when(job.created_at)),
        ("changed", format!("{}, revision {}", when(job.updated_at), job.revision)),
    ];
    let mut text = Text::default();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        text.line(format_args!("{name:<9} {value}"));
    }
    if let Some(error) = &job.last_error {
        text.block("\nlast error:");
        // So that no line of it passes for one of this list.
        error.lines().for_each(|line| text.line(format_args!("  {line}")));
    }
    text.block("\npayload:");
    text.block(&indent(&job.payload));
    text
}

fn flag_names(flags: &str) -> String {
    let flags: serde_json::Map<String, serde_json::Value> = serde_json::from_str(flags).unwrap_or_default();
    flags.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
