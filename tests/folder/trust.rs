//! Allow-lists and signatures: what nobody vouches for is not loaded, and what serves goes on.

use std::{
    fs,
    io::Cursor,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use minisign::KeyPair;
use taskbay::{config::FolderSettings, events::Event};

use super::{FILE, Watched, build_of};
use crate::harness::{
    plugins::{build_labelled, build_that, install, tasks_folder},
    program::Taskbay,
};

const SCRIPT: &[u8] = b"#!/bin/sh\n";

/// Beside the tasks folder.
fn list_of(folder: &Path) -> PathBuf {
    folder.parent().expect("the folder is in another").join("SHA256SUMS")
}

fn line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", build_of(bytes).hex())
}

fn write_list(folder: &Path, text: &str) {
    install(list_of(folder).parent().expect("a folder"), "SHA256SUMS", text.as_bytes());
}

fn by_list(settings: &mut FolderSettings) {
    settings.manifest = Some(list_of(&settings.path));
}

/// Any two keys of this program are different ones.
fn key() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().expect("make a key")
}

fn sign(key: &KeyPair, bytes: &[u8]) -> Vec<u8> {
    let signature = minisign::sign(Some(&key.pk), &key.sk, Cursor::new(bytes), None, None).expect("sign a file");
    signature.to_string().into_bytes()
}

fn signature_of(name: &str) -> String {
    format!("{name}.minisig")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_list_has_is_loaded_and_a_change_of_the_list_is_heeded() {
    let (one, two) = (build_labelled(1), build_labelled(2));
    let fill = |path: &Path| {
        install(path, FILE, &one);
        write_list(path, &line(FILE, &one));
    };
    let mut folder = Watched::start_with(fill, by_list).await;
    folder.loads("what is listed", &one).await;

    install(&folder.path, FILE, &two);
    let (reason, serving) = folder.refuses(FILE).await;
    let added = line(FILE, &two);
    assert!(reason.contains("is another build than the allow-list") && reason.contains(added.trim_end()), "{reason}");
    assert_eq!(serving, Some(build_of(&one)));

    // The line that it says is the one to add.
    write_list(&folder.path, &format!("{}{added}", line(FILE, &one)));
    folder.loads("what is listed by now", &two).await;

    // Both are listed, under this name and no other.
    install(&folder.path, FILE, &one);
    folder.loads("what is listed still", &one).await;
    install(&folder.path, "libother.so", &two);
    let (reason, _) = folder.refuses("libother.so").await;
    assert!(reason.contains(&format!("as {FILE}, not under its name")), "{reason}");
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_used_stops_what_is_new_and_nothing_else() {
    let (one, two) = (build_labelled(1), build_labelled(2));
    let fill = |path: &Path| {
        install(path, FILE, &one);
        write_list(path, &line(FILE, &one));
    };
    let mut folder = Watched::start_with(fill, by_list).await;
    folder.loads("what is listed", &one).await;
    let list = list_of(&folder.path).display().to_string();

    write_list(&folder.path, &format!("{}{}nonsense\n", line(FILE, &one), line(FILE, &two)));
    let (reason, _) = folder.refuses(&list).await;
    assert!(reason.contains("is damaged in line 3") && reason.contains("what serves goes on"), "{reason}");
    install(&folder.path, FILE, &two);
    let (reason, serving) = folder.refuses(FILE).await;
    assert!(reason.contains(&list) && reason.contains("line 3"), "{reason}");
    assert_eq!(serving, Some(build_of(&one)));

    let unsafe_list = list_of(&folder.path);
    fs::set_permissions(&unsafe_list, fs::Permissions::from_mode(0o666)).expect("set permissions");
    let (reason, _) = folder.refuses(&list).await;
    assert!(reason.contains("is not safe: others may write to it"), "{reason}");
    // For another reason than before, which is news.
    folder.refuses(FILE).await;
    fs::remove_file(&unsafe_list).expect("remove the list");
    let (reason, _) = folder.refuses(&list).await;
    assert!(reason.contains("does not exist"), "{reason}");
    folder.refuses(FILE).await;

    write_list(&folder.path, &line(FILE, &two));
    folder.loads("the list is mended", &two).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_needs_the_signature_of_a_trusted_key_and_gets_another_look_when_that_arrives() {
    let (trusted, other, stranger) = (key(), key(), key());
    let (one, two) = (build_labelled(1), build_labelled(2));
    let fill = |path: &Path| {
        install(path, FILE, &one);
        install(path, &signature_of(FILE), &sign(&trusted, &one));
    };
    let keys = vec![other.pk.to_base64(), trusted.pk.to_base64()];
    let mut folder = Watched::start_with(fill, |settings| settings.trusted_keys = keys).await;
    // A signature is nothing that somebody may have meant to be a task.
    let skipped = folder.next().await;
    assert!(matches!(skipped, Event::FileSkipped { unexpected: false, .. }), "{skipped:?}");
    folder.loads("what is signed", &one).await;

    install(&folder.path, FILE, &two);
    let (reason, serving) = folder.refuses(FILE).await;
    assert!(reason.contains("is not of this file's contents") && reason.contains("minisign -Sm"), "{reason}");
    assert_eq!(serving, Some(build_of(&one)));
    install(&folder.path, &signature_of(FILE), &sign(&stranger, &two));
    let (reason, _) = folder.refuses(FILE).await;
    assert!(reason.contains("is by none of the keys"), "{reason}");
    install(&folder.path, &signature_of(FILE), b"nonsense");
    let (reason, _) = folder.refuses(FILE).await;
    assert!(reason.contains("is none of minisign"), "{reason}");
    fs::remove_file(folder.path.join(signature_of(FILE))).expect("remove the signature");
    let (reason, _) = folder.refuses(FILE).await;
    assert!(reason.contains("has no signature"), "{reason}");

    install(&folder.path, &signature_of(FILE), &sign(&other, &two));
    let skipped = folder.next().await;
    assert!(matches!(skipped, Event::FileSkipped { unexpected: false, .. }), "{skipped:?}");
    folder.loads("signed by the other key", &two).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executables_need_the_same() {
    let trusted = key();
    let fill = |path: &Path| {
        install(path, "listed.sh", SCRIPT);
        install(path, &signature_of("listed.sh"), &sign(&trusted, SCRIPT));
        write_list(path, &format!("{}{}", line("listed.sh", SCRIPT), line("unsigned.sh", SCRIPT)));
        install(path, "unsigned.sh", SCRIPT);
        install(path, "unlisted.sh", SCRIPT);
        install(path, &signature_of("unlisted.sh"), &sign(&trusted, SCRIPT));
    };
    let adjust = |settings: &mut FolderSettings| {
        by_list(settings);
        settings.trusted_keys = vec![trusted.pk.to_base64()];
    };
    let folder = Watched::start_with(fill, adjust).await;
    let refused: Vec<(&str, bool)> = folder
        .rejections
        .iter()
        .map(|refused| (refused.file.as_str(), refused.reason.contains("has no signature")))
        .collect();
    assert_eq!(refused, [("unlisted.sh", false), ("unsigned.sh", true)], "{:?}", folder.rejections);
    let tasks: Vec<String> = folder.map.load().identifiers().map(str::to_owned).collect();
    assert_eq!(tasks, ["listed"]);
    folder.stop().await;
}

/// Asking a plugin what it is runs its constructors, so a file that is not listed is not asked.
#[test]
fn the_commands_that_look_at_files_go_by_list_and_signatures_too() {
    let home = tasks_folder();
    let (good, bad) = (build_labelled(1), build_that("load-crash"));
    install(home.path(), FILE, &good);
    install(home.path(), "libcrash.so", &bad);
    install(home.path(), "SHA256SUMS", line(FILE, &good).as_bytes());
    let list = home.path().join("SHA256SUMS");
    let said = |output: Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let plugins = said(Taskbay::command("plugins").arg(home.path()).arg("--manifest").arg(&list).output());
    assert!(plugins.contains("is not in the allow-list") && plugins.contains("ok: "), "{plugins}");
    let file = home.path().join("libcrash.so");
    let check = || Taskbay::command("check").arg(&file);
    assert!(said(check().output()).contains("constructor crashed"));
    assert!(said(check().env("TASKBAY_MANIFEST", &list).output()).contains("is not in the allow-list"));
    let signed = said(check().args(["--trusted-key", &key().pk.to_base64()]).output());
    assert!(signed.contains("has no signature"), "{signed}");
}

/// A file that is broken is refused for that, and what is no task is passed over, so neither of them speaks of the list.
#[test]
fn the_command_that_looks_at_a_folder_says_once_that_its_list_cannot_be_used() {
    let home = tasks_folder();
    let folder = home.path().join("tasks");
    fs::create_dir(&folder).expect("a tasks folder");
    let list = list_of(&folder);
    let look = || Taskbay::command("plugins").arg(&folder).arg("--manifest").arg(&list).arg("--json").output();
    let says = |found: &str, files: usize| {
        let output = look();
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let reports: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON on stdout");
        assert_eq!((output.status.code(), reports.len()), (Some(1), files), "{out}{said}");
        assert_eq!(said.matches(&format!("the allow-list {} {found}", list.display())).count(), 1, "{said}");
        assert!(said.contains("sha256sum") && said.contains("--manifest"), "{said}");
    };
    says("does not exist", 0);
    fs::write(folder.join("unmarked.sh"), SCRIPT).expect("a script that is not executable");
    says("does not exist", 1);
    write_list(&folder, "nonsense\n");
    install(&folder, "libempty.so", b"");
    says("is damaged in line 1", 2);
    fs::remove_file(folder.join("libempty.so")).expect("remove the broken file");
    write_list(&folder, "");
    let output = look();
    assert!(output.status.success() && output.stderr.is_empty(), "a list that can be used: {output:?}");
}
