//! What clang needs to make WebAssembly of C, beside programs: each a file that clang itself can look for.

use std::path::Path;

use crate::command::{Run, find_program};

/// A file of the toolchain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum File {
    /// Of the C library: what a module without main begins with.
    Libc,
    /// Of the compiler's own library.
    Builtins,
}

impl File {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Libc => "crt1-reactor.o",
            Self::Builtins => "libclang_rt.builtins-wasm32.a",
        }
    }

    /// Debian's package.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Libc => "wasi-libc",
            Self::Builtins => "libclang-rt-dev-wasm32",
        }
    }

    /// Whether clang finds it: asked for a file that it does not find, it prints no path of one that is there.
    pub(super) fn is_there(self) -> bool {
        if find_program("clang").is_none() {
            return false;
        }
        let question: &[&str] = match self {
            Self::Libc => &["-print-file-name=crt1-reactor.o"],
            Self::Builtins => &["-print-libgcc-file-name", "-rtlib=compiler-rt"],
        };
        let clang = Run::new("clang", "run it by hand").arg("--target=wasm32-wasi").args(question);
        clang.output().is_ok_and(|printed| {
            let path = Path::new(printed.trim());
            path.is_absolute() && path.is_file()
        })
    }
}
