//! Whether others may write to a folder or file, and could thus run code as this user.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::StatVfsMountFlags;

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Whether nothing can be written through the mount that a file or folder is on, whatever the mode bits allow.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

pub(super) fn is_read_only_file(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Why a file could be another user's doing. `read_only` is asked only if its mode lets others write to it.
pub(super) fn unsafe_file(metadata: &fs::Metadata, read_only: impl FnOnce() -> bool) -> Option<String> {
    if !is_trusted(metadata.uid()) {
        return Some(format!(
            "it belongs to user {}; chown it to the user that taskbay runs as, or to root",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 && !read_only() {
        return Some(format!("others may write to it (mode {:04o}); chmod go-w it", metadata.mode() & 0o7777));
    }
    if metadata.mode() & 0o6000 != 0 {
        return Some("it has the setuid or setgid bit, which a plugin has no use for; chmod ug-s it".to_owned());
    }
    None
}

/// The same for a file that is not open.
pub(super) fn unsafe_file_at(path: &Path, metadata: &fs::Metadata) -> Option<String> {
    unsafe_file(metadata, || is_read_only(path))
}

/// Why others could put something into a folder, or put another folder in its place.
pub(super) fn unsafe_folder(real: &Path) -> Option<String> {
    real.ancestors().enumerate().find_map(|(depth, folder)| {
        let metadata = fs::metadata(folder).ok()?;
        // In a sticky folder such as /tmp nobody can replace what belongs to another; but anybody can add to it.
        let sticky = depth > 0 && metadata.mode() & 0o1000 != 0;
        lax_folder(folder, &metadata).filter(|_| !sticky || !is_trusted(metadata.uid()))
    })
}

/// Why others could put something into this very folder.
pub(super) fn lax_folder(folder: &Path, metadata: &fs::Metadata) -> Option<String> {
    let shown = folder.display();
    if !is_trusted(metadata.uid()) {
        return Some(format!(
            "{shown} belongs to user {}; chown it to the user that taskbay runs as, or to root",
            metadata.uid()
        ));
    }
    (metadata.mode() & 0o022 != 0 && !is_read_only(folder))
        .then(|| format!("others may write to {shown} (mode {:04o}); chmod go-w it", metadata.mode() & 0o7777))
}
