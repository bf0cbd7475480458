//! Rules about one file at a time, each a pure function.

use super::{File, Finding};

/// Lines of a file of Rust, its unit tests included.
const LINES_MAX: usize = 600;
/// From here on a file is looked at again.
const LINES_WARN: usize = 400;
/// Bytes of a tracked file.
const FILE_BYTES_MAX: u64 = 200 << 10;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[
    ("host/src/store.rs", "the trait and the records that cross it are one contract, and are read together"),
    ("sdk/rust/src/bindings.rs", "generated; a test of the SDK says whether it still is"),
    ("host/tests/cli.rs", "what every command prints, one check after the other over the same fakes"),
    ("tests/src/conformance/store.rs", "one suite that every store passes, case by case"),
];

/// Files of `tests/` that may let time pass, each with its reason. Tests themselves wait on signals.
const SLEEPERS: &[(&str, &str)] = &[
    ("tests/src/wait.rs", "polls a condition up to a deadline, where there is no signal to wait on"),
    ("tests/src/nats_server.rs", "polls a server that is starting"),
    ("tests/src/postgres_server.rs", "polls a server that is starting"),
    ("tests/src/nginx.rs", "polls a server that is starting"),
    ("tests/src/postgres_server/process.rs", "polls processes that are ending, which are not its own children"),
    ("tests/src/fake_endpoint/answer.rs", "a slow endpoint is what it plays"),
    ("tests/src/bench/ready.rs", "polls a host that is starting, which is what it measures"),
    ("tests/src/bench/latency.rs", "publishes at times that are fixed in advance, which is the point"),
    ("tests/src/bench/idle.rs", "looks for a while at a host that has nothing to do"),
    ("tests/src/bench/run.rs", "waits as an HTTP client does that was told to come again"),
    ("tests/tests/e2e_postgres_outbox.rs", "an application that writes now and then is what it plays"),
    ("tests/tests/e2e_crash.rs", "kills the host after a random time, which is the point"),
    ("tests/tests/e2e_order.rs", "kills the host after a random time"),
    ("tests/tests/e2e_crash_mixed.rs", "kills the host after a random time, and is a sender that waits for its turn"),
    ("tests/src/outbox_writer.rs", "commits after random times, which is the point"),
];

/// Words with a better one in this project's vocabulary.
const SYNONYMS: &[(&str, &str)] = &[
    ("dlq", "dead letter"),
    ("dead-letter queue", "dead letters"),
    ("blacklist", "deny list"),
    ("whitelist", "allow list"),
];

/// Macros that stand for work not done, written so that this file does not break its own rule.
const UNFINISHED: [&str; 2] = [concat!("todo", "!("), concat!("unimplemented", "!(")];
const IGNORED: &str = concat!("#[", "ignore");
const SLEEPS: [&str; 2] = [concat!("thread::", "sleep("), concat!("time::", "sleep(")];
const ERROR_TEXT: &str = concat!("#[", "error(\"");

/// Every rule on every file, and the lists of exceptions on their own.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings: Vec<_> = files.iter().flat_map(check_file).collect();
    for (path, _) in LONG_FILES.iter().chain(SLEEPERS) {
        // The folder may be absent altogether while the project is young; a file of a present folder may not.
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if files.iter().any(|file| file.path.starts_with(folder)) && files.iter().all(|file| file.path != *path) {
            findings.push(Finding::warning(*path, "is in a list of exceptions in xtask/src/tidy/rules.rs, and gone"));
        }
    }
    findings
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(size(&file.path, file.bytes));
    findings.extend(wasm(&file.path));
    let Some(text) = &file.text else { return findings };
    if file.path.ends_with("Cargo.toml") {
        findings.extend(lints(&file.path, text));
    }
    if file.path.ends_with(".rs") {
        findings.extend(length(&file.path, text.lines().count()));
        findings.extend(unfinished(&file.path, text));
        findings.extend(ignored(&file.path, text));
        findings.extend(sleeps(&file.path, text));
        findings.extend(synonyms(&file.path, text));
        findings.extend(error_texts(&file.path, text));
    }
    findings
}

fn size(path: &str, bytes: u64) -> Option<Finding> {
    (bytes > FILE_BYTES_MAX).then(|| {
        Finding::error(
            path,
            format!(
                "{} KiB are tracked, {} at most: generate it where it is needed",
                bytes >> 10,
                FILE_BYTES_MAX >> 10
            ),
        )
    })
}

/// The component that the host has in it.
const EMBEDDED: &str = "host/src/plugin/builtin/forward.wasm";

fn wasm(path: &str) -> Option<Finding> {
    let is_wasm = [".wasm", ".cwasm"].iter().any(|end| path.ends_with(end)) && path != EMBEDDED;
    is_wasm.then(|| Finding::error(path, "a built plugin is tracked: `cargo xtask plugins` builds it from its source"))
}

fn lints(path: &str, text: &str) -> Option<Finding> {
    let has_package = text.lines().any(|line| line.trim() == "[package]");
    let has_lints =
        text.lines().skip_while(|line| line.trim() != "[lints]").any(|line| line.trim() == "workspace = true");
    // The examples are packages as an author's are: with no workspace around them.
    (has_package && !has_lints && !path.starts_with("plugins/"))
        .then(|| Finding::error(path, "takes no lints from the workspace: add `[lints]` with `workspace = true`"))
}

fn length(path: &str, lines: usize) -> Option<Finding> {
    let is_listed = LONG_FILES.iter().any(|(listed, _)| *listed == path);
    match lines {
        _ if is_listed => None,
        ..=LINES_WARN => None,
        _ if lines <= LINES_MAX => {
            Some(Finding::warning(path, format!("{lines} lines; from {LINES_WARN} on, look whether it is two things")))
        }
        _ => Some(Finding::error(
            path,
            format!("{lines} lines, {LINES_MAX} at most: split it, or list it with a reason in LONG_FILES"),
        )),
    }
}

fn unfinished(path: &str, text: &str) -> Vec<Finding> {
    lines_with(path, text, &UNFINISHED, "stands for work that is not done: do it")
}

fn ignored(path: &str, text: &str) -> Vec<Finding> {
    lines_with(path, text, &[IGNORED], "is a test that nobody runs: mend it, or remove it")
}

fn sleeps(path: &str, text: &str) -> Vec<Finding> {
    // The hostile guests may do as they like.
    let is_test = path.starts_with("tests/") && !path.starts_with("tests/guests/");
    if !is_test || SLEEPERS.iter().any(|(listed, _)| *listed == path) {
        return Vec::new();
    }
    lines_with(path, text, &SLEEPS, "lets time pass: wait on a signal, or poll with a deadline")
}

fn synonyms(path: &str, text: &str) -> Vec<Finding> {
    // This file has to name them.
    if path == "xtask/src/tidy/rules.rs" {
        return Vec::new();
    }
    let find = |line: &str| {
        let line = line.to_ascii_lowercase();
        SYNONYMS.iter().find(|(synonym, _)| line.contains(synonym))
    };
    let found = text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, find(line)?)));
    found
        .map(|(line, (synonym, word))| {
            Finding::error(format!("{path}:{line}"), format!("`{synonym}` is called `{word}` here"))
        })
        .collect()
}

/// Messages of errors start in lower case, unless with an abbreviation or a name in code, and have no full stop: they
/// are joined with others.
fn error_texts(path: &str, text: &str) -> Vec<Finding> {
    let texts = text.lines().enumerate().filter_map(|(index, line)| {
        let (message, _) = line.trim_start().strip_prefix(ERROR_TEXT)?.split_once('"')?;
        Some((index + 1, message))
    });
    let is_wrong = |message: &str| {
        let mut letters = message.chars();
        let begins = letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase);
        begins || (message.ends_with('.') && !message.ends_with(".."))
    };
    texts
        .filter(|(_, message)| is_wrong(message))
        .map(|(line, _)| {
            Finding::error(
                format!("{path}:{line}"),
                "an error's message starts in lower case and ends without a full stop",
            )
        })
        .collect()
}

fn lines_with(path: &str, text: &str, needles: &[&str], message: &str) -> Vec<Finding> {
    let found = text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.trim_start();
        if code.starts_with("//") {
            return None;
        }
        Some((index + 1, needles.iter().find(|needle| code.contains(**needle))?))
    });
    found.map(|(line, needle)| Finding::error(format!("{path}:{line}"), format!("`{needle}` {message}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{ERROR_TEXT, FILE_BYTES_MAX, IGNORED, SLEEPERS, SLEEPS, UNFINISHED};

    fn places(findings: Vec<super::Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn large_files_are_not_tracked() {
        assert_eq!(super::size("a", FILE_BYTES_MAX), None);
        assert!(super::size("a", FILE_BYTES_MAX + 1).is_some_and(|finding| !finding.is_warning));
    }

    #[test]
    fn built_plugins_are_not_tracked() {
        assert!(super::wasm("plugins/orders.wasm").is_some());
        assert!(super::wasm("plugins/wasm.rs").is_none());
        assert!(super::wasm(super::EMBEDDED).is_none());
    }

    #[test]
    fn long_files_are_warned_of_and_then_refused() {
        let check = |lines| super::length("host/src/long.rs", lines).map(|finding| finding.is_warning);
        assert_eq!([check(400), check(401), check(600), check(601)], [None, Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn packages_take_the_workspaces_lints() {
        let check = |path, text| super::lints(path, text).is_some();
        assert!(check("host/Cargo.toml", "[package]\nname = \"a\""));
        assert!(check("host/Cargo.toml", "[package]\nversion.workspace = true\n[lints]\n"));
        assert!(!check("host/Cargo.toml", "[package]\n[lints]\nworkspace = true\n"));
        assert!(!check("Cargo.toml", "[workspace]\n"));
        assert!(!check("plugins/orders/Cargo.toml", "[package]"));
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_not_in_comments() {
        let text = format!("fn a() {{\n    {})\n}}\n// {})", UNFINISHED[0], UNFINISHED[1]);
        assert_eq!(places(super::unfinished("a.rs", &text)), ["a.rs:2"]);
    }

    #[test]
    fn ignored_tests_are_found() {
        let text = format!("#[test]\n{IGNORED} = \"slow\"]\nfn a() {{}}");
        assert_eq!(places(super::ignored("a.rs", &text)), ["a.rs:2"]);
    }

    #[test]
    fn only_listed_files_and_guests_may_sleep() {
        let text = format!("tokio::{}a).await;\nstd::{}b);", SLEEPS[1], SLEEPS[0]);
        assert_eq!(places(super::sleeps("tests/tests/a.rs", &text)), ["tests/tests/a.rs:1", "tests/tests/a.rs:2"]);
        assert_eq!(places(super::sleeps("tests/guests/a/src/lib.rs", &text)), [""; 0]);
        assert_eq!(places(super::sleeps("host/src/a.rs", &text)), [""; 0]);
        assert_eq!(places(super::sleeps(SLEEPERS[0].0, &text)), [""; 0]);
    }

    #[test]
    fn one_word_has_one_meaning() {
        assert_eq!(places(super::synonyms("a.rs", "let letters;\nlet DLQ_size;")), ["a.rs:2"]);
    }

    #[test]
    fn error_messages_can_be_joined() {
        let check = |message: &str| !super::error_texts("a.rs", &format!("    {ERROR_TEXT}{message}\")]")).is_empty();
        for (message, is_wrong) in [
            ("the store is closed", false),
            ("The store is closed", true),
            ("the store is closed.", true),
            ("TLS failed", false),
            ("`{0}` is unknown", false),
        ] {
            assert_eq!(check(message), is_wrong, "{message}");
        }
    }
}
