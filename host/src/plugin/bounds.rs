//! The restrictions of a process that runs the code of a plugin or executable. The process sets them itself, before it loads
//! that code.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{LaunchError, PluginSettings, libc_calls};

/// The bounds of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    open_files: Option<u64>,
    processes: Option<u64>,
    account: Option<Account>,
    /// In bytes. Empty for a plugin's process, which has to load the plugin before it limits its memory.
    memory: Option<u64>,
}

/// A user of this machine, from the system's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    name: String,
    home: String,
    user: u32,
    group: u32,
    /// All groups of the user.
    groups: Vec<u32>,
}

impl Bounds {
    /// The restrictions from the settings, if this host can set them.
    pub(super) fn of(settings: &PluginSettings) -> Result<Self, LaunchError> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (open_files, processes) = (settings.open_files.map(count), settings.processes.map(count));
        check_against_own("open_files", open_files, Resource::Nofile)?;
        check_against_own("processes", processes, Resource::Nproc)?;
        Ok(Self {
            open_files,
            processes,
            account: match &settings.user {
                Some(name) => Account::to_change_to(name)?,
                None => None,
            },
            memory: None,
        })
    }

    /// The restrictions of an executable's process, which include its memory limit from the start.
    pub(super) fn of_executable(settings: &PluginSettings) -> Result<Self, LaunchError> {
        check_against_own("memory_limit", settings.memory_limit, Resource::Data)?;
        Ok(Self { memory: settings.memory_limit, ..Self::of(settings)? })
    }

    /// The memory limit in bytes, if there is one.
    pub(super) fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Sets the user's environment variables for a process.
    pub(super) fn name_user(&self, command: &mut Command) {
        if let Some(Account { name, home, .. }) = &self.account {
            command.env("HOME", home).env("USER", name).env("LOGNAME", name);
        }
    }

    /// Restricts this process. It only makes system calls, so it may be called after a fork. A change of the user resets the
    /// signal for the parent's death.
    pub(super) fn keep(&self) -> io::Result<()> {
        if let Some(limit) = self.open_files {
            setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
        if let Some(Account { user, group, groups, .. }) = &self.account {
            libc_calls::change_user(*user, *group, groups)?;
        }
        // The kernel counts the processes of this process's user.
        if let Some(limit) = self.processes {
            setrlimit(Resource::Nproc, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
        limit_memory(self.memory)
    }
}

/// Refuses a limit above this process's own, which only root can raise.
fn check_against_own(key: &str, limit: Option<u64>, resource: Resource) -> Result<(), LaunchError> {
    let own = getrlimit(resource).maximum;
    match (limit, own) {
        (Some(limit), Some(own)) if limit > own && !rustix::process::geteuid().is_root() => Err(LaunchError::Setting {
            key: key.to_owned(),
            reason: format!(
                "its setting {key} is {limit}, and this host is itself limited to {own}: lower it, or raise the host's limit"
            ),
        }),
        _ => Ok(()),
    }
}

/// Limits the memory, in bytes, of this process and of each process that it starts. It only makes a system call.
pub(super) fn limit_memory(limit: Option<u64>) -> io::Result<()> {
    if limit.is_some() {
        setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

impl Account {
    /// `None`: this process already runs as that user.
    fn to_change_to(name: &str) -> Result<Option<Self>, LaunchError> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let Some(account) = Self::find(&read("/etc/passwd"), &read("/etc/group"), name) else {
            return Err(of_user(format!(
                "its setting user is {name:?}, and there is no such user in /etc/passwd: name another one, or leave it out"
            )));
        };
        let this = rustix::process::geteuid();
        if account.user == this.as_raw() {
            return Ok(None);
        }
        if !this.is_root() {
            return Err(of_user(format!(
                "its setting user is {name:?}, and only a host that runs as root can start processes as another user: run it as \
                 root, or leave the setting out"
            )));
        }
        Ok(Some(account))
    }

    fn find(passwd: &str, group: &str, name: &str) -> Option<Self> {
        let mut fields = passwd
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut line| (line.next() == Some(name)).then_some(line))?;
        let user = fields.nth(1)?.parse().ok()?;
        let own_group = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/").to_owned();
        let others = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_in = fields.get(3)?.split(',').any(|member| member == name);
            fields[2].parse().ok().filter(|_| is_in)
        });
        let groups = std::iter::once(own_group).chain(others.filter(|other| *other != own_group)).collect();
        Some(Self { name: name.to_owned(), home, user, group: own_group, groups })
    }
}

/// A thread of a plugin needs this much memory for its stack, and some more.
const ROOM_FOR_A_THREAD: u64 = 3 << 20;

/// Whether the memory limit of a process, by its name in `/proc`, leaves too little for another thread.
pub(super) fn is_used_up(process: &str, limit: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let used = data.and_then(|data| data.trim().strip_suffix(" kB")).and_then(|data| data.parse::<u64>().ok());
    used.is_some_and(|used| (used << 10) + ROOM_FOR_A_THREAD > limit)
}

/// The reason why the setting `user` cannot be applied.
pub(super) fn of_user(reason: String) -> LaunchError {
    LaunchError::Setting { key: "user".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_all_groups_by_the_whole_name() {
        let passwd = "mailer:x:7:8:,:/a:/bin/sh\nmail:x:101:104:Mail,,:/var/mail:/usr/sbin/nologin\nbroken:x\n";
        let group = "mail:x:104:\ndocker:x:12:other,mail\nno:x:13:mailer\nbroken\nagain:x:104:mail\n";
        let found = Account::find(passwd, group, "mail").unwrap();
        assert_eq!((found.user, found.group, &*found.groups, &*found.home), (101, 104, &[104, 12][..], "/var/mail"));
        assert_eq!(Account::find(passwd, group, "broken"), None);
        assert_eq!(Account::find(passwd, group, "nobody"), None);
    }
}
