//! What operators do, in the model and in the store.

use std::collections::BTreeSet;

use wirehook::store::{DeliveryChange, DeliveryFilter, DeliveryVerb, History, ParkedFate, Purge};

use super::{Harness, Letter, RunName};

impl Harness<'_> {
    pub(super) async fn change(&mut self, verb: DeliveryVerb) {
        let now = self.model.now;
        let change = DeliveryChange {
            verb: verb.clone(),
            filter: DeliveryFilter::default(),
            after: None,
            given_back: Vec::new(),
        };
        let changed = self.store().change_deliveries(change, now).await.unwrap();
        let mut expected = (0, 0);
        for (_, work) in self.model.deliveries.values_mut().filter(|(_, work)| work.waits()) {
            match verb {
                _ if work.held => {
                    expected.1 += 1;
                    continue;
                }
                DeliveryVerb::Retry => work.due_at = work.due_at.min(now),
                _ => work.end("discarded", now),
            }
            expected.0 += 1;
        }
        assert_eq!((changed.changed, changed.in_flight), expected);
    }

    pub(super) async fn forget(&mut self, plugin: &'static str, fate: ParkedFate) {
        let now = self.model.now;
        let forgotten = self.store().forget_plugin(plugin.into(), fate, now).await.unwrap();
        let model = &mut self.model;
        let mut expected = (0, 0);
        for (name, work) in model.runs.iter_mut().filter(|(name, _)| name.1 == plugin) {
            match (work.state, work.held) {
                ("pending" | "retrying", true) => expected.1 += 1,
                ("pending" | "retrying" | "parked", _) => {
                    expected.0 += 1;
                    match fate {
                        ParkedFate::Die => {
                            work.end("dead", now);
                            model.letters.push(Letter::Run(name.0, name.1));
                        }
                        ParkedFate::Discard => work.end("discarded", now),
                    }
                }
                _ => {}
            }
        }
        assert_eq!((forgotten.runs, forgotten.in_flight), expected);
    }

    /// Purges an entity, whose id is the event's key here, with all that waits.
    pub(super) async fn purge(&mut self, key: u8) {
        let purge = Purge {
            entity_id: key.to_string(),
            entity_type: None,
            discard_waiting: true,
            dry_run: false,
            given_back: Vec::new(),
        };
        let purged = self.store().purge(purge, self.model.now).await.unwrap();
        let model = &mut self.model;
        let Some(seq) = model.events.iter().find(|(_, (known, _))| *known == key).map(|(seq, _)| *seq) else {
            assert_eq!(purged.events, 0);
            return;
        };
        let of = |name: &RunName| name.0 == seq;
        let held = model.runs.iter().any(|(name, work)| of(name) && work.held)
            || model.deliveries.values().any(|(name, work)| of(name) && work.held);
        assert_eq!((purged.done, purged.events), (!held, u64::from(!held)));
        if held {
            return;
        }
        let gone: BTreeSet<_> =
            model.deliveries.iter().filter(|(_, (name, _))| of(name)).map(|(seq, _)| *seq).collect();
        model.letters.retain(|letter| match letter {
            Letter::Message(_, conflict) => *conflict != Some(key),
            Letter::Run(event, _) => *event != seq,
            Letter::Delivery(delivery) => !gone.contains(delivery),
        });
        model.conflicts.remove(&key);
        model.events.remove(&seq);
        model.runs.retain(|name, _| !of(name));
        model.deliveries.retain(|delivery, _| !gone.contains(delivery));
    }
}
