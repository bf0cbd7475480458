//! From a project's folder to a `.wasm` with its sidecar.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::step::{Step, StepError, run_steps};
use super::{Project, ProjectError};

/// A plugin that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The `.wasm`.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The sidecar beside it, where the project has one.
    pub sidecar: Option<PathBuf>,
}

/// Why there is no plugin. What was there before is there still.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The project is not in order.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The toolchain failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The toolchain ended well and left nothing.
    #[error("the build ended well and left no {}: {source}", file.display())]
    NoProduct {
        /// Where it should be.
        file: PathBuf,
        /// Why it can't be read.
        source: io::Error,
    },
    /// The result could not be put in place.
    #[error("{} can't be written: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a toolchain made, not yet put anywhere.
#[derive(Debug)]
pub struct Product {
    wasm: Vec<u8>,
    sidecar: Option<Vec<u8>>,
}

/// Builds `project`. Blocks for as long as the toolchain takes.
///
/// # Errors
/// The toolchain is missing or fails.
pub fn make(project: &Project, tell: &mut dyn FnMut(&Step)) -> Result<Product, BuildError> {
    let plan = (project.language.build)(project)?;
    run_steps(&plan.steps, &project.folder, tell)?;
    let wasm = fs::read(&plan.product);
    let wasm = wasm.map_err(|source| BuildError::NoProduct { file: plan.product.clone(), source })?;
    Ok(Product { wasm, sidecar: fs::read(project.sidecar()).ok() })
}

impl Product {
    /// Puts the plugin at `output`, its sidecar beside it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&self, output: &Path) -> Result<Built, BuildError> {
        let sidecar = output.with_extension("toml");
        // The sidecar first: a host that watches the folder takes the pair when the plugin comes.
        if let Some(text) = &self.sidecar {
            install(text, &sidecar)?;
        }
        install(&self.wasm, output)?;
        let sidecar = self.sidecar.is_some().then_some(sidecar);
        Ok(Built { file: output.to_owned(), bytes: self.wasm.len() as u64, sidecar })
    }
}

/// Builds `project` and puts the plugin at `output`, its sidecar beside it. Blocks for as long as the toolchain takes.
///
/// # Errors
/// The toolchain is missing or fails, or the result can't be written.
pub fn build(project: &Project, output: &Path, tell: &mut dyn FnMut(&Step)) -> Result<Built, BuildError> {
    make(project, tell)?.put(output)
}

/// Puts a file in place whole or not at all, and only where it differs: a running host may watch the folder.
fn install(bytes: &[u8], to: &Path) -> Result<(), BuildError> {
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let failed = |source| BuildError::Write { file: to.to_owned(), source };
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut draft = to.as_os_str().to_owned();
    draft.push(".draft");
    fs::write(&draft, bytes).map_err(failed)?;
    fs::rename(&draft, to).map_err(failed)
}
