//! Books payments in a file: several tasks that share one state.

mod book;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use book::{Book, Entry};
use taskbay_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_file")]
    file: PathBuf,
}

fn default_file() -> PathBuf {
    "ledger.jsonl".into()
}

/// The state: the book, which one job at a time writes in.
struct Ledger(Mutex<Book>);

impl Ledger {
    fn with_book<T>(&self, use_it: impl FnOnce(&mut Book) -> Result<T, TaskError>) -> Result<T, TaskError> {
        // A job that panicked cannot have left the book half changed: a booking is one write to the file.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open(setup: &Setup) -> Result<Ledger, TaskError> {
    let settings: Settings = setup.settings()?;
    let book = Book::open(&settings.file);
    Ok(Ledger(Mutex::new(book.or_fail(format_args!("cannot open the ledger {}", settings.file.display()))?)))
}

fn close(ledger: &Ledger) -> TaskResult {
    ledger.with_book(|book| book.sync().or_fail("cannot write the ledger to the disk"))
}

#[derive(Deserialize)]
struct Deposit {
    account: String,
    cents: u32,
}

/// Adds money to an account.
#[task(name = "ledger/deposit")]
fn deposit(ctx: Context<Ledger>, deposit: Deposit) -> TaskResult {
    let Deposit { account, cents } = deposit;
    let entry = Entry { job: ctx.id(), from: None, to: account, cents };
    let balance = ctx.state().with_book(|book| {
        book.add(&entry)?;
        Ok(book.balance(&entry.to))
    })?;
    info!(account = entry.to, cents, balance, "deposited");
    Ok(())
}

#[derive(Deserialize)]
struct Transfer {
    from: String,
    to: String,
    cents: u32,
}

/// Moves money from one account to another, if there is enough.
#[task(name = "ledger/transfer")]
fn transfer(ctx: Context<Ledger>, transfer: Transfer) -> TaskResult {
    let Transfer { from, to, cents } = transfer;
    let entry = Entry { job: ctx.id(), from: Some(from), to, cents };
    ctx.state().with_book(|book| book.add(&entry))?;
    info!(from = entry.from, to = entry.to, cents, "transferred");
    Ok(())
}

#[derive(Deserialize)]
struct Statement {
    account: String,
    file: PathBuf,
}

/// Writes the balance of an account into a file.
#[task(name = "ledger/statement")]
fn statement(ctx: Context<Ledger>, statement: Statement) -> TaskResult {
    let Statement { account, file } = statement;
    let balance = ctx.state().with_book(|book| {
        book.read_news().or_fail("cannot read the ledger")?;
        Ok(book.balance(&account))
    })?;
    let text = json!({ "account": account, "cents": balance }).to_string();
    std::fs::write(&file, text).or_fail(format_args!("cannot write the statement {}", file.display()))
}

plugin! {
    state: open,
    teardown: close,
    tasks: [deposit, transfer, statement],
}

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::{TestJob, setup};

    use super::*;

    fn job(file: &std::path::Path, id: i64) -> TestJob<Ledger> {
        TestJob::with_state(open(&setup(&json!({ "file": file }))).unwrap()).id(id)
    }

    #[test]
    fn two_builds_that_run_side_by_side_see_each_others_bookings() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.jsonl");
        let (old, new) = (job(&file, 1), job(&file, 2));
        deposit(old.context(), Deposit { account: "ada".to_owned(), cents: 500 }).unwrap();
        let payment = Transfer { from: "ada".to_owned(), to: "bob".to_owned(), cents: 200 };
        transfer(new.context(), payment).unwrap();
        // The job runs once more, as it may after a crash, on a build that saw nothing of the first time.
        let again = Transfer { from: "ada".to_owned(), to: "bob".to_owned(), cents: 200 };
        transfer(job(&file, 2).context(), again).unwrap();

        let written = folder.path().join("ada.json");
        statement(old.context(), Statement { account: "ada".to_owned(), file: written.clone() }).unwrap();
        assert_eq!(std::fs::read_to_string(written).unwrap(), r#"{"account":"ada","cents":300}"#);
    }

    #[test]
    fn an_account_cannot_give_what_it_does_not_have() {
        let folder = tempfile::tempdir().unwrap();
        let payment = Transfer { from: "ada".to_owned(), to: "bob".to_owned(), cents: 1 };
        let error = transfer(job(&folder.path().join("ledger.jsonl"), 1).context(), payment).unwrap_err();
        assert_eq!(error.to_string(), "`ada` has 0 cents, which is less than 1");
    }
}
