//! A plugin's project: what `plugin new` writes and `plugin build` does, one entry in a table for each language.
//!
//! A language is data: its template, the SDK that goes with it (from this binary: `plugin new` asks no registry), and
//! the steps that make a `.wasm` of the folder. Running them is `build`'s, and the same for all.

mod rust;
mod go;
mod c;
mod python;
mod js;

mod build;
mod create;
mod encode;
mod names;
mod step;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use build::{BuildError, Built, Product, build, make};
pub use create::{CreateError, Created, create};
pub use names::{NAME_BYTES_MAX, NameError, Names};
pub use step::{Run, Step, StepError, Tool, run_steps};

/// Every language that has a template. Where a folder could be of two, the first that recognises it has it.
pub static LANGUAGES: &[&Language] =
    &[&rust::RUST, &go::GOLANG, &c::C, &python::PYTHON, &js::TYPESCRIPT, &js::JAVASCRIPT];

/// The contract, which most toolchains read.
pub const WIT: &str = include_str!("../../wit/subscriber.wit");

/// Where `plugin build` puts the plugin and its sidecar, within the project: a folder that a host can watch.
pub const OUTPUT_FOLDER: &str = "dist";

/// The largest manifest of a project that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What is written into every new project, whatever its language.
const SHARED: &[TemplateFile] = &[
    TemplateFile { path: "{{name}}.toml", text: include_str!("../templates/shared/sidecar.toml") },
    TemplateFile {
        path: "events/order_created.json",
        text: include_str!("../templates/shared/events/order_created.json"),
    },
    TemplateFile {
        path: "events/order_created.webhooks.json",
        text: include_str!("../templates/shared/events/order_created.webhooks.json"),
    },
];

/// What `plugin new` and `plugin build` know of a language.
pub struct Language {
    /// What `--lang` calls it: `rust`.
    pub name: &'static str,
    /// What `--lang` may call it as well.
    pub aliases: &'static [&'static str],
    /// What people call it: `Rust`.
    pub title: &'static str,
    /// Whether a folder is a project of this language; looks at names of files only.
    pub is_project: fn(&Path) -> bool,
    /// The plugin's name, by the project's own manifest.
    pub plugin_name: fn(&Path) -> Result<String, ProjectError>,
    /// The language's own files of a new project, beside what every project has: the sidecar and an event. They may
    /// say `{{name}}`, `{{ident}}` and `{{type}}`, in their paths too; see [`Names`].
    pub template: &'static [TemplateFile],
    /// The SDK's files, which are written verbatim.
    pub sdk: fn() -> Vec<SdkFile>,
    /// How a `.wasm` comes of it.
    pub build: fn(&Project) -> Result<BuildPlan, ProjectError>,
    /// What runs the project's own tests, natively.
    pub test: fn(&Project) -> Vec<Step>,
    /// Folders of the project that hold no source, at any depth: what the toolchain writes.
    pub output_folders: &'static [&'static str],
}

/// A file of a template, with names to be filled in.
#[derive(Clone, Copy, Debug)]
pub struct TemplateFile {
    /// Where it goes, from the project's folder, with `/`.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

/// A file of an SDK.
#[derive(Clone, Debug)]
pub struct SdkFile {
    /// Where it goes, from the project's folder, with `/`.
    pub path: Cow<'static, str>,
    /// What is in it.
    pub bytes: Cow<'static, [u8]>,
}

impl SdkFile {
    /// A file as it is in this binary.
    pub const fn new(path: &'static str, bytes: &'static [u8]) -> Self {
        Self { path: Cow::Borrowed(path), bytes: Cow::Borrowed(bytes) }
    }
}

/// A folder that is a plugin's project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its language.
    pub language: &'static Language,
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The plugin's name.
    pub name: String,
}

/// What makes a `.wasm` of a project.
#[derive(Debug)]
pub struct BuildPlan {
    /// In order; the first that fails ends the build.
    pub steps: Vec<Step>,
    /// Where the steps leave the `.wasm`, absolute.
    pub product: PathBuf,
}

/// Why a folder is no project.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// Not there, or not to be read.
    #[error("the folder {} can't be read: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing in it is known.
    #[error("{} is no project of a plugin: none of the languages {languages} knows its files", folder.display())]
    Unknown {
        /// The folder.
        folder: PathBuf,
        /// The languages that there are.
        languages: String,
    },
    /// Its manifest can't be read, or lacks something.
    #[error("{}: {what}", file.display())]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl Language {
    /// The language called `name`, by its name or an alias, in any case.
    pub fn find(name: &str) -> Option<&'static Self> {
        let is_it = |language: &&&'static Self| {
            std::iter::once(&language.name).chain(language.aliases).any(|known| known.eq_ignore_ascii_case(name))
        };
        LANGUAGES.iter().find(is_it).copied()
    }

    /// The names of all, for people.
    pub fn names() -> String {
        LANGUAGES.iter().map(|language| language.name).collect::<Vec<_>>().join(", ")
    }

    /// Every file of a new project, with its names filled in.
    fn files(&self, names: &Names) -> Vec<SdkFile> {
        let filled = SHARED.iter().chain(self.template).map(|file| SdkFile {
            path: names.fill(file.path).into(),
            bytes: names.fill(file.text).into_bytes().into(),
        });
        filled.chain((self.sdk)()).collect()
    }
}

impl std::fmt::Debug for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Project {
    /// The project in `folder`.
    ///
    /// # Errors
    /// The folder is not there, or no language knows it, or its manifest names no plugin.
    pub fn open(folder: &Path) -> Result<Self, ProjectError> {
        let failed = |source| ProjectError::Folder { folder: folder.to_owned(), source };
        let folder = fs::canonicalize(folder).map_err(failed)?;
        let language = LANGUAGES.iter().find(|language| (language.is_project)(&folder));
        let Some(language) = language.copied() else {
            return Err(ProjectError::Unknown { folder, languages: Language::names() });
        };
        let name = (language.plugin_name)(&folder)?;
        Ok(Self { language, folder, name })
    }

    /// A file or folder of it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// Where `plugin build` leaves the plugin unless told otherwise.
    pub fn output(&self) -> PathBuf {
        self.folder.join(OUTPUT_FOLDER).join(format!("{}.wasm", self.name))
    }

    /// The sidecar's source; it need not be there.
    pub fn sidecar(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }
}

/// The text of a manifest in `folder`.
fn manifest(folder: &Path, name: &str) -> Result<String, ProjectError> {
    use std::io::Read as _;
    let file = folder.join(name);
    let mut text = String::new();
    let read = fs::File::open(&file).and_then(|open| open.take(MANIFEST_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(ProjectError::Manifest { file, what: format!("it can't be read: {error}") }),
    }
}
