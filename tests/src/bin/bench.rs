//! `bench [--quick|--scale] [--json FILE]`: see [`wirehook_tests::bench`].

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::bench::report::Report;
use wirehook_tests::bench::scenario::{Bench, Scenario};
use wirehook_tests::bench::{Plan, call, disk, ready};
use wirehook_tests::{artifacts, events};

#[tokio::main]
async fn main() -> Result<()> {
    let (plan, json) = arguments()?;
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(artifacts::target_folder()?)?;
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

fn arguments() -> Result<(Plan, Option<PathBuf>)> {
    let (mut plan, mut json) = (Plan::FULL, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => plan = Plan::QUICK,
            "--scale" => plan = Plan::SCALE,
            "--json" => json = Some(arguments.next().context("--json needs a file")?.into()),
            other => bail!("unknown argument `{other}`; usage: bench [--quick|--scale] [--json FILE]"),
        }
    }
    Ok((plan, json))
}
