//! Builds with optimisation and measures.

mod revision;

use anyhow::Result;

use crate::command::{Run, heading};
use crate::paths::Paths;
use crate::plugins;
use crate::setup::lists::Lists;
use crate::setup::{self, Needs};

/// Where the table by language is.
const DOCUMENT: &str = "host/docs/plugins.md";

/// Where the curves of `--scale` are.
const PICTURES: &str = "host/docs/bench";

/// Where runs append their figures, in the build folder: one line of JSON each. Those by language and of isolation have none.
const FIGURES: &str = "bench.json";

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Fewer events, and one repetition: a minute instead of six.
    #[arg(long)]
    quick: bool,
    /// Instead, measure with up to a million deliveries waiting or in history, a thousand endpoints and a hundred plugins;
    /// draws the curves in host/docs/bench.
    #[arg(long, conflicts_with_all = ["languages", "isolation"])]
    scale: bool,
    /// With ten million too: a quarter of an hour more, and 15 GB of disk.
    #[arg(long, requires = "scale", conflicts_with = "quick")]
    huge: bool,
    /// Instead, measure what four bad endpoints cost 96 others.
    #[arg(long, conflicts_with_all = ["languages", "quick"])]
    isolation: bool,
    /// Instead, measure the example in every language, and a host with fifty plugins; writes the table in
    /// host/docs/plugins.md.
    #[arg(long)]
    languages: bool,
    /// Instead, build the host of this revision too, and measure the two in turns: each row's ratio with its 95 % interval.
    /// Fails where something got slower.
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["quick", "scale", "isolation", "languages"])]
    against: Option<String>,
    /// How many pairs of runs: 15 take about twenty minutes.
    #[arg(long, value_name = "NUMBER", requires = "against", value_parser = clap::value_parser!(u16).range(2..))]
    pairs: Option<u16>,
}

/// Runs `bench` of the tests' package on the host as it is released.
pub(crate) fn run(paths: &Paths, flags: &Flags) -> Result<()> {
    let &Flags { quick, scale, huge, isolation, languages, ref against, pairs } = flags;
    setup::run(Needs::Everything, paths)?;
    plugins::run(paths, false)?;
    // Without them the host is still worth measuring: the bench says what it skips.
    if !Lists::SUBSCRIBERS.are_there(paths)
        && let Err(error) = Lists::SUBSCRIBERS.install(paths)
    {
        eprintln!("the subscribers in Python and Node will be skipped: {error:#}");
    }
    let built = if languages { plugins::time_builds(paths)? } else { Vec::new() };
    heading("bench: building with optimisation");
    Run::cargo(&paths.root, "the compiler's message is above")
        .args(["build", "--locked", "--release", "--workspace", "--bins"])
        .success()?;
    let other = against.as_ref().map(|revision| revision::build(paths, revision)).transpose()?;
    heading("bench");
    let flags = [
        (quick, "--quick"),
        (scale, "--scale"),
        (huge, "--huge"),
        (isolation, "--isolation"),
        (languages, "--languages"),
    ];
    let bench = Run::new(paths.binary("release", "bench"), "what went wrong is above")
        .args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    let figures = (!languages && !isolation).then(|| paths.target.join(FIGURES));
    let bench = figures.into_iter().fold(bench, |bench, figures| bench.arg("--json").arg(figures));
    let bench = built
        .iter()
        .fold(bench, |bench, (name, time)| bench.arg("--built").arg(format!("{name}={}", time.as_millis())));
    let docs = [(languages, DOCUMENT), (scale && !quick, PICTURES)].into_iter().find(|(given, _)| *given);
    let bench = other.into_iter().fold(bench, |bench, other| bench.arg("--against").arg(other.argument()));
    let bench = pairs.into_iter().fold(bench, |bench, pairs| bench.args(["--pairs", &pairs.to_string()]));
    docs.into_iter().fold(bench, |bench, (_, docs)| bench.arg("--docs").arg(paths.root.join(docs))).success()
}
