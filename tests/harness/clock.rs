//! The wall clock of single programs, which a test sets while they run. See `tests/clock-jump`.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use super::plugins::plugin;

/// A clock of its own for all programs that get its [environment](Self::environment), and for what they start.
#[derive(Debug)]
pub struct JumpingClock {
    offset: fs::File,
    environment: [(&'static str, PathBuf); 2],
}

impl JumpingClock {
    /// One that is right. What it needs is put into a folder, where other accounts may read it if they may reach it.
    pub fn new(folder: &Path) -> Self {
        let (library, file) = (folder.join("clock-jump.so"), folder.join("clock-offset"));
        assert!(!folder.as_os_str().as_bytes().contains(&b' '), "the linker takes spaces for the ends of names");
        // The target's folder may be closed to the account of a server.
        fs::copy(plugin("clock-jump"), &library).expect("copy the library");
        fs::write(&file, 0_i64.to_ne_bytes()).expect("create the file of the clock");
        for (file, mode) in [(&library, 0o755), (&file, 0o644)] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("let others read it");
        }
        let offset = fs::File::options().write(true).open(&file).expect("open the file of the clock");
        Self { offset, environment: [("LD_PRELOAD", library), ("CLOCK_JUMP_FILE", file)] }
    }

    pub fn environment(&self) -> &[(&'static str, PathBuf)] {
        &self.environment
    }

    /// From now on it is so many seconds ahead, or behind.
    pub fn set(&self, ahead: i64) {
        let micros = ahead * 1_000_000;
        // One write of eight bytes is seen as a whole.
        self.offset.write_all_at(&micros.to_ne_bytes(), 0).expect("set the clock");
    }
}
