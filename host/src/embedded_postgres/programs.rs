//! The server programs of this machine.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest version of Postgres that can be used.
pub(super) const OLDEST: u32 = 12;

/// Folders with one folder per version: what is before the version, and after it.
const VERSIONED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];
const FIXED: [&str; 4] = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin"];

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    /// The major version.
    pub(super) version: u32,
}

/// All installed versions that can be used, the newest first.
pub(super) fn find_all() -> Vec<Programs> {
    let mut seen = HashSet::new();
    let mut found: Vec<Programs> = folders()
        .into_iter()
        .filter_map(|folder| {
            let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
            let real = postgres.canonicalize().ok()?;
            if !initdb.is_file() || !seen.insert(real) {
                return None;
            }
            let version = version_of(&postgres)?;
            (version >= OLDEST).then_some(Programs { initdb, postgres, version })
        })
        .collect();
    // Stable: of the same version, the one on PATH stays first.
    found.sort_by_key(|programs| std::cmp::Reverse(programs.version));
    found
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").iter().flat_map(|path| env::split_paths(path).collect::<Vec<_>>()).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, prefix, below) in VERSIONED {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let versions = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        folders.extend(versions.map(|entry| entry.path().join(below)));
    }
    folders.extend(FIXED.map(PathBuf::from));
    folders.retain(|folder| folder.is_absolute());
    folders
}

fn version_of(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `17beta1`.
fn parse_version(line: &str) -> Option<u32> {
    let version = line.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_server_prints() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_version("sh: not found"), None);
    }
}
