//! Lines in the host's log, with the plugin's name and the event's key beside them.
//!
//! A call has a budget of 100 lines and 16 KiB; past it lines are dropped and counted. Under `cargo test` lines are kept
//! for [`crate::test::logs`] instead.
//!
//! ```
//! use wirehook_sdk::log;
//!
//! log::info!("{} lines", 3);
//! log::warn!("no total; using 0");
//! ```

use std::fmt;

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Every step.
    Trace,
    /// Of use to the plugin's author.
    Debug,
    /// Of use to the operator.
    Info,
    /// Something to look at, though the event was handled.
    Warn,
    /// Something went wrong.
    Error,
}

pub use crate::{
    __wirehook_debug as debug, __wirehook_error as error, __wirehook_info as info, __wirehook_trace as trace,
    __wirehook_warn as warn,
};

/// Writes one line. The macros of this module are shorter.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    // A message without arguments needs no allocation.
    match message.as_str() {
        Some(text) => emit(level, text),
        None => emit(level, &message.to_string()),
    }
}

#[cfg(target_arch = "wasm32")]
fn emit(level: Level, message: &str) {
    use crate::bindings::wirehook::plugin::log;
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn emit(level: Level, message: &str) {
    crate::test::record_log(level, message);
}

/// Writes a line of level `trace`.
#[doc(hidden)]
#[macro_export]
macro_rules! __wirehook_trace {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::core::format_args!($($message)+)) };
}

/// Writes a line of level `debug`.
#[doc(hidden)]
#[macro_export]
macro_rules! __wirehook_debug {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($message)+)) };
}

/// Writes a line of level `info`.
#[doc(hidden)]
#[macro_export]
macro_rules! __wirehook_info {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Info, ::core::format_args!($($message)+)) };
}

/// Writes a line of level `warn`.
#[doc(hidden)]
#[macro_export]
macro_rules! __wirehook_warn {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($message)+)) };
}

/// Writes a line of level `error`.
#[doc(hidden)]
#[macro_export]
macro_rules! __wirehook_error {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Error, ::core::format_args!($($message)+)) };
}

#[cfg(test)]
mod tests {
    use super::Level;
    use crate::{log, test};

    #[test]
    fn lines_are_kept_with_their_level_for_tests() {
        let total = 3;
        log::info!("{total} of {}", 4);
        log::error!("plain");
        assert_eq!(test::logs(), [(Level::Info, "3 of 4".to_owned()), (Level::Error, "plain".to_owned())]);
        assert!(test::logs().is_empty(), "reading takes the lines away");
    }
}
