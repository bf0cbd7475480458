//! `bench [--quick] [--scale [--huge] [--docs FOLDER]|--isolation|--languages [--built NAME=MILLISECONDS]… [--docs FILE]] [--json FILE]`: see [`wirehook_tests::bench`].
//!
//! `bench [--quick] --only SCENARIO [--rate EVENTS]`, for profilers: one scenario, as `bench.json` calls it, at its own speed or at a
//! constant rate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wirehook_tests::artifacts;
use wirehook_tests::bench::latency::Load;
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::bench::report::{self, Report};
use wirehook_tests::bench::run::Bench;
use wirehook_tests::bench::scenario::{Scenario, Setting};
use wirehook_tests::bench::{
    Plan, call, disk, idle, isolation, languages, latency, many, micro, quantile, ready, scale, variant,
};

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { quick, json, scale, huge, languages, isolation, built, docs, only, rate } = arguments()?;
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
    let bench = Bench { folder: folder.path(), receiver: &receiver };
    if let Some(scenario) = only {
        return by_itself(&bench, plan, scenario, rate).await;
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

/// One scenario, at the bus's pace or at `rate` events a second.
async fn by_itself(bench: &Bench<'_>, plan: Plan, scenario: Scenario, rate: Option<u64>) -> Result<()> {
    for repetition in 1..=plan.repetitions {
        let figures = match rate {
            Some(rate) => {
                latency::measure(bench, Load::new(scenario, rate), plan.latency, plan.syncs).await?.to_string()
            }
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

struct Arguments {
    quick: bool,
    json: Option<PathBuf>,
    scale: bool,
    huge: bool,
    languages: bool,
    isolation: bool,
    built: Vec<(String, Duration)>,
    docs: Option<PathBuf>,
    only: Option<Scenario>,
    rate: Option<u64>,
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments {
        quick: false,
        json: None,
        scale: false,
        huge: false,
        languages: false,
        isolation: false,
        built: Vec::new(),
        docs: None,
        only: None,
        rate: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => parsed.quick = true,
            "--scale" => parsed.scale = true,
            "--huge" => parsed.huge = true,
            "--languages" => parsed.languages = true,
            "--isolation" => parsed.isolation = true,
            "--built" => {
                let built = arguments.next().context("--built needs NAME=MILLISECONDS")?;
                let (name, millis) = built.split_once('=').context("--built needs NAME=MILLISECONDS")?;
                parsed.built.push((name.to_owned(), Duration::from_millis(millis.parse()?)));
            }
            "--only" => {
                let key = arguments.next().context("--only needs a scenario")?;
                let named = Scenario::ALL.into_iter().find(|scenario| scenario.key() == key);
                parsed.only = Some(named.with_context(|| format!("no scenario is called `{key}`"))?);
            }
            "--rate" => parsed.rate = Some(arguments.next().context("--rate needs events a second")?.parse()?),
            "--docs" => parsed.docs = Some(arguments.next().context("--docs needs a file")?.into()),
            "--json" => parsed.json = Some(arguments.next().context("--json needs a file")?.into()),
            other => bail!(
                "unknown argument `{other}`; usage: bench [--quick] [--scale [--huge]|--isolation|--languages|--only SCENARIO [--rate EVENTS]] [--docs PATH] [--json FILE]"
            ),
        }
    }
    Ok(parsed)
}
