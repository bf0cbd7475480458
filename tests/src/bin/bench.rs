//! `bench [--quick|--scale|--isolation|--languages [--built NAME=MILLISECONDS]… [--docs FILE]] [--json FILE]`: see [`wirehook_tests::bench`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::bench::report::Report;
use wirehook_tests::bench::scenario::{Bench, Scenario};
use wirehook_tests::bench::{Plan, call, disk, isolation, languages, many, quantile, ready};
use wirehook_tests::{artifacts, events};

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { plan, json, languages, isolation, built, docs } = arguments()?;
    if isolation {
        println!("{}", isolation::measure(&isolation::Plan::FULL).await?.report());
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(artifacts::target_folder()?)?;
    if languages {
        return by_language(folder.path(), plan, &built, docs.as_deref()).await;
    }
    let receiver = Receiver::start()?;
    let events = (0..plan.events).map(events::order_created).collect();
    let bench = Bench { folder: folder.path(), receiver: &receiver, events };

    eprintln!("calling the example plugin {} times", plan.calls);
    let calls = call::measure(folder.path(), plan.calls)?;
    eprintln!("starting the host {} times, cold and warm", plan.starts);
    let starts = ready::measure(folder.path(), plan.starts).await?;
    let (mut measured, mut syncs) = (Vec::new(), Vec::new());
    for repetition in 1..=plan.repetitions {
        syncs.extend(disk::syncs(folder.path(), plan.syncs)?);
        for scenario in Scenario::ALL {
            let result = bench.run(scenario).await?;
            eprintln!("{repetition}/{}: {}: {:.2?}", plan.repetitions, scenario.label(), result.wall);
            measured.push((scenario, result));
        }
    }
    let report = Report { plan, measured, syncs, starts, calls };
    println!("{report}");
    match json {
        Some(path) => report.append_to(&path),
        None => Ok(()),
    }
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
    plan: Plan,
    json: Option<PathBuf>,
    languages: bool,
    isolation: bool,
    built: Vec<(String, Duration)>,
    docs: Option<PathBuf>,
}

fn arguments() -> Result<Arguments> {
    let mut parsed =
        Arguments { plan: Plan::FULL, json: None, languages: false, isolation: false, built: Vec::new(), docs: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => parsed.plan = Plan::QUICK,
            "--scale" => parsed.plan = Plan::SCALE,
            "--languages" => parsed.languages = true,
            "--isolation" => parsed.isolation = true,
            "--built" => {
                let built = arguments.next().context("--built needs NAME=MILLISECONDS")?;
                let (name, millis) = built.split_once('=').context("--built needs NAME=MILLISECONDS")?;
                parsed.built.push((name.to_owned(), Duration::from_millis(millis.parse()?)));
            }
            "--docs" => parsed.docs = Some(arguments.next().context("--docs needs a file")?.into()),
            "--json" => parsed.json = Some(arguments.next().context("--json needs a file")?.into()),
            other => bail!(
                "unknown argument `{other}`; usage: bench [--quick|--scale|--isolation|--languages] [--json FILE]"
            ),
        }
    }
    Ok(parsed)
}
