//! `wirehook plugin build`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::project::{self, BuildError, Built, Project, Step};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin build
  wirehook plugin build orders
  wirehook plugin build orders --out /etc/wirehook/plugins/orders.wasm

The plugin goes to dist/NAME.wasm within the project, its sidecar NAME.toml beside it. Tools are \
looked for in the project, in the folders of $WIREHOOK_TOOLS and in $PATH.";

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The project's folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The file to write [default: FOLDER/dist/NAME.wasm]
    #[arg(long, value_name = "FILE.wasm", value_parser = wasm_file)]
    out: Option<PathBuf>,
}

pub(super) async fn build(session: &mut Session<'_>, BuildArgs { folder, out }: BuildArgs) -> Result<Exit, Failures> {
    let clock = session.parts.clock();
    let begun = clock.monotonic();
    let (project, built) = in_folder(folder, out).await?;
    let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
    let view = session.parts.inspect(&built.file, None);
    if session.console.json {
        session.console.object(&json!({
            "name": project.name, "language": project.language.name, "file": built.file, "sidecar": built.sidecar,
            "bytes": built.bytes, "sha256": view.digest, "ok": view.ok, "build_s": seconds,
        }))?;
    } else {
        let size = bytesize::ByteSize::b(built.bytes).display().iec();
        session.console.line(format_args!("built {} ({size}, {seconds:.1} s)", built.file.display()))?;
    }
    view.refusal().map_or(Ok(Exit::Success), |refused| Err(refused.into()))
}

/// Builds the project in `folder`.
pub(in crate::cli) async fn in_folder(folder: PathBuf, out: Option<PathBuf>) -> Result<(Project, Built), Failures> {
    // A toolchain takes its time, and the runtime's own threads are not to wait for it.
    let built = tokio::task::spawn_blocking(move || {
        let project = Project::open(&folder)?;
        let output = out.unwrap_or_else(|| project.output());
        let built = project::build(&project, &output, &mut tell)?;
        Ok::<_, BuildError>((project, built))
    });
    Ok(built.await.map_err(|error| Failure::new(format!("the build did not end: {error}")))??)
}

/// Where the program's own words go, so do those of the toolchain.
fn tell(step: &Step) {
    eprintln!("$ {step}");
}

fn wasm_file(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    match path.extension() {
        Some(extension) if extension == "wasm" => Ok(path),
        _ => Err("a plugin's file ends in .wasm".to_owned()),
    }
}

impl From<BuildError> for Failures {
    fn from(error: BuildError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            BuildError::Project(error) => error.into(),
            BuildError::Step(error) => Failure { help: error.help().map(str::to_owned), ..failure }.into(),
            BuildError::NoProduct { .. } => {
                failure.help("see that the project's manifest still names what it builds").into()
            }
            BuildError::Write { .. } => failure.help("name a file that this user may write, with --out FILE").into(),
        }
    }
}
