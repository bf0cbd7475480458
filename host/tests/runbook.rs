//! The runbook is whole: what the program can say of itself has a section, and what the runbook says to paste can be
//! pasted. The lists are the program's own.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use wirehook::cli::Cli;
use wirehook::dead_letter::Reason;
use wirehook::metrics::Metrics;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Headings of a level, without marks of code.
fn headings(text: &str, level: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix(level)?.strip_prefix(' '));
    headings.map(|heading| heading.replace('`', "").trim().to_owned()).collect()
}

/// The text under the heading `name`, up to the next.
fn section<'t>(text: &'t str, name: &str) -> &'t str {
    let starts = [format!("### {name}\n"), format!("### `{name}`\n")];
    let start = starts.iter().find_map(|start| Some(text.find(start.as_str())? + start.len()));
    let rest = &text[start.unwrap_or_else(|| panic!("docs/runbook.md has no section `{name}`"))..];
    rest.split("\n## ").next().unwrap().split("\n### ").next().unwrap()
}

fn metric_names() -> Vec<String> {
    Metrics::new("0").unwrap().names()
}

fn alerts() -> Vec<String> {
    let text = read("examples/alerts.yml");
    text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned)).collect()
}

/// Words that look like metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("wirehook_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Fails where `text` names a metric that the program has not.
fn expect_known_metrics(text: &str, place: &str) {
    let known = metric_names();
    for word in metrics_in(text) {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(&word);
        assert!(known.iter().any(|name| *name == word || name == bare), "{place} names `{word}`, which is no metric");
    }
}

#[test]
fn every_reason_has_a_section_that_says_what_to_do() {
    let runbook = read("docs/runbook.md");
    for reason in Reason::ALL {
        let section = section(&runbook, reason.as_str());
        let list = format!("wirehook dead-letters list --reason {reason}");
        assert!(section.contains("```sh") && section.contains(&list), "`{reason}` has no command to paste");
        assert!(section.len() > 200, "`{reason}` says little");
    }
}

#[test]
fn every_metric_has_a_section_and_every_section_a_metric() {
    let runbook = read("docs/runbook.md");
    let (_, metrics) = runbook.split_once("\n## Metrics\n").unwrap();
    let headings = headings(metrics, "###");
    let names = metric_names();
    assert!(names.len() > 25, "{names:?}");
    for name in &names {
        assert!(headings.contains(name), "docs/runbook.md has no section `{name}`");
    }
    for heading in headings {
        assert!(names.contains(&heading), "docs/runbook.md has a section `{heading}`, which is no metric");
    }
    expect_known_metrics(&runbook, "docs/runbook.md");
    expect_known_metrics(&read("docs/service.md"), "docs/service.md");
}

#[test]
fn every_alert_has_a_section_and_points_there() {
    let (runbook, rules) = (read("docs/runbook.md"), read("examples/alerts.yml"));
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        let section = section(&runbook, alert);
        assert!(section.contains("```sh"), "`{alert}` has no command to paste");
        let anchor = format!("host/docs/runbook.md#{}", alert.to_lowercase());
        assert!(rules.lines().any(|line| line.trim().ends_with(&anchor)), "no alert points to {anchor}");
    }
    let (_, rest) = runbook.split_once("\n## Alerts\n").unwrap();
    for heading in headings(rest.split("\n## ").next().unwrap(), "###") {
        assert!(alerts.contains(&heading), "docs/runbook.md has a section `{heading}`, which is no alert");
    }
    expect_known_metrics(&rules, "examples/alerts.yml");
}

#[test]
fn every_anchor_leads_somewhere() {
    let runbook = read("docs/runbook.md");
    let known: BTreeSet<_> = ["##", "###"].iter().flat_map(|level| headings(&runbook, level)).collect();
    let known: BTreeSet<_> = known.iter().map(|heading| heading.to_lowercase().replace(' ', "-")).collect();
    for (_, rest) in runbook.match_indices("](#").map(|(at, mark)| (at, &runbook[at + mark.len()..])) {
        let anchor = rest.split(')').next().unwrap();
        assert!(known.contains(anchor), "#{anchor} leads nowhere");
    }
}

/// Lines of `sh` blocks and inline code that call `wirehook`, each up to a pipe or a file.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for part in text.split('`') {
        for line in part.lines().map(str::trim).filter(|line| line.starts_with("wirehook ")) {
            let line = line.split(" #").next().unwrap().split(" |").next().unwrap().split(" >").next().unwrap();
            commands.push(line.trim().to_owned());
        }
    }
    commands
}

#[test]
fn every_command_can_be_pasted() {
    for document in ["docs/runbook.md", "docs/service.md", "docs/dead-letters.md"] {
        let commands = commands(&read(document));
        for command in &commands {
            let words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
            // Names that stand for others are in capitals, where the text speaks of the command as such.
            if command.chars().any(|c| c.is_ascii_uppercase()) || command.contains('…') {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{document}: `{command}` is no command: {error}");
            }
        }
        assert!(document != "docs/runbook.md" || commands.len() > 60, "only {} commands were found", commands.len());
    }
}
