//! The command line: arguments in, effects through [`Parts`], data to standard output, everything else to standard error.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::clock::Timestamp;
use crate::logging::{self, LogFormat};
use crate::ops::{Reply, Request, access};
use crate::plugin::compiler;
use crate::settings::Environment;
use crate::settings::encoded::{arguments, without_credentials};
use crate::store::Store;

pub mod console;
pub mod failure;
pub mod parts;
pub mod table;
mod check;
mod config;
mod dead_letters;
mod deliveries;
mod demo;
mod dev;
mod endpoints;
mod events;
mod filter;
mod init;
mod output;
mod pause;
mod plugin;
mod publish;
mod purge;
mod receive;
mod run;
mod scheme;
mod source;
mod status;
mod steps;
mod trace;
mod verify;
mod waits;
mod words;

pub use console::Console;
pub use failure::{Exit, Failure, Failures};
pub use parts::Parts;

/// Turns events on a bus into signed webhooks, through sandboxed WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "wirehook", version, disable_help_subcommand = true, after_help = EXAMPLE)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// The settings file [default: $WIREHOOK_CONFIG, ./wirehook.toml, /etc/wirehook/wirehook.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON, one object a line; times are milliseconds since 1970
    #[arg(long, global = true)]
    json: bool,
    /// How logs on standard error look: text or json
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true)]
    log_format: LogFormat,
    /// Which logs: error, warn, info, debug, trace, or target=level,… [default: $WIREHOOK_LOG, info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Compile plugins anew, and keep nothing compiled for the next command [default: kept in ~/.cache/wirehook]
    #[arg(long, global = true)]
    no_cache: bool,
}

/// Where settings come from besides the settings file.
#[derive(Clone, Debug, Args)]
struct Observers {
    /// Take one source more from the [observers] of FraiseQL's own file; it is named fraiseql
    #[arg(long, value_name = "FRAISEQL.TOML")]
    observers: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a settings file, from three answers
    #[command(after_help = init::EXAMPLE)]
    Init(init::InitArgs),
    /// Run the host until it is told to stop
    #[command(after_help = run::EXAMPLE)]
    Run(run::RunArgs),
    /// Check the settings and every plugin, without running anything
    #[command(after_help = check::EXAMPLE)]
    Check(Observers),
    /// Try plugins on a bus without settings, beside whoever else uses it
    #[command(after_help = dev::EXAMPLE)]
    Dev(dev::DevArgs),
    /// Publish events to the bus of a source, as an application would
    #[command(after_help = publish::EXAMPLE)]
    Publish(publish::PublishArgs),
    /// Receive webhooks, verify their signatures and print them
    #[command(after_help = receive::EXAMPLE)]
    Receive(receive::ReceiveArgs),
    /// Say whether a request's signature is right, and why it is not
    #[command(after_help = verify::EXAMPLE)]
    Verify(verify::VerifyArgs),
    /// Look at deliveries; retry, discard or move them
    #[command(subcommand, after_help = deliveries::EXAMPLE)]
    Deliveries(deliveries::DeliveriesCommand),
    /// Look at endpoints; test, pause, resume, disable and enable them
    #[command(subcommand, after_help = endpoints::EXAMPLE)]
    Endpoints(endpoints::EndpointsCommand),
    /// Look at what will not be tried again by itself; redrive, export or discard it
    #[command(subcommand, after_help = dead_letters::EXAMPLE)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Look at recorded events; give them the run of a plugin that they never had
    #[command(subcommand, after_help = events::EXAMPLE)]
    Events(events::EventsCommand),
    /// Say where something is: from the bus over every plugin to the last attempt
    #[command(after_help = trace::EXAMPLE)]
    Trace(trace::TraceArgs),
    /// Delete every trace of an entity: its events, webhooks, responses and dead letters
    #[command(after_help = purge::EXAMPLE)]
    Purge(purge::PurgeArgs),
    /// Make, build, test, approve, pause, forget and look at plugins
    #[command(subcommand, after_help = plugin::EXAMPLE)]
    Plugin(plugin::PluginCommand),
    /// List, pause and resume sources
    #[command(subcommand, after_help = source::EXAMPLE)]
    Source(source::SourceCommand),
    /// Show how the host is, and what is in its store
    #[command(after_help = status::EXAMPLE)]
    Status,
    /// Look at the settings
    #[command(subcommand, after_help = config::EXAMPLE)]
    Config(config::ConfigCommand),
    /// Feed events to three receivers, and account for each
    #[command(after_help = demo::EXAMPLE)]
    Demo(demo::DemoArgs),
    /// Compile the plugin on standard input to standard output: the host starts this itself
    #[command(name = compiler::COMMAND, hide = true)]
    CompilePlugin {
        /// Bytes of memory that it may use
        memory_bytes_max: u64,
        /// Seconds of CPU that it may use
        cpu_seconds_max: u64,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLE)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// What is logged where nothing says another level.
    fn log_level_default(&self) -> &'static str {
        match self {
            // Attempts are what it prints.
            Self::Dev(_) => dev::LOG_LEVEL_DEFAULT,
            _ => logging::LEVEL_DEFAULT,
        }
    }
}

const EXAMPLE: &str = "\
Examples:
  wirehook demo
  wirehook init
  wirehook dev --plugin orders.wasm --source nats://localhost:4222
  wirehook check --config wirehook.toml
  wirehook run --config wirehook.toml
  wirehook status

`wirehook COMMAND --help` has examples of each command.";

const COMPLETIONS_EXAMPLE: &str = "Example:\n  wirehook completions bash > /etc/bash_completion.d/wirehook";

/// What a command works with.
struct Session<'a> {
    global: Global,
    environment: &'a Environment,
    parts: &'a dyn Parts,
    console: &'a mut Console,
    /// The store, where no host runs and something was asked of it before.
    offline: Option<Arc<dyn Store>>,
}

/// How long threads that block may take to end after a command.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(1);

/// The whole program, given its parts: arguments, one command, an exit code.
pub fn main(parts: &dyn Parts) -> ExitCode {
    logging::escape_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => refuse(&error),
    };
    if let Command::CompilePlugin { memory_bytes_max, cpu_seconds_max } = cli.command {
        // Before there is a thread or a file that it does not need.
        return compiler::run_child(memory_bytes_max, cpu_seconds_max);
    }
    let environment = Environment::of_process();
    let mut console = Console::of_process(&environment);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(run(cli, &environment, parts, &mut console));
            // A name lookup or a plugin's call that hangs must not hold up the end of the process.
            runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
            exit.into()
        }
        Err(error) => {
            console.failures(&Failure::new(format!("the runtime did not start: {error}")).into());
            Exit::Failure.into()
        }
    }
}

/// Ends the process over its arguments, as clap does, but without the passwords in them.
fn refuse(error: &clap::Error) -> ! {
    let said = error.render().to_string();
    let clean = without_credentials(&said, arguments());
    if clean == said {
        error.exit()
    }
    eprint!("{clean}");
    std::process::exit(error.exit_code())
}

/// Carries out one command; what went wrong is on the console by the time this returns.
pub async fn run(cli: Cli, environment: &Environment, parts: &dyn Parts, console: &mut Console) -> Exit {
    let Cli { global, command } = cli;
    console.json = global.json;
    parts.keep_code(!global.no_cache);
    let mut session = Session { global, environment, parts, console, offline: None };
    let done = Box::pin(session.carry_out(command)).await;
    let done = done.and_then(|exit| session.console.flush().map(|()| exit).map_err(Failures::from));
    match done {
        Ok(exit) => exit,
        Err(failures) => {
            session.console.failures(&failures);
            failures.exit
        }
    }
}

impl Session<'_> {
    async fn carry_out(&mut self, command: Command) -> Result<Exit, Failures> {
        self.begin_logging(command.log_level_default())?;
        match command {
            Command::Init(args) => init::init(self, args),
            Command::Run(args) => run::run(self, args).await,
            Command::Check(observers) => check::check(self, &observers),
            Command::Dev(args) => dev::dev(self, args).await,
            Command::Publish(args) => publish::publish(self, args).await,
            Command::Receive(args) => receive::receive(self, args).await,
            Command::Verify(args) => verify::verify(self, &args),
            Command::Deliveries(command) => deliveries::deliveries(self, command).await,
            Command::Endpoints(command) => endpoints::endpoints(self, command).await,
            Command::DeadLetters(command) => dead_letters::dead_letters(self, command).await,
            Command::Events(command) => events::events(self, command).await,
            Command::Trace(args) => trace::trace(self, args).await,
            Command::Purge(args) => purge::purge(self, args).await,
            Command::Plugin(command) => plugin::plugin(self, command).await,
            Command::Source(command) => source::source(self, command).await,
            Command::Status => status::status(self).await,
            Command::Config(command) => config::config(self, command),
            Command::Demo(args) => demo::demo(self, args).await,
            Command::CompilePlugin { .. } => Err(Failure::new("a process that compiles does nothing else").into()),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "wirehook", &mut script);
                self.console.bytes(&script)?;
                Ok(Exit::Success)
            }
        }
    }

    fn begin_logging(&self, default: &str) -> Result<(), Failures> {
        let variable = self.environment.variable(logging::LEVEL_VARIABLE);
        let variable = variable.as_ref().and_then(|level| level.to_str()).filter(|level| !level.is_empty());
        let level = self.global.log_level.as_deref().or(variable).unwrap_or(default);
        match self.parts.begin_logging(self.global.log_format, level) {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(error.to_string()).into_usage()),
        }
    }

    /// The settings, validated.
    fn load(&mut self) -> Result<crate::settings::Loaded, Failures> {
        self.load_observed(&Observers { observers: None })
    }

    /// The settings with FraiseQL's source, validated.
    fn load_observed(&mut self, Observers { observers }: &Observers) -> Result<crate::settings::Loaded, Failures> {
        let config = self.global.config.as_deref();
        Ok(crate::settings::load_observed(config, observers.as_deref(), self.environment)?)
    }

    /// The endpoints' names in the settings file.
    fn endpoint_names(&self) -> Result<Vec<Arc<str>>, Failures> {
        Ok(crate::settings::load_endpoint_names(self.global.config.as_deref(), self.environment)?)
    }

    /// Now.
    fn now(&self) -> Timestamp {
        self.parts.clock().now()
    }

    /// Asks the running host, or the store itself, which then stays open for what is asked next.
    async fn ask(&mut self, request: Request) -> Result<Vec<Reply>, Failures> {
        let clock = self.parts.clock();
        let replies = match &self.offline {
            Some(store) => access::ask_offline(store.as_ref(), clock.as_ref(), request).await,
            None => {
                let store = crate::settings::load_store(self.global.config.as_deref(), self.environment)?;
                let asked = access::ask(&store, self.parts.opener(), clock.as_ref(), request).await?;
                self.offline = asked.store;
                asked.replies
            }
        };
        for reply in &replies {
            if let Reply::Failed { message } = reply {
                return Err(Failure::new(message.clone()).into());
            }
        }
        Ok(replies)
    }

    /// Asks the person at the terminal. Meanwhile the store is anybody's.
    fn confirm(&mut self, question: &str) -> std::io::Result<bool> {
        self.offline = None;
        self.console.confirm(question)
    }
}
