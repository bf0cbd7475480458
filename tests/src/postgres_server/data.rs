//! The data of a new server. `initdb` takes seconds, so it runs once a machine, and servers begin with a copy.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::Owner;

/// Part of the template's name: whoever changes how it is made makes it another.
const TEMPLATE_VERSION: u32 = 1;
/// The superuser needs no password; every other role needs one over TCP.
const HBA: &str = "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n";

/// Makes `data` a new server's data.
pub(super) fn copy_template(owner: &Owner, data: &Path) -> Result<()> {
    let template = template(owner)?;
    run(owner.command("cp").args(["--archive", "--sparse=always"]).arg(template).arg(data))
}

/// Makes the template where it is missing; other processes wait meanwhile.
fn template(owner: &Owner) -> Result<PathBuf> {
    let output = owner.command("postgres").arg("--version").output();
    let output = output.context("postgres could not be started; install it: apt-get install postgresql")?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version.split_whitespace().nth(2).unwrap_or("unknown").to_owned();
    let name = format!("wirehook-postgres-template-{TEMPLATE_VERSION}-{version}-{}", owner.user());
    let template = std::env::temp_dir().join(name);
    let lock = File::create(template.with_added_extension("lock"))?;
    lock.lock()?;
    if template.is_dir() {
        return Ok(template);
    }
    let unfinished = template.with_added_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir(&unfinished)?;
    owner.give(&unfinished)?;
    let mut initdb = owner.command("initdb");
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
    run(initdb.arg(&unfinished).current_dir(&unfinished))?;
    std::fs::write(unfinished.join("pg_hba.conf"), HBA)?;
    std::fs::rename(&unfinished, &template)?;
    Ok(template)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} could not be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed, {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
