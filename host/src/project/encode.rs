//! The last step of a toolchain that makes a core module: the host makes a component of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Step;
use crate::plugin::{FILE_BYTES_MAX, encode};

/// Makes the component `product` of the module `core`, both absolute. `shown` is the component's path for people;
/// `see` is what an author should look at where that fails.
pub(super) fn encode_step(core: PathBuf, product: PathBuf, shown: &str, see: &'static str) -> Step {
    let work = Box::new(move || encode_file(&core, &product, see));
    Step::Work { what: format!("making the component {shown}"), work }
}

fn encode_file(core: &Path, component: &Path, see: &str) -> Result<(), String> {
    let failed = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    let bytes = fs::metadata(core).map_err(|error| failed(core, error))?.len();
    if bytes > FILE_BYTES_MAX as u64 {
        return Err(format!("the module has {bytes} bytes; a plugin may have {FILE_BYTES_MAX} at most"));
    }
    let module = fs::read(core).map_err(|error| failed(core, error))?;
    let encoded = encode(&module).map_err(|error| format!("{error}; see that {see}"))?;
    fs::write(component, encoded).map_err(|error| failed(component, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_exports_no_handler_is_told_of_with_what_to_see() {
        let folder = tempfile::tempdir().unwrap();
        let core = folder.path().join("a.core.wasm");
        fs::write(&core, wat::parse_str("(module)").unwrap()).unwrap();
        let error = encode_file(&core, &folder.path().join("a.wasm"), "main calls wirehook.Export").unwrap_err();
        assert!(error.ends_with("; see that main calls wirehook.Export"), "{error}");
        let error = encode_file(&folder.path().join("b"), &folder.path().join("a.wasm"), "").unwrap_err();
        assert!(error.contains("/b: "), "{error}");
    }
}
