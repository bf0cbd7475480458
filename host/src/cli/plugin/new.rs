//! `wirehook plugin new`

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde_json::json;

use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::project::{self, CreateError, Created, LANGUAGES, Language, Names, Project, ProjectError};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin new orders
  wirehook plugin new orders --lang python
  wirehook plugin new order-mails --lang ts --dir plugins/mails

Everything is in this program: no network is needed to write a project.";

/// What a new project is written in where nothing says so.
const LANGUAGE_DEFAULT: &str = "rust";

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The plugin's name: letters a-z, digits, - and _
    name: String,
    /// Its language
    #[arg(long, value_name = "LANGUAGE", default_value = LANGUAGE_DEFAULT, ignore_case = true, value_parser = languages())]
    lang: &'static Language,
    /// The folder to write, which must not be there or be empty [default: ./NAME]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Names for completion, for help, and for a suggestion where one is mistyped.
fn languages() -> impl TypedValueParser<Value = &'static Language> {
    let values = LANGUAGES.iter().map(|language| PossibleValue::new(language.name).aliases(language.aliases));
    PossibleValuesParser::new(values).try_map(|name| Language::find(&name).ok_or("it has no template"))
}

pub(super) fn new(session: &mut Session<'_>, args: &NewArgs) -> Result<Exit, Failures> {
    let names = Names::new(&args.name).map_err(|error| Failure::new(error.to_string()).into_usage())?;
    let language = args.lang;
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&names.name));
    let created = project::create(language, &names, &folder)?;
    let project = Project::open(&created.folder)?;
    if session.console.json {
        let Created { folder, files } = &created;
        session.console.object(&json!({
            "name": names.name, "language": language.name, "folder": folder, "files": files,
        }))?;
        return Ok(Exit::Success);
    }
    let shown = created.folder.display().to_string();
    session.console.line(format_args!(
        "made {}, a plugin in {}: {} files",
        shown,
        language.title,
        created.files.len()
    ))?;
    session.console.line("next:")?;
    session.console.line(format_args!("  cd {shown}"))?;
    for step in (language.test)(&project) {
        session.console.line(format_args!("  {step}"))?;
    }
    session.console.line("  wirehook plugin build")?;
    Ok(Exit::Success)
}

impl From<CreateError> for Failures {
    fn from(error: CreateError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            CreateError::Occupied { .. } => failure.help("name another folder with --dir FOLDER").into(),
            CreateError::Write { .. } => {
                failure.help("name a folder that this user may write, with --dir FOLDER").into()
            }
        }
    }
}

impl From<ProjectError> for Failures {
    fn from(error: ProjectError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            ProjectError::Unknown { .. } => {
                failure.help("name the project's folder, or make one with `wirehook plugin new`").into()
            }
            ProjectError::Folder { .. } | ProjectError::Manifest { .. } => failure.into(),
        }
    }
}
