//! What will happen, in order of time and, at one instant, in order of insertion.

use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Debug)]
pub struct Queue<T> {
    entries: BTreeMap<(Instant, u64), T>,
    inserted: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), inserted: 0 }
    }
}

impl<T> Queue<T> {
    pub fn push(&mut self, at: Instant, entry: T) {
        self.inserted += 1;
        self.entries.insert((at, self.inserted), entry);
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn pop(&mut self) -> Option<(Instant, T)> {
        self.entries.pop_first().map(|((at, _), entry)| (at, entry))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod queue_tests {
    use super::*;
    use crate::sim::clock::{epoch, ms};

    #[test]
    fn entries_of_one_instant_come_out_as_they_went_in() {
        let mut queue = Queue::default();
        for (after, name) in [(5, "c"), (1, "a"), (5, "d"), (1, "b")] {
            queue.push(epoch() + ms(after), name);
        }
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
