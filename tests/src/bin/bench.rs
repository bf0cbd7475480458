//! Measures what [`wirehook_tests::bench`] has; `cargo xtask bench` builds what it needs and calls it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use wirehook_tests::artifacts;
use wirehook_tests::bench::latency::Load;
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::bench::report::{self, Report};
use wirehook_tests::bench::run::Bench;
use wirehook_tests::bench::scenario::{Scenario, Setting};
use wirehook_tests::bench::{
    Plan, against, call, disk, idle, isolation, languages, latency, many, micro, quantile, ready, scale, variant,
};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { quick, json, scale, huge, languages, isolation, built, docs, only, rate, slow_disk, .. } =
        arguments;
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    if isolation {
        println!("{}", isolation::measure(&isolation::Plan::FULL).await?.report());
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(artifacts::target_folder()?)?;
    if languages {
        return by_language(folder.path(), plan, &built, docs.as_deref()).await;
    }
    let receiver = Receiver::start()?;
    if let Some((revision, program)) = &arguments.against {
        let pairs = arguments.pairs;
        let comparison =
            against::measure(folder.path(), &receiver, (revision.as_str(), program.as_path()), pairs).await?;
        println!("{comparison}");
        json.map_or(Ok(()), |path| report::append(&path, comparison.to_json()))?;
        anyhow::ensure!(comparison.slower().is_empty(), "something got slower");
        return Ok(());
    }
    let bench = Bench { folder: folder.path(), receiver: &receiver, program: None };
    if let Some(scenario) = only {
        let load = rate.map(|rate| Load::new(scenario, rate));
        let load = load.map(|load| if slow_disk { load.on_slow_disk() } else { load });
        return by_itself(&bench, plan, scenario, load).await;
    }
    if scale {
        let how_far = match (quick, huge) {
            (true, _) => scale::Plan::QUICK,
            (false, false) => scale::Plan::FULL,
            (false, true) => scale::Plan::HUGE,
        };
        let scale = scale::measure(&bench, &how_far).await?;
        println!("{scale}");
        if let Some(docs) = docs {
            scale.draw(&docs)?;
        }
        return json.map_or(Ok(()), |path| report::append(&path, scale.to_json()));
    }
    let report = everything(&bench, plan).await?;
    println!("{report}");
    match json {
        Some(path) => report::append(&path, report.to_json()),
        None => Ok(()),
    }
}

/// One scenario, at its own speed or under `load`.
async fn by_itself(bench: &Bench<'_>, plan: Plan, scenario: Scenario, load: Option<Load>) -> Result<()> {
    for repetition in 1..=plan.repetitions {
        let figures = match load {
            Some(load) => latency::measure(bench, load, plan.latency, plan.syncs).await?.to_string(),
            None => {
                let measured = bench.run(scenario, Setting::MAIN, scenario.share(plan.events)).await?;
                format!("{} events/s, {} CPU µs/event", measured.rate(), measured.cpu_us())
            }
        };
        println!("{repetition}/{}: {}: {figures}", plan.repetitions, scenario.label());
    }
    Ok(())
}

/// What a run without other arguments measures.
async fn everything(bench: &Bench<'_>, plan: Plan) -> Result<Report> {
    eprintln!("calling the example plugin {} times", plan.calls);
    let calls = call::measure(bench.folder, plan.calls)?;
    eprintln!("starting the host {} times, cold and warm", plan.starts);
    let starts = ready::measure(bench.folder, plan.starts).await?;
    let missing = |scenario: Scenario| Some((scenario, scenario.missing()?));
    let skipped: Vec<_> = Scenario::ALL.into_iter().filter_map(missing).collect();
    let (mut measured, mut syncs) = (Vec::new(), Vec::new());
    for repetition in 1..=plan.repetitions {
        syncs.extend(disk::syncs(bench.folder, plan.syncs)?);
        for scenario in
            Scenario::ALL.into_iter().filter(|scenario| skipped.iter().all(|(missing, _)| missing != scenario))
        {
            let result = bench.run(scenario, Setting::MAIN, scenario.share(plan.events)).await?;
            eprintln!("{repetition}/{}: {}: {} events/s", plan.repetitions, scenario.label(), result.rate());
            measured.push((scenario, result));
        }
    }
    let variants = variant::measure(bench, plan.variant_events).await?;
    let half = report::median_rate(&measured, Scenario::HostJetstream) / 2;
    let mut latencies = Vec::new();
    let main = Load::new(Scenario::HostJetstream, latency::RATE);
    for load in [
        Load { scenario: Scenario::BareCore, ..main },
        Load { scenario: Scenario::BareJetstream, ..main },
        main,
        main.on_slow_disk(),
        Load { rate: half, ..main },
    ] {
        eprintln!("{}: {} events/s for {:?}", load.label(), load.rate, plan.latency);
        let run = latency::measure(bench, load, plan.latency, plan.syncs).await?;
        syncs.extend(&run.syncs);
        latencies.push(run);
    }
    eprintln!("timing single steps");
    let micro = micro::measure(bench.folder, bench.receiver, plan.steps).await?;
    eprintln!("looking at an idle host for {:?}", plan.idle);
    let idle = idle::measure(bench, plan.idle).await?;
    Ok(Report { plan, measured, skipped, variants, latencies, idle, syncs, starts, calls, micro })
}

/// The example in every language, and a host with many plugins.
async fn by_language(folder: &Path, plan: Plan, built: &[(String, Duration)], docs: Option<&Path>) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let table = languages::table(&languages::measure(folder, plan.calls, built)?);
    println!("{table}");
    let many = many::measure(folder, plan.starts).await?;
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{} plugins, start to ready: cold {:.0?}, warm {:.0?} ({:.0?} to {:.0?}); RSS {} MiB, of a host without plugins {} MiB",
        many::PLUGINS,
        many.cold,
        quantile(&many.warm, 0.5),
        quantile(&many.warm, 0.0),
        quantile(&many.warm, 1.0),
        mib(many.resident_bytes),
        mib(many.resident_bytes_without),
    );
    println!("the machine's load before: {}", load.trim());
    if let Some(path) = docs {
        let document = std::fs::read_to_string(path)?;
        std::fs::write(path, languages::write_into(&document, &table)?)?;
    }
    Ok(())
}

/// Measures events per second and latencies; prints a table.
#[derive(Parser)]
#[command(
    after_help = "For profilers:\n  bench --only host_jetstream\n  bench --quick --only host_jetstream --rate 1000"
)]
struct Arguments {
    /// Fewer events, and one repetition.
    #[arg(long, conflicts_with_all = ["isolation", "huge"])]
    quick: bool,
    /// Instead, how figures change with what waits, with endpoints, plugins and history.
    #[arg(long, group = "instead")]
    scale: bool,
    /// With ten million too.
    #[arg(long, requires = "scale")]
    huge: bool,
    /// Instead, what four bad endpoints cost 96 others.
    #[arg(long, group = "instead")]
    isolation: bool,
    /// Instead, the example in every language.
    #[arg(long, group = "instead")]
    languages: bool,
    /// Instead, one scenario, by its key in the line of JSON.
    #[arg(long, value_name = "SCENARIO", value_parser = scenario, group = "instead")]
    only: Option<Scenario>,
    /// Its latency at this constant rate, in place of its own speed.
    #[arg(long, value_name = "EVENTS_A_SECOND", requires = "only", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// With a disk whose syncs take 4 ms longer.
    #[arg(long, requires = "rate")]
    slow_disk: bool,
    /// Instead, this build beside another host's binary, in turns.
    #[arg(long, value_name = "REVISION=FILE", value_parser = other_host, group = "instead")]
    against: Option<(String, PathBuf)>,
    /// How many pairs.
    #[arg(long, value_name = "NUMBER", requires = "against", default_value_t = against::PAIRS)]
    pairs: usize,
    /// How long the build of an example took.
    #[arg(long, value_name = "NAME=MILLISECONDS", value_parser = built, requires = "languages")]
    built: Vec<(String, Duration)>,
    /// Where curves are drawn, or the document with the table of languages.
    #[arg(long, value_name = "PATH")]
    docs: Option<PathBuf>,
    /// Where the figures are appended, as one line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["isolation", "languages", "only"])]
    json: Option<PathBuf>,
}

fn scenario(key: &str) -> Result<Scenario, String> {
    let keys = || Scenario::ALL.map(Scenario::key).join(", ");
    Scenario::ALL.into_iter().find(|scenario| scenario.key() == key).ok_or_else(|| format!("there are {}", keys()))
}

fn other_host(text: &str) -> Result<(String, PathBuf), String> {
    let (revision, path) = text.split_once('=').ok_or("it is REVISION=FILE")?;
    Ok((revision.to_owned(), path.into()))
}

fn built(text: &str) -> Result<(String, Duration), String> {
    let parsed = text.split_once('=').and_then(|(name, millis)| Some((name, millis.parse().ok()?)));
    let (name, millis) = parsed.ok_or("it is NAME=MILLISECONDS")?;
    Ok((name.to_owned(), Duration::from_millis(millis)))
}
