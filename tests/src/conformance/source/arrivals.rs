//! Which orders have arrived as webhooks, and under which ids.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::order::number_of;
use crate::fake_endpoint::FakeEndpoint;

/// What a fake endpoint received, by the order's number.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    requests: usize,
    ids: BTreeMap<usize, HashSet<String>>,
}

impl Arrivals {
    /// Takes in what has arrived since the last look.
    pub(super) fn look(&mut self, endpoint: &FakeEndpoint) -> Result<()> {
        endpoint.look(|log| {
            for request in &log.all()[self.requests..] {
                let number = number_of(&request.body).with_context(|| format!("a webhook of no order: {request:?}"))?;
                self.ids.entry(number).or_default().insert(request.webhook_id().to_owned());
            }
            self.requests = log.all().len();
            Ok(())
        })
    }

    /// How many orders have arrived.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Those of `numbers` that have not arrived.
    pub(super) fn missing(&self, numbers: Range<usize>) -> Vec<usize> {
        numbers.filter(|number| !self.ids.contains_key(number)).collect()
    }

    /// Fails where an order has arrived under two ids.
    pub(super) fn expect_one_id_each(&self) -> Result<()> {
        let twice = self.ids.iter().find(|(_, ids)| ids.len() != 1);
        ensure!(twice.is_none(), "an order has not one webhook-id: {twice:?}");
        Ok(())
    }
}
