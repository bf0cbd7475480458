//! Writing a new project.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Language, Names, SdkFile};

/// A folder like any other that its owner makes.
const FOLDER_MODE: u32 = 0o755;

/// A project that was written.
#[derive(Debug)]
pub struct Created {
    /// The folder, as it was asked for.
    pub folder: PathBuf,
    /// Its files, from the folder, by name.
    pub files: Vec<String>,
}

/// Why there is no new project. Nothing was written.
#[derive(Debug, Error)]
pub enum CreateError {
    /// There is something already.
    #[error("{} is there already, and is not an empty folder", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
    },
    /// It could not be written.
    #[error("{} can't be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes a project of `language` into `folder`, whole or not at all.
///
/// # Errors
/// The folder is not empty, or can't be written.
pub fn create(language: &Language, names: &Names, folder: &Path) -> Result<Created, CreateError> {
    if is_occupied(folder) {
        return Err(CreateError::Occupied { folder: folder.to_owned() });
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let draft = tempfile::Builder::new()
        .prefix(".wirehook-new-")
        .permissions(Permissions::from_mode(FOLDER_MODE))
        .tempdir_in(parent)
        .map_err(failed(parent))?;
    let mut files = Vec::new();
    for file in language.files(names) {
        write(draft.path(), &file)?;
        files.push(file.path.into_owned());
    }
    fs::rename(draft.path(), folder).map_err(failed(folder))?;
    files.sort();
    Ok(Created { folder: folder.to_owned(), files })
}

fn is_occupied(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn write(folder: &Path, file: &SdkFile) -> Result<(), CreateError> {
    let path = folder.join(&*file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    fs::write(&path, &file.bytes).map_err(failed(&path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CreateError + use<> {
    let path = path.to_owned();
    move |source| CreateError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_is_taken_and_any_other_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let names = Names::new("orders").unwrap();
        let language = Language::find("rust").unwrap();
        let folder = root.path().join("new/orders");
        fs::create_dir_all(&folder).unwrap();
        let created = create(language, &names, &folder).unwrap();
        assert!(created.files.iter().all(|file| folder.join(file).is_file()), "{created:?}");

        let error = create(language, &names, &folder).unwrap_err();
        assert!(matches!(error, CreateError::Occupied { .. }), "{error}");
        let file = root.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(create(language, &names, &file), Err(CreateError::Occupied { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert_eq!(fs::read_dir(root.path().join("new")).unwrap().count(), 1, "no draft is left");
    }
}
