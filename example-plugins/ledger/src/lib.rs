//! Keeps accounts: several tasks that share one state, opened once per build and closed after its last job.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use taskbay_plugin::prelude::*;

/// From `[plugins.ledger.settings]` in `taskbay.toml`.
#[derive(Deserialize)]
struct Settings {
    /// Where the accounts are kept, as a JSON object of balances.
    file: PathBuf,
}

/// All balances, and the jobs that are in them: a job that runs twice counts once.
#[derive(Default, Serialize, Deserialize)]
struct Accounts {
    balances: BTreeMap<String, i64>,
    applied: BTreeMap<i64, i64>,
}

struct Book {
    file: PathBuf,
    accounts: Mutex<Accounts>,
}

fn open(setup: Setup) -> Result<Book, TaskError> {
    let Settings { file } = setup.settings()?;
    let accounts = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Accounts::default(),
        Err(error) => return Err(TaskError::from(error).context(file.display())),
    };
    info!(file = %file.display(), accounts = accounts.balances.len(), "opened the book");
    Ok(Book { file, accounts: Mutex::new(accounts) })
}

async fn close(book: Arc<Book>) {
    info!(file = %book.file.display(), "closed the book");
}

impl Book {
    /// Applies a change and stores the book before anybody else can change it.
    fn change(&self, job: i64, change: impl FnOnce(&mut Accounts) -> TaskResult) -> TaskResult {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.applied.contains_key(&job) {
            info!("this job is in the book already");
            return Ok(());
        }
        change(&mut accounts)?;
        accounts.applied.insert(job, 1);
        let unfinished = self.file.with_extension("part");
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(serde_json::to_string_pretty(&*accounts)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.file)?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Deposit {
    account: String,
    cents: i64,
}

/// Puts money into an account.
#[task(name = "ledger/deposit")]
fn deposit(ctx: Context<Book>, deposit: Deposit) -> TaskResult {
    ctx.state().change(ctx.id(), |accounts| {
        *accounts.balances.entry(deposit.account).or_default() += deposit.cents;
        Ok(())
    })
}

#[derive(Deserialize)]
struct Transfer {
    from: String,
    to: String,
    cents: i64,
}

/// Moves money between accounts; fails for good when there is too little.
#[task(name = "ledger/transfer")]
fn transfer(ctx: Context<Book>, transfer: Transfer) -> TaskResult {
    let Transfer { from, to, cents } = transfer;
    ctx.state().change(ctx.id(), |accounts| {
        let there = accounts.balances.get(&from).copied().unwrap_or(0);
        if there < cents {
            return Err(TaskError::discard(format_args!("{from} has {there} cents, which is less than {cents}")));
        }
        *accounts.balances.entry(from).or_default() -= cents;
        *accounts.balances.entry(to).or_default() += cents;
        Ok(())
    })
}

plugin! { tasks: [deposit, transfer], state: open, teardown: close }
