//! Processes of a PostgreSQL server: as whom they run, and how they end.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Whom the server runs as where the tests run as root, whom it refuses.
const USER: &str = "postgres";
/// How long the server may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at whether a process is gone.
const GONE_POLL: Duration = Duration::from_millis(2);

/// Whom the server's processes and files belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// User and group; `None` where it is whoever runs the tests.
    ids: Option<(u32, u32)>,
}

impl Owner {
    /// Whoever runs the tests; the user `postgres` where that is root.
    pub(super) fn find() -> Result<Self> {
        // SAFETY: it has no preconditions and can't fail.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(Self { ids: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let ids = passwd.lines().find_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
            [USER, _, user, group, ..] => Some((user.parse().ok()?, group.parse().ok()?)),
            _ => None,
        });
        Ok(Self { ids: Some(ids.context("there is no user `postgres`; apt-get install postgresql creates it")?) })
    }

    /// One of PostgreSQL's programs, or another, run as the owner.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(executable(program));
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a file or folder the owner's.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        match self.ids {
            Some((user, group)) => Ok(std::os::unix::fs::chown(path, Some(user), Some(group))?),
            None => Ok(()),
        }
    }

    /// What tells files of one owner from those of another.
    pub(super) fn user(&self) -> u32 {
        // SAFETY: it has no preconditions and can't fail.
        self.ids.map_or_else(|| unsafe { libc::geteuid() }, |(user, _)| user)
    }
}

/// Kills the server and its children, and returns once they are gone: a new server refuses the data until then.
pub(super) fn kill_with_children(mut server: Child) {
    let pid = server.id();
    // A server that stands still can't start another child while they are counted.
    signal(pid, libc::SIGSTOP);
    wait_until(|| state(pid).is_none_or(|state| matches!(state, 'T' | 'Z')));
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    for child in &children {
        signal(*child, libc::SIGKILL);
    }
    let _ = server.kill();
    let _ = server.wait();
    wait_until(|| children.iter().all(|child| state(*child).is_none_or(|state| state == 'Z')));
}

/// Ends the server at once, and with it what it holds of the system; its data need recovery.
pub(super) fn stop(mut server: Child) {
    signal(server.id(), libc::SIGQUIT);
    if !wait_until(|| matches!(server.try_wait(), Ok(Some(_)))) {
        kill_with_children(server);
    }
}

#[expect(clippy::disallowed_methods, reason = "a process that is nobody's child here gives no signal")]
fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > STOP_DEADLINE {
            return false;
        }
        std::thread::sleep(GONE_POLL);
    }
    true
}

/// The state in `/proc`; `None` where there is no such process.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn signal(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: it has no preconditions; the process is a child of this one, or of such a child.
        unsafe { libc::kill(pid, signal) };
    }
}

/// On the path, or where Debian puts PostgreSQL's programs.
fn executable(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort();
    let folders = std::env::split_paths(&path).chain(debian.into_iter().rev()).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap_or_else(|| program.into())
}
