//! The threads that call plugins are of two kinds, so that a call that waits for another service never keeps one waiting
//! that computes.

use crate::plugin::{Grant, Plugin};

/// Which threads call a plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crew {
    /// As many as the machine has cores: calls that compute.
    Computing,
    /// Many: calls of plugins that may make requests, and mostly wait for answers.
    Waiting,
}

impl Crew {
    pub(super) const ALL: [Self; 2] = [Self::Computing, Self::Waiting];

    pub(super) fn of(plugin: &Plugin) -> Self {
        if plugin.manifest.grants.contains(&Grant::Http) { Self::Waiting } else { Self::Computing }
    }

    /// What its threads are called.
    pub(super) fn thread_name(self, index: usize) -> String {
        match self {
            Self::Computing => format!("plugin-{index}"),
            Self::Waiting => format!("plugin-http-{index}"),
        }
    }
}

/// How many threads call plugins, each one call at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workers {
    /// For plugins that compute; at least 1.
    pub computing: usize,
    /// For plugins that may make requests; 0 where none may.
    pub waiting: usize,
}

impl Workers {
    /// Threads for plugins that make no requests.
    pub fn computing(computing: usize) -> Self {
        Self { computing, waiting: 0 }
    }

    /// The most calls at once.
    pub fn total(self) -> usize {
        self.computing + self.waiting
    }

    pub(super) fn of(self, crew: Crew) -> usize {
        match crew {
            Crew::Computing => self.computing.max(1),
            Crew::Waiting => self.waiting,
        }
    }
}
