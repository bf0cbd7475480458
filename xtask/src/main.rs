//! The project's own commands: `cargo xtask setup | plugins | builtin | demo | test | bench | tidy`.

mod paths;
mod command;
mod setup;
mod plugins;
mod publishers;
mod demo;
mod test;
mod bench;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Builds, shows, tests and measures Wirehook.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: wasm targets, rustfmt, clippy, a C compiler, clang and wasi-libc, Go, nats-server, redis-server, PostgreSQL, PgBouncer, nginx,
    /// python3, and libraries that verify webhooks.
    Setup,
    /// Build the example plugins into target/plugins.
    Plugins {
        /// Also build the hostile plugins of the tests into target/guests.
        #[arg(long)]
        guests: bool,
    },
    /// Build the component that routes run, and put it where the host embeds it: after a change of plugins/forward or the
    /// SDK for Rust.
    Builtin,
    /// Build the host and run the demo. Its exit code is the demo's.
    Demo {
        /// Passed on to `wirehook demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install what is missing, check the code, and run what belongs in every change.
    Test {
        /// Also run the long tests, and FraiseQL's own publishers: they see the variable WIREHOOK_TEST_FULL=1.
        #[arg(long)]
        full: bool,
    },
    /// Build with optimisation and measure.
    Bench(bench::Flags),
    /// Check the format, clippy, and the rules of the code's style that a program can check.
    Tidy,
}

fn main() -> ExitCode {
    let paths = Paths::new();
    let result = match Arguments::parse().task {
        Task::Setup => setup::run(setup::Needs::Everything, &paths).map(|()| ExitCode::SUCCESS),
        Task::Plugins { guests } => setup::run(setup::Needs::Build, &paths)
            .and_then(|()| plugins::run(&paths, guests))
            .map(|()| ExitCode::SUCCESS),
        Task::Builtin => setup::run(setup::Needs::Build, &paths)
            .and_then(|()| plugins::builtin::run(&paths))
            .map(|()| ExitCode::SUCCESS),
        Task::Demo { arguments } => demo::run(&paths, &arguments),
        Task::Test { full } => test::run(&paths, full).map(|()| ExitCode::SUCCESS),
        Task::Bench(flags) => bench::run(&paths, &flags).map(|()| ExitCode::SUCCESS),
        Task::Tidy => tidy::run(&paths).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("\nxtask: {error:#}");
        ExitCode::FAILURE
    })
}
