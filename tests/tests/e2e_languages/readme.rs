//! The README's tour, by its own lines.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::{artifacts, port, wait};

/// For what must happen, a build from nothing too, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// The README in this repository.
fn readme() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The blocks in `language` between two marks of the README, without their fences.
fn blocks(from: &str, to: &str, language: &str) -> Result<Vec<String>> {
    let text = readme()?;
    let (_, rest) = text.split_once(from).with_context(|| format!("the README has no `{from}`"))?;
    let (part, _) = rest.split_once(to).with_context(|| format!("the README has no `{to}` after `{from}`"))?;
    let fence = format!("```{language}\n");
    Ok(part.split(&fence).skip(1).filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect())
}

/// The commands that make a plugin, one a line.
pub(crate) fn plugin_lines() -> Result<Vec<String>> {
    let blocks = blocks("**1. A plugin.**", "**2. Settings.**", "sh")?;
    Ok(blocks.first().context("the README makes no plugin")?.lines().map(str::to_owned).collect())
}

/// `wirehook` in the folders of `path`.
pub(crate) fn with_wirehook(path: &OsString) -> Result<OsString> {
    let binary = artifacts::host_binary()?;
    let folder = binary.parent().context("a folder")?.to_owned();
    Ok(std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(path)))?)
}

/// A shell that a person types the README's lines into.
struct Terminal {
    shell: Child,
    input: ChildStdin,
    output: std::path::PathBuf,
}

impl Terminal {
    fn open(folder: &Path) -> Result<Self> {
        let output = folder.join("terminal.out");
        let out = std::fs::File::create(&output)?;
        let mut shell = Command::new("bash")
            .current_dir(folder)
            .env("PATH", with_wirehook(&std::env::var_os("PATH").unwrap_or_default())?)
            .env("CARGO_TARGET_DIR", artifacts::target_folder()?.join("guest-builds"))
            .stdin(Stdio::piped())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()?;
        let mut input = shell.stdin.take().context("its input")?;
        // What it began ends with it.
        writeln!(input, "trap 'kill $(jobs -p)' EXIT")?;
        Ok(Self { shell, input, output })
    }

    /// Types `lines`, whose commands must succeed, and waits until `says` has been printed `times` times.
    async fn type_until(&mut self, lines: &str, says: &str, times: usize) -> Result<()> {
        for line in lines.lines() {
            // A person has seen what went before, and sees whether a command failed.
            let must = if line.starts_with("kill") { "" } else { "[ $? = 0 ] || echo failed: the line above" };
            let line = if line.starts_with("wirehook dead-letters show") { patiently(line) } else { line.to_owned() };
            writeln!(self.input, "{line}\n{must}")?;
        }
        let mut printed = String::new();
        let waited = wait::until(&format!("`{says}` in the terminal"), DEADLINE, async || {
            printed = std::fs::read_to_string(&self.output)?;
            ensure!(!printed.contains("failed: the line above"), "a line of the README failed");
            Ok((printed.matches(says).count() >= times).then_some(()))
        })
        .await;
        waited.with_context(|| format!("the terminal shows:\n{printed}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The end of its input would end it, too, and nothing waits for a person here.
        let _ = writeln!(self.input, "exit");
        let _ = self.input.flush();
        let _ = self.shell.wait();
    }
}

/// The command again until it succeeds; what waits for its success has a deadline. Without the `:` the last wait, which
/// ran into its end, would be the status of the whole.
fn patiently(line: &str) -> String {
    format!("until {line}; do read -t 0.2 <> <(:) || :; done")
}

#[test]
fn the_function_that_is_shown_is_the_new_projects() -> Result<()> {
    let blocks = blocks("**1. A plugin.**", "**2. Settings.**", "rust")?;
    let shown = blocks.first().context("the README shows no function")?;
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/templates/rust/src/lib.rs");
    ensure!(std::fs::read_to_string(template)?.contains(shown.as_str()), "the template has another function:\n{shown}");
    Ok(())
}

/// From nothing to a verified webhook, by the README's first lines.
#[tokio::test]
async fn a_webhook_in_a_minute_goes_as_it_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (receiver, source, admin) = (port::free()?, port::free()?, port::free()?);
    let steps = blocks("## A webhook in a minute", "## Two commands", "sh")?;
    let lines = steps.first().context("the README has no first lines")?;
    let (init, rest) = lines.split_once('\n').context("its first line")?;
    let mut terminal = Terminal::open(folder.path())?;
    terminal.type_until(init, "next:", 1).await?;
    // Other tests listen where the README does.
    let here = |text: &str| {
        text.replace("127.0.0.1:8080", &format!("127.0.0.1:{receiver}"))
            .replace("127.0.0.1:7466", &format!("127.0.0.1:{source}"))
            .replace("wirehook receive", &format!("wirehook receive --listen 127.0.0.1:{receiver}"))
    };
    let file = folder.path().join("wirehook.toml");
    let settings = std::fs::read_to_string(&file)?;
    ensure!(
        settings.contains("[[route]]\nsubjects = [\">\"]\nto = \"receiver\"\n"),
        "the route is another: {settings}"
    );
    std::fs::write(&file, format!("{}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n", here(&settings)))?;
    let started = std::time::Instant::now();
    terminal.type_until(&here(rest), "attempt 1 verified", 1).await?;
    terminal.type_until("true", r#"{"type":"invoice.paid","timestamp":null,"data":{"total": 99}}"#, 1).await?;
    // An aim of ten seconds for the optimised program, tried by hand.
    ensure!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn the_tour_goes_as_it_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (receiver, source, admin) = (port::free()?, port::free()?, port::free()?);
    // Other tests listen where the README does.
    let here = |lines: &str| {
        lines
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{receiver}"))
            .replace("127.0.0.1:7466", &format!("127.0.0.1:{source}"))
            .replace("wirehook receive", &format!("wirehook receive --listen 127.0.0.1:{receiver}"))
    };
    let settings = blocks("**2. Settings.**", "**3. Watch", "toml")?;
    let settings = here(settings.first().context("the README has no settings")?);
    let settings = settings.replace("kind = \"http\"", &format!("kind = \"http\"\nlisten = \"127.0.0.1:{source}\""));
    let steps = blocks("**3. Watch a webhook arrive.**", "## Try a plugin", "sh")?;
    let [watch, refuse, redrive] = &steps[..] else { anyhow::bail!("the tour has {} steps", steps.len()) };

    let mut terminal = Terminal::open(folder.path())?;
    terminal.type_until(&plugin_lines()?.join("\n"), "it would run", 1).await?;
    let settings = format!("{settings}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
    std::fs::write(folder.path().join("greeter/wirehook.toml"), settings)?;
    terminal.type_until(&here(watch), "verified", 1).await?;
    terminal.type_until(&here(refuse), "status_4xx", 2).await?;
    terminal.type_until(&here(redrive), "verified", 3).await
}
