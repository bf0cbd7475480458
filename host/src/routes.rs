//! Which plugins are subscribed to a subject. Kept in the store too, so that a plugin whose file is missing misses nothing.

use std::sync::{Arc, PoisonError, RwLock};

use crate::event::subject::SubjectPattern;
use crate::store::KnownPlugin;

/// Every known plugin with its subjects. Replaced whole when a plugin comes or goes.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

/// One plugin's subscription.
#[derive(Debug)]
pub struct Route {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Whether it can be called; else its runs are parked.
    pub loaded: bool,
    subjects: Vec<SubjectPattern>,
}

impl Routes {
    /// The routes of `known` plugins, of which `loaded` can be called. Subjects were validated when the plugin loaded; one
    /// that no longer parses matches nothing.
    pub fn new(known: &[KnownPlugin], loaded: impl Fn(&str) -> bool) -> Self {
        let route = |plugin: &KnownPlugin| Route {
            plugin: Arc::clone(&plugin.name),
            loaded: loaded(&plugin.name),
            subjects: plugin.subjects.iter().filter_map(|subject| subject.parse().ok()).collect(),
        };
        Self { routes: known.iter().map(route).collect() }
    }

    /// The plugins subscribed to `subject`, each once.
    pub fn subscribed<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Route> {
        self.routes.iter().filter(move |route| route.subjects.iter().any(|pattern| pattern.matches(subject)))
    }
}

/// The routes in force, replaced while events flow.
#[derive(Debug, Default)]
pub struct SharedRoutes(RwLock<Arc<Routes>>);

impl SharedRoutes {
    /// The routes in force now.
    pub fn get(&self) -> Arc<Routes> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `routes` in force.
    pub fn set(&self, routes: Routes) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }
}
