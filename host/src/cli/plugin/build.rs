//! `wirehook plugin build`

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::parts::PluginView;
use crate::project::{self, BuildError, Built, Product, Project, Step};

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
    let (project, product) = in_background(move || {
        let project = Project::open(&folder)?;
        let product = project::make(&project, &mut tell)?;
        Ok((project, product))
    })
    .await?;
    let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
    let output = out.unwrap_or_else(|| project.output());
    let view = inspected(session, &product, &output)?;
    if let Some(refused) = view.refusal() {
        // What was built before, and may be at work, stays.
        let kept = format!("{} is as it was before the build", output.display());
        let help = refused.help.as_ref().map_or(kept.clone(), |help| format!("{help}; {kept}"));
        return Err(refused.help(help).into());
    }
    let built = product.put(&output)?;
    if session.console.json {
        session.console.object(&json!({
            "name": project.name, "language": project.language.name, "file": built.file, "sidecar": built.sidecar,
            "bytes": built.bytes, "sha256": view.digest, "ok": view.ok, "build_s": seconds,
        }))?;
    } else {
        let size = bytesize::ByteSize::b(built.bytes).display().iec();
        session.console.line(format_args!("built {} ({size}, {seconds:.1} s)", built.file.display()))?;
    }
    Ok(Exit::Success)
}

/// What the host would say to what was built, were it at `output`.
fn inspected(session: &Session<'_>, product: &Product, output: &Path) -> Result<PluginView, Failures> {
    // Beside it, where what can be written is known, and out of sight of a host that watches that folder.
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| BuildError::Write { file: output.to_owned(), source };
    fs::create_dir_all(parent).map_err(failed)?;
    let draft = tempfile::Builder::new().prefix(".wirehook-build-").tempdir_in(parent).map_err(failed)?;
    let built = product.put(&draft.path().join(output.file_name().unwrap_or_default()))?;
    let view = session.parts.inspect(&built.file, None);
    // The draft is gone when this is read: what is meant is the file that would have been there.
    let (there, here) = (draft.path().display().to_string(), parent.display().to_string());
    let error = view.error.map(|error| error.replace(&there, &here));
    Ok(PluginView { file: output.to_owned(), error, ..view })
}

/// Builds the project in `folder`.
pub(in crate::cli) async fn in_folder(folder: PathBuf, out: Option<PathBuf>) -> Result<(Project, Built), Failures> {
    in_background(move || {
        let project = Project::open(&folder)?;
        let output = out.unwrap_or_else(|| project.output());
        let built = project::build(&project, &output, &mut tell)?;
        Ok((project, built))
    })
    .await
}

/// A toolchain takes its time, and the runtime's own threads are not to wait for it.
async fn in_background<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, BuildError> + Send + 'static,
) -> Result<R, Failures> {
    let done = tokio::task::spawn_blocking(work);
    Ok(done.await.map_err(|error| Failure::new(format!("the build did not end: {error}")))??)
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
