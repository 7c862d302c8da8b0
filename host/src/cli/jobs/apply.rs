//! Changes the jobs that a command means, and reports on them.

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        print,
        run_at::RunAt,
    },
    filter::{Target, tell_unknown_tasks},
    report::Report,
};
use crate::{
    admin::{Action, Changes, Selection},
    config::Layer,
    queue::Database,
};

/// Changes the jobs that are meant, and says what was done and what was not. A new time comes apart from the action, because the
/// database may have to be asked for its clock.
pub(super) async fn apply(
    target: &Target,
    mut action: Action,
    run_at: Option<RunAt>,
    as_json: bool,
    settings: &Layer,
) -> Result<Ending, CliError> {
    let selection = action.narrow(target.selection()?);
    let filter = match &selection {
        Selection::Ids(_) => None,
        Selection::Matching(filter) => Some(filter.clone()),
    };
    let connected = Connected::find(settings).await?;
    let (database, admin) = connected.open(action.access()).await?;
    let selected = admin.select(selection).await.map_err(explain(&database))?;
    if let Some(filter) = &filter {
        tell_unknown_tasks(&admin, filter).await;
    }
    if filter.is_some() && target.asks() {
        let jobs = selected.count().await.map_err(explain(&database))?;
        if !target.confirm(verb(&action), jobs)? {
            print("nothing was changed\n")?;
            return Ok(Ending::Refusals);
        }
    }
    if let (Action::Reschedule(change), Some(run_at)) = (&mut action, run_at) {
        change.run_at = Some(run_at.by_clock_of(settings, &database, admin.session()).await?);
    }
    let mut report = Report::begin(done(&action), filter.is_some(), as_json)?;
    match report_all(selected.change(action), &database, &mut report).await {
        Ok(()) => report.end(),
        Err(error) => {
            report.interrupted();
            Err(error)
        }
    }
}

async fn report_all(mut changes: Changes<'_>, database: &Database, report: &mut Report) -> Result<(), CliError> {
    while let Some(batch) = changes.next().await.map_err(explain(database))? {
        batch.left.into_iter().for_each(|(id, why)| report.left(id, why));
        report.changed(&batch.changed)?;
    }
    Ok(())
}

fn verb(action: &Action) -> &'static str {
    match action {
        Action::Complete => "complete",
        Action::Fail(_) => "fail",
        Action::Reschedule(_) => "reschedule",
        Action::Retry => "retry",
        Action::Remove => "remove",
    }
}

fn done(action: &Action) -> &'static str {
    match action {
        Action::Complete => "completed",
        Action::Fail(_) => "failed",
        Action::Reschedule(_) => "rescheduled",
        Action::Retry => "retried",
        Action::Remove => "removed",
    }
}
