//! `wirehook plugin test --watch`: again and again, until somebody ends it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{TestArgs, once};
use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::dev::ProjectWatch;
use crate::project::{self, Project};
use crate::watch::FolderWatch;

/// Tests now and at every change. What does not come out as expected is told, and what is changed next is tested again.
pub(super) async fn watch(session: &mut Session<'_>, args: &TestArgs) -> Result<Exit, Failures> {
    let project = project_of(&args.file);
    let mut sources = project.clone().map(ProjectWatch::new);
    loop {
        let before = Looks::now(args);
        if let Some(project) = &project
            && let Err(failures) = build(project).await
        {
            session.console.failures(&failures);
        } else if let Err(failures) = once(session, args).await {
            session.console.failures(&failures);
        }
        if !session.console.json {
            session.console.line("waiting for a change; Ctrl-C ends this")?;
        }
        session.console.flush()?;
        before.changed(args, sources.as_mut()).await.map_err(|error| {
            let failure = Failure::new(format!("what is to be tested can't be watched: {error}"));
            failure.help("run it without --watch; the system's limit is fs.inotify.max_user_watches")
        })?;
    }
}

/// The project in the present folder, where the file is what it builds.
fn project_of(file: &Path) -> Option<Project> {
    let project = Project::open(Path::new(".")).ok()?;
    let whole = |path: &Path| std::path::absolute(path).ok();
    (whole(&project.output()) == whole(file)).then_some(project)
}

async fn build(project: &Project) -> Result<(), Failures> {
    let project = project.clone();
    let built = tokio::task::spawn_blocking(move || {
        let built = project::build(&project, &project.output(), &mut |step| eprintln!("$ {step}"));
        built.map(drop).map_err(|error| Failure::new(error.to_string()))
    });
    Ok(built.await.map_err(|error| Failure::new(format!("the build did not end: {error}")))??)
}

/// What is to be tested, as it looks from outside.
struct Looks {
    plugin: Vec<Option<SystemTime>>,
    events: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Looks {
    fn now(args: &TestArgs) -> Self {
        Self { plugin: plugin(args), events: events(args) }
    }

    /// Returns when the sources, the events, or, where there are no sources, the plugin's files are others.
    async fn changed(self, args: &TestArgs, sources: Option<&mut ProjectWatch>) -> notify::Result<()> {
        let folder = args.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let plugin_changed = async {
            match sources {
                Some(sources) => sources.changed().await,
                None => until(folder, || plugin(args) != self.plugin).await,
            }
        };
        tokio::select! {
            changed = plugin_changed => changed,
            changed = until(&args.events, || events(args) != self.events) => changed,
        }
    }
}

async fn until(folder: &Path, differs: impl Fn() -> bool) -> notify::Result<()> {
    let mut watch = FolderWatch::new(folder)?;
    while !differs() {
        // A folder that is another one by now is watched anew.
        if !watch.changed().await {
            watch = FolderWatch::new(folder)?;
        }
    }
    Ok(())
}

fn plugin(args: &TestArgs) -> Vec<Option<SystemTime>> {
    [args.file.clone(), args.file.with_extension("toml")].iter().map(|file| changed_at(&fs::metadata(file))).collect()
}

fn events(args: &TestArgs) -> Vec<(PathBuf, Option<SystemTime>)> {
    let entries = fs::read_dir(&args.events).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| (entry.path(), changed_at(&entry.metadata()))).collect();
    files.sort();
    files
}

fn changed_at(file: &io::Result<fs::Metadata>) -> Option<SystemTime> {
    file.as_ref().ok()?.modified().ok()
}
