//! The ways in for the fuzz targets: the files in and beside the tasks folder. Compiled for them alone.

use minisign_verify::PublicKey;

use super::{allow_list::parse, artifact::verify, trust::check_signature};
use crate::{config::public_key, plugin::interpreter_of};

/// Looks at a file as at one in the tasks folder.
pub fn plugin_file(bytes: &[u8]) {
    match verify(bytes) {
        Ok(artifact) => assert!(artifact.loadable <= bytes.len(), "only what is there is handed to the loader"),
        Err(unfit) => assert!(!unfit.to_string().is_empty()),
    }
    if let Some(interpreter) = interpreter_of(bytes) {
        assert!(!interpreter.contains(char::is_control), "it is shown to people");
    }
}

/// Reads an allow-list. What is read can be written, and is the same again.
pub fn allow_list(text: &str) {
    match parse(text) {
        Err(problem) => assert!(problem.contains("in line "), "{problem}"),
        Ok(mut listed) => {
            // A carriage return in the end belongs to the name only where no line follows.
            let lines = listed.iter().filter(|(name, _)| !name.ends_with('\r')).flat_map(|(name, builds)| {
                // "./" is taken off a name, but once.
                builds.iter().map(move |build| format!("{}  ./{name}\n", build.hex()))
            });
            let again: String = lines.collect();
            listed.retain(|name, _| !name.ends_with('\r'));
            assert_eq!(parse(&again), Ok(listed));
        }
    }
}

/// What the signatures in the corpus are of, and whose they are. Nobody has the secret key any more.
const SIGNED: &[u8] = b"plugin\n";
const SIGNER: &str = "RWQBAgMEBQYHCJM2WxugMSmMkzkc8GA/OxzcQ4Q+2sGSkrb0sLCFULT8";
/// What makes the good one good.
const MADE_BY_SIGNER: [&str; 3] = [
    "RUQBAgMEBQYHCPvuMtXXtE3tKsnVCGQ2iTk26pqK836wKin2uuN/IsPMMcSjffFGW+NPIZW117mx5hN4vHWycdJYvIb6nf0yTwI=",
    "timestamp:1764316800\tfile:a.so\thashed",
    "5RwklAs50IyjjWJD4q9Hwv0JHOD6lPq4nJ7zDFkK0O5aylzsgV8kl9doxT778g24rQODa8dTRT38au7aYNLTCQ==",
];

/// Reads a key, and a signature. Only the one that its owner has made is accepted, whatever is written around it.
pub fn signature(text: &str) {
    if let Err(problem) = public_key(text) {
        assert!(!problem.is_empty());
    }
    thread_local! {
        static KEYS: [PublicKey; 1] = [public_key(SIGNER).expect("a key")];
    }
    let check = |bytes| KEYS.with(|keys| check_signature(keys, text, "a.so.minisig", bytes));
    match check(SIGNED) {
        Ok(()) => assert!(MADE_BY_SIGNER.iter().all(|made| text.contains(made)), "a forgery: {text}"),
        Err(problem) => assert!(problem.contains("a.so.minisig"), "{problem}"),
    }
    assert!(check(b"something else").is_err());
}
