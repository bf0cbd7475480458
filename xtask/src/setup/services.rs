//! Keeps Debian's packages from starting what they install: the tests start servers of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{Run, find_program};

/// What Debian's packages ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// There while systemd is the machine's first process.
const SYSTEMD: &str = "/run/systemd/system";

/// 101: the action is not allowed.
const DENIAL: &str = "#!/bin/sh\n# Of `cargo xtask setup`, while it installs servers for tests.\nexit 101\n";

/// No package starts a service until this is dropped.
#[derive(Debug)]
pub(super) struct Denied {
    policy: PathBuf,
}

impl Denied {
    /// On this machine.
    pub(super) fn now() -> Result<Self> {
        Self::at(Path::new(POLICY))
    }

    /// A policy that is there already is the machine's own, as in most containers, and stays.
    fn at(policy: &Path) -> Result<Self> {
        if !policy.exists() || is_ours(policy) {
            fs::write(policy, DENIAL).with_context(|| format!("writing {}", policy.display()))?;
            fs::set_permissions(policy, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making {} executable", policy.display()))?;
        }
        Ok(Self { policy: policy.to_owned() })
    }
}

/// Allows again what a setup denied that was interrupted before it could.
pub(super) fn allow_again() {
    drop(Denied { policy: POLICY.into() });
}

impl Drop for Denied {
    fn drop(&mut self) {
        if is_ours(&self.policy)
            && let Err(error) = fs::remove_file(&self.policy)
        {
            eprintln!("warning: {} could not be removed ({error}): remove it by hand", self.policy.display());
        }
    }
}

fn is_ours(policy: &Path) -> bool {
    fs::read_to_string(policy).is_ok_and(|text| text == DENIAL)
}

/// Services that were just installed stay down at the next start of the machine too. Where systemd doesn't run, nothing
/// would start them.
pub(super) fn disable(services: &[&str]) -> Result<()> {
    if services.is_empty() || !Path::new(SYSTEMD).is_dir() || find_program("systemctl").is_none() {
        return Ok(());
    }
    Run::new("systemctl", "stop and disable these services by hand")
        .args(["disable", "--now", "--quiet"])
        .args(services)
        .success()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{DENIAL, Denied};

    #[test]
    fn services_are_denied_while_packages_are_installed_and_no_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        let denied = Denied::at(&policy).expect("it is written");
        let mode = fs::metadata(&policy).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let status = std::process::Command::new(&policy).args(["redis-server", "start"]).status().expect("it runs");
        assert_eq!(status.code(), Some(101));
        drop(denied);
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays_and_one_left_behind_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        for (before, after) in [("#!/bin/sh\nexit 104\n", true), (DENIAL, false)] {
            fs::write(&policy, before).expect("writable");
            drop(Denied::at(&policy).expect("it is taken over"));
            assert_eq!(policy.exists(), after, "{before}");
        }
    }

    #[test]
    fn no_policy_can_be_written_where_there_is_no_folder() {
        let error = Denied::at("/nowhere/at-all/policy-rc.d".as_ref()).expect_err("no such folder");
        assert_eq!(error.to_string(), "writing /nowhere/at-all/policy-rc.d");
    }
}
