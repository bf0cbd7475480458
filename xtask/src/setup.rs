//! Installs what is missing, and says exactly what to run where it can't.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{Run, find_program, heading};

/// How much of it a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// What builds and runs the host and its plugins.
    Build,
    /// Also what the tests run and the checks use.
    Everything,
}

/// Something that may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// A target of the Rust toolchain.
    Target(&'static str),
    /// A component of the Rust toolchain: its name, and the program that shows it.
    Component(&'static str, &'static str),
    /// A program: its name, and Debian's package.
    Program(&'static str, &'static str),
}

const BUILD: [Part; 3] =
    [Part::Target("wasm32-unknown-unknown"), Part::Target("wasm32-wasip2"), Part::Program("cc", "build-essential")];

const CHECKS: [Part; 4] = [
    Part::Component("rustfmt", "cargo-fmt"),
    Part::Component("clippy", "cargo-clippy"),
    Part::Program("nats-server", "nats-server"),
    Part::Program("python3", "python3"),
];

/// Looks, installs, and looks again.
pub(crate) fn run(needs: Needs) -> Result<()> {
    let wanted = || BUILD.iter().chain(if needs == Needs::Everything { &CHECKS[..] } else { &[] }).copied();
    let sysroot = sysroot()?;
    let missing: Vec<Part> = wanted().filter(|part| !is_there(*part, &sysroot)).collect();
    if missing.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    heading(&format!("setup: installing {}", missing.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ")));
    install_rust_parts(&missing)?;
    install_packages(&missing)?;
    match missing.iter().find(|part| !is_there(**part, &sysroot)) {
        Some(part) => bail!("{} was installed, and is still not found; is it in PATH?", part.name()),
        None => Ok(()),
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Target(name) | Self::Component(name, _) | Self::Program(name, _) => name,
        }
    }
}

fn sysroot() -> Result<PathBuf> {
    let printed = Run::new("rustc", "install Rust 1.95 or later").args(["--print", "sysroot"]).output()?;
    Ok(PathBuf::from(printed.trim()))
}

fn is_there(part: Part, sysroot: &Path) -> bool {
    match part {
        Part::Target(target) => sysroot.join("lib/rustlib").join(target).join("lib").is_dir(),
        Part::Component(_, program) => {
            sysroot.join("bin").join(program).is_file() || !is_rustups(sysroot) && find_program(program).is_some()
        }
        Part::Program(program, _) => find_program(program).is_some(),
    }
}

/// Under rustup every component's program is in PATH, as a proxy that may lead nowhere.
fn is_rustups(sysroot: &Path) -> bool {
    sysroot.parent().is_some_and(|folder| folder.ends_with("toolchains"))
}

fn install_rust_parts(missing: &[Part]) -> Result<()> {
    let targets: Vec<_> =
        missing.iter().filter(|part| matches!(part, Part::Target(_))).map(|part| part.name()).collect();
    let components: Vec<_> =
        missing.iter().filter(|part| matches!(part, Part::Component(..))).map(|part| part.name()).collect();
    for (kind, names) in [("target", targets), ("component", components)] {
        if names.is_empty() {
            continue;
        }
        if find_program("rustup").is_none() {
            let names = names.join(" ");
            bail!(
                "the Rust toolchain lacks {names} and there is no rustup: install rustup, then run `rustup {kind} add {names}`, or install your system's packages of them"
            );
        }
        Run::new("rustup", "check the network, then run it again").args([kind, "add"]).args(names).success()?;
    }
    Ok(())
}

fn install_packages(missing: &[Part]) -> Result<()> {
    let packages: Vec<_> = missing
        .iter()
        .filter_map(|part| if let Part::Program(_, package) = part { Some(*package) } else { None })
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() || !is_root()? {
        bail!("{}", instructions(missing, find_program("apt-get").is_some()));
    }
    // A machine that never asked its registry knows no package at all; one that did needs no second look.
    if apt_install(&packages).success().is_err() {
        apt("check the network, then run it again").arg("update").success()?;
        apt_install(&packages).success()?;
    }
    Ok(())
}

fn apt(advice: &'static str) -> Run {
    Run::new("apt-get", advice).env("DEBIAN_FRONTEND", "noninteractive")
}

fn apt_install(packages: &[&str]) -> Run {
    apt("install the packages by hand, then run it again")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
}

fn is_root() -> Result<bool> {
    Ok(Run::new("id", "it is part of every Unix").arg("-u").output()?.trim() == "0")
}

/// What a person has to run.
fn instructions(missing: &[Part], has_apt: bool) -> String {
    let programs = missing
        .iter()
        .filter_map(|part| if let Part::Program(name, package) = part { Some((*name, *package)) } else { None });
    let (names, packages): (Vec<_>, Vec<_>) = programs.unzip();
    let (names, packages) = (names.join(", "), packages.join(" "));
    if has_apt {
        format!(
            "{names} missing, and only root may install: run `sudo apt-get update && sudo apt-get install --yes {packages}`, then this again"
        )
    } else {
        format!(
            "{names} missing, and there is no apt-get: install what Debian calls {packages} with your system's package manager (Homebrew: `brew install nats-server python`; Xcode's tools bring cc), then run this again"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, instructions, is_there};

    #[test]
    fn instructions_name_what_is_missing_and_nothing_else() {
        let missing = [
            Part::Target("wasm32-wasip2"),
            Part::Program("cc", "build-essential"),
            Part::Program("python3", "python3"),
        ];
        let text = instructions(&missing, true);
        assert!(text.contains("sudo apt-get install --yes build-essential python3`"), "{text}");
        assert!(!text.contains("wasip2") && !text.contains("nats"), "{text}");
        assert!(instructions(&missing, false).contains("Homebrew"));
    }

    #[test]
    fn parts_are_looked_for_where_they_would_be() {
        let sysroot = super::sysroot().expect("a toolchain");
        assert!(!is_there(Part::Target("wasm32-nowhere"), &sysroot));
        assert!(!is_there(Part::Program("no-such-program-at-all", ""), &sysroot));
        assert!(is_there(Part::Program("sh", ""), &sysroot));
    }
}
