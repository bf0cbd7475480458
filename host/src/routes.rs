//! Which plugins are subscribed to a subject. Kept in the store too, so that a plugin whose file is missing misses nothing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::event::subject::SubjectPattern;
use crate::store::{BacklogBounds, KnownPlugin};

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
    /// Whether it may have webhooks for an endpoint that asks for order.
    pub ordered: bool,
    /// What may wait for it.
    pub backlog: BacklogBounds,
    subjects: Vec<SubjectPattern>,
}

impl Routes {
    /// The routes of `known` plugins, of which `loaded` can be called. Subjects were validated when the plugin loaded; one
    /// that no longer parses matches nothing.
    pub fn new(known: &[KnownPlugin], loaded: impl Fn(&str) -> bool) -> Self {
        let route = |plugin: &KnownPlugin| Route {
            plugin: Arc::clone(&plugin.name),
            loaded: loaded(&plugin.name),
            ordered: false,
            backlog: BacklogBounds::default(),
            subjects: plugin.subjects.iter().filter_map(|subject| subject.parse().ok()).collect(),
        };
        Self { routes: known.iter().map(route).collect() }
    }

    /// The same routes with what `terms` says of each plugin: whether it has anything to keep in order, and what may wait
    /// for it.
    pub fn on_terms(mut self, terms: impl Fn(&str) -> (bool, BacklogBounds)) -> Self {
        for route in &mut self.routes {
            (route.ordered, route.backlog) = terms(&route.plugin);
        }
        self
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

    /// Puts `routes` in force. Returns those before.
    pub fn set(&self, routes: Routes) -> Replaced {
        let mut shared = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Replaced(std::mem::replace(&mut *shared, Arc::new(routes)))
    }
}

/// Routes that are not in force any more, and that somebody may still be about to use.
#[derive(Debug)]
pub struct Replaced(Arc<Routes>);

/// How often it is looked whether somebody still uses routes, and how often at most: a batch is routed in milliseconds.
const LET_GO_INTERVAL: Duration = Duration::from_millis(1);
const LET_GO_LOOKS_MAX: usize = 1_000;

impl Replaced {
    /// Returns once nobody uses them any more.
    pub async fn let_go(self) {
        for _ in 0..LET_GO_LOOKS_MAX {
            if Arc::strong_count(&self.0) == 1 {
                return;
            }
            tokio::time::sleep(LET_GO_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, subjects: &[&str]) -> KnownPlugin {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        KnownPlugin { name: name.into(), subjects, digest: "d".into() }
    }

    fn routes() -> Routes {
        let known = [
            known("orders", &["fraiseql.order.*", "fraiseql.order.created"]),
            known("audit", &[">"]),
            known("gone", &["fraiseql.invoice.>"]),
            known("broken", &["fraiseql..created"]),
        ];
        Routes::new(&known, |name| name != "gone")
    }

    #[test]
    fn every_subscribed_plugin_is_named_once() {
        let routes = routes();
        let check = |subject: &str, expected: &[(&str, bool)]| {
            let found: Vec<_> = routes.subscribed(subject).map(|route| (&*route.plugin, route.loaded)).collect();
            assert_eq!(found, expected, "{subject}");
        };
        check("fraiseql.order.created", &[("orders", true), ("audit", true)]);
        check("fraiseql.order.line.created", &[("audit", true)]);
        check("fraiseql.invoice.deleted", &[("audit", true), ("gone", false)]);
        check("fraiseql..created", &[("audit", true)]);
    }

    #[test]
    fn nobody_is_subscribed_where_nobody_is_known() {
        assert_eq!(SharedRoutes::default().get().subscribed("fraiseql.order.created").count(), 0);
    }

    #[test]
    fn routes_are_replaced_whole_and_those_in_use_stay() {
        let shared = SharedRoutes::default();
        shared.set(routes());
        let in_use = shared.get();
        shared.set(Routes::default());
        assert_eq!(in_use.subscribed("fraiseql.order.created").count(), 2);
        assert_eq!(shared.get().subscribed("fraiseql.order.created").count(), 0);
    }
}
