//! Installs what is missing, and says exactly what to run where it can't.

mod c;
pub(crate) mod go;
pub(crate) mod python;
mod js;
pub(crate) mod lists;
mod services;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use self::lists::Lists;
use self::services::Denied;
use crate::command::{Run, find_program, heading};
use crate::paths::Paths;

/// How much of it a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// What builds and runs the host and its plugins, whatever their language.
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
    /// A file that clang needs for WebAssembly.
    Clang(c::File),
    /// The Go toolchain.
    Go,
    /// What Python needs to make environments: a module of its own that Debian packs apart.
    Venv,
    /// componentize-py and pytest.
    Python,
    /// The packages of npm that build plugins in JavaScript.
    JsTools,
    /// The libraries of npm and PyPI that verify webhooks.
    Verifiers,
    /// A server that the tests start: its program, Debian's package, and the service that it brings.
    Server(&'static str, &'static str, &'static str),
}

const BUILD: [Part; 3] =
    [Part::Target("wasm32-unknown-unknown"), Part::Target("wasm32-wasip2"), Part::Program("cc", "build-essential")];

const LANGUAGES: [Part; 12] = [
    Part::Program("python3", "python3"),
    Part::Program("pip3", "python3-pip"),
    Part::Go,
    Part::Venv,
    Part::Python,
    Part::Program("node", "nodejs"),
    Part::Program("npm", "npm"),
    Part::JsTools,
    Part::Program("clang", "clang"),
    Part::Program("wasm-ld", "lld"),
    Part::Clang(c::File::Libc),
    Part::Clang(c::File::Builtins),
];

const CHECKS: [Part; 10] = [
    Part::Component("rustfmt", "cargo-fmt"),
    Part::Component("clippy", "cargo-clippy"),
    Part::Server("nats-server", "nats-server", "nats-server"),
    Part::Server("redis-server", "redis-server", "redis-server"),
    Part::Server("postgres", POSTGRES, POSTGRES),
    // Between the host and PostgreSQL, as in most installations.
    Part::Server("pgbouncer", "pgbouncer", "pgbouncer"),
    // A receiver that closes connections and refuses streams as receivers do.
    Part::Server("nginx", "nginx-light", "nginx"),
    // Its `promtool` judges metrics and alerts.
    Part::Server("promtool", "prometheus", "prometheus"),
    Part::Verifiers,
    // Steps the clock of one process.
    Part::Program("faketime", "faketime"),
];

/// Whichever PostgreSQL the system has; see [`package_here`].
const POSTGRES: &str = "postgresql";

/// Looks, installs, and looks again.
pub(crate) fn run(needs: Needs, paths: &Paths) -> Result<()> {
    let checks: &[Part] = if needs == Needs::Everything { &CHECKS } else { &[] };
    let wanted = || BUILD.iter().chain(&LANGUAGES).chain(checks).copied();
    let sysroot = sysroot()?;
    services::allow_again();
    let missing: Vec<Part> = wanted().filter(|part| !is_there(*part, &sysroot, paths)).collect();
    if missing.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    heading(&format!("setup: installing {}", missing.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ")));
    install_rust_parts(&missing)?;
    install_packages(&missing)?;
    if missing.contains(&Part::Go) {
        go::install(paths)?;
    }
    if missing.contains(&Part::Python) {
        python::install(paths)?;
    }
    if missing.contains(&Part::JsTools) {
        js::install(paths)?;
    }
    if missing.contains(&Part::Verifiers) {
        Lists::VERIFIERS.install(paths)?;
    }
    match missing.iter().find(|part| !is_there(**part, &sysroot, paths)) {
        Some(part) => bail!("{} was installed, and is still not found; is it in PATH?", part.name()),
        None => Ok(()),
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Venv => "python3-venv",
            Self::Python => "componentize-py",
            Self::JsTools => "componentize-qjs",
            Self::Verifiers => "standardwebhooks",
            Self::Clang(file) => file.name(),
            Self::Target(name) | Self::Component(name, _) | Self::Program(name, _) | Self::Server(name, ..) => name,
        }
    }

    /// Debian's package, where it is one that brings it.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Program(_, package) | Self::Server(_, package, _) => Some(package),
            Self::Clang(file) => Some(file.package()),
            Self::Venv => Some("python3-venv"),
            Self::Target(_) | Self::Component(..) | Self::Go | Self::Python | Self::JsTools | Self::Verifiers => None,
        }
    }

    /// What its package would have the machine start.
    fn service(self) -> Option<&'static str> {
        if let Self::Server(_, _, service) = self { Some(service) } else { None }
    }
}

fn sysroot() -> Result<PathBuf> {
    let printed = Run::new("rustc", "install Rust 1.95 or later").args(["--print", "sysroot"]).output()?;
    Ok(PathBuf::from(printed.trim()))
}

fn is_there(part: Part, sysroot: &Path, paths: &Paths) -> bool {
    match part {
        Part::Go => go::folder(paths).is_some(),
        Part::Venv => python::makes_environments(),
        Part::Python => python::is_there(paths),
        Part::JsTools => js::is_there(paths),
        Part::Verifiers => Lists::VERIFIERS.are_there(paths),
        Part::Clang(file) => file.is_there(),
        Part::Target(target) => sysroot.join("lib/rustlib").join(target).join("lib").is_dir(),
        Part::Component(_, program) => {
            sysroot.join("bin").join(program).is_file() || !is_rustups(sysroot) && find_program(program).is_some()
        }
        Part::Program(program, _) | Part::Server(program, ..) => find_program(program).is_some(),
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
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let packages: Vec<_> =
        missing.iter().filter_map(|part| part.package()).map(|package| package_here(package, &os_release)).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() || !is_root()? {
        bail!("{}", instructions(missing, &packages, find_program("apt-get").is_some()));
    }
    let denied = Denied::now()?;
    // A machine that never asked its registry knows no package at all; one that did needs no second look.
    if apt_install(&packages).success().is_err() {
        apt("check the network, then run it again").arg("update").success()?;
        apt_install(&packages).success()?;
    }
    drop(denied);
    services::disable(&missing.iter().filter_map(|part| part.service()).collect::<Vec<_>>())
}

/// Bookworm's PostgreSQL by its version, which is the oldest that is tested; elsewhere the system's own.
fn package_here(package: &'static str, os_release: &str) -> &'static str {
    let is_bookworm = os_release.lines().any(|line| line.trim() == "VERSION_CODENAME=bookworm");
    if package == POSTGRES && is_bookworm { "postgresql-15" } else { package }
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
fn instructions(missing: &[Part], packages: &[&str], has_apt: bool) -> String {
    let names = missing.iter().filter(|part| part.package().is_some()).map(|part| part.name());
    let (names, packages) = (names.collect::<Vec<_>>().join(", "), packages.join(" "));
    if has_apt {
        format!(
            "{names} missing, and only root may install: run `sudo apt-get update && sudo apt-get install --yes {packages}`, then this again"
        )
    } else {
        format!(
            "{names} missing, and there is no apt-get: install what Debian calls {packages} with your system's package manager (Homebrew: `brew install nats-server redis postgresql prometheus python`; Xcode's tools bring cc), then run this again"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKS, POSTGRES, Part, instructions, is_there, package_here};
    use crate::paths::Paths;

    #[test]
    fn instructions_name_what_is_missing_and_nothing_else() {
        let missing = [
            Part::Target("wasm32-wasip2"),
            Part::Program("cc", "build-essential"),
            Part::Program("python3", "python3"),
        ];
        let packages = ["build-essential", "python3"];
        let text = instructions(&missing, &packages, true);
        assert!(text.starts_with("cc, python3 missing"), "{text}");
        assert!(text.contains("sudo apt-get install --yes build-essential python3`"), "{text}");
        assert!(!text.contains("wasip2") && !text.contains("nats"), "{text}");
        assert!(instructions(&missing, &packages, false).contains("Homebrew"));
    }

    #[test]
    fn postgresql_is_debians_where_its_version_is_known_and_else_the_systems() {
        let check = |package, os_release, expected| assert_eq!(package_here(package, os_release), expected);
        check(POSTGRES, "ID=debian\nVERSION_CODENAME=bookworm\n", "postgresql-15");
        check(POSTGRES, "ID=debian\nVERSION_CODENAME=trixie\n", "postgresql");
        check(POSTGRES, "ID=ubuntu\nVERSION_CODENAME=noble\nNAME=bookworm\n", "postgresql");
        check(POSTGRES, "", "postgresql");
        check("redis-server", "VERSION_CODENAME=bookworm", "redis-server");
    }

    #[test]
    fn only_servers_have_services_to_be_kept_down() {
        let services: Vec<_> = CHECKS.iter().filter_map(|part| part.service()).collect();
        assert_eq!(services, ["nats-server", "redis-server", "postgresql", "pgbouncer", "nginx", "prometheus"]);
        let is_packed = |part: &Part| !matches!(part, Part::Component(..) | Part::Verifiers);
        assert!(CHECKS.iter().all(|part| is_packed(part) == part.package().is_some()));
    }

    #[test]
    fn parts_are_looked_for_where_they_would_be() {
        let sysroot = super::sysroot().expect("a toolchain");
        let check = |part, expected| assert_eq!(is_there(part, &sysroot, &Paths::new()), expected, "{part:?}");
        check(Part::Target("wasm32-nowhere"), false);
        check(Part::Program("no-such-program-at-all", ""), false);
        check(Part::Program("sh", ""), true);
    }
}
