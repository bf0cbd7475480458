//! The tests of the SDK for C and of the examples in it.

use anyhow::{Context, Result};

use super::folders;
use crate::command::{Run, heading};
use crate::paths::Paths;

const ADVICE: &str = "what failed is above";

/// Sources of `sdk/c` that make its own tests.
const SDK_TESTS: [&str; 4] = ["wirehook.c", "wirehook_json.c", "wirehook_test.c", "sdk_test.c"];

/// What reads or writes outside, or overflows, ends the tests; so does a warning.
const FLAGS: [&str; 7] =
    ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Runs them natively.
pub(super) fn test(paths: &Paths) -> Result<()> {
    let sdk = paths.root.join("sdk/c");
    run(paths, &sdk, "sdk", FLAGS.iter().chain(&SDK_TESTS).map(|word| (*word).to_owned()).collect())?;
    for folder in folders(&paths.root.join("plugins"))? {
        if folder.join("compile_flags.txt").is_file() {
            let name = super::name_of(&folder)?;
            let mut words: Vec<String> = vec!["@compile_flags.txt".to_owned()];
            words.extend(FLAGS.map(str::to_owned));
            for part in ["src", "tests"] {
                words.extend(sources(&folder.join(part))?);
            }
            words.extend(SDK_TESTS[..3].iter().map(|file| sdk.join(file).display().to_string()));
            run(paths, &folder, &name, words)?;
        }
    }
    Ok(())
}

/// Compiles with `words` in `folder`, and runs what comes of it there.
fn run(paths: &Paths, folder: &std::path::Path, name: &str, words: Vec<String>) -> Result<()> {
    heading(&format!("test: {}", folder.display()));
    let built = paths.target.join("c-tests");
    std::fs::create_dir_all(&built).with_context(|| format!("creating {}", built.display()))?;
    let program = built.join(name);
    Run::new("cc", ADVICE).within(folder).args(words).arg("-o").arg(&program).success()?;
    Run::new(&program, ADVICE).within(folder).success()
}

/// The files of C in `folder`, by name.
fn sources(folder: &std::path::Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    Ok(found)
}
