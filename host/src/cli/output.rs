//! Files that commands write.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::failure::Failure;

/// Writes a file whole or not at all, in place of what is there.
///
/// # Errors
/// It can't be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let written = fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| unwritten(path, &error))
}

/// Writes a file that must not be there yet.
///
/// # Errors
/// It is there, or can't be written.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} can't be written: {error}", path.display()))
}
