//! From the loop to its readers: events get their number and time, the snapshot follows, and whoever reads too slowly
//! gets the snapshot instead of what it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::broadcast;

use crate::api::{CallChange, EngineChange, Event, EventBody, Snapshot};

/// Events a reader may be behind before it is sent a snapshot (architecture §5).
pub const EVENTS_MAX: usize = 1024;

/// The publishing side, owned by the loop.
#[derive(Debug)]
pub struct EventHub {
    start: Instant,
    shared: Arc<Mutex<Snapshot>>,
    sender: broadcast::Sender<Arc<Event>>,
}

/// Where subscriptions come from.
#[derive(Debug, Clone)]
pub struct EventSource {
    shared: Arc<Mutex<Snapshot>>,
    sender: broadcast::WeakSender<Arc<Event>>,
    /// Subscriptions taken before the loop ran must not miss its first events.
    first: Arc<Mutex<VecDeque<broadcast::Receiver<Arc<Event>>>>>,
}

/// One reader's stream of events.
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
    shared: Arc<Mutex<Snapshot>>,
    seen: u64,
}

/// Makes both sides; `start` is the instant that events count their milliseconds from.
pub fn hub(start: Instant) -> (EventHub, EventSource) {
    let (sender, receiver) = broadcast::channel(EVENTS_MAX);
    let shared = Arc::new(Mutex::new(Snapshot::default()));
    let source = EventSource {
        shared: Arc::clone(&shared),
        sender: sender.downgrade(),
        first: Arc::new(Mutex::new(VecDeque::from([receiver]))),
    };
    (EventHub { start, shared, sender }, source)
}

impl EventHub {
    /// Numbers and publishes one event; returns it as published.
    pub fn publish(&mut self, now: Instant, body: EventBody) -> Arc<Event> {
        let mut snapshot = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at_ms = now.saturating_duration_since(self.start).as_millis();
        let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
        let event = Event { seq: snapshot.seq + 1, at_ms, body };
        snapshot.apply(&event);
        drop(snapshot);
        let event = Arc::new(event);
        // Nobody listening is no error: the snapshot has it.
        let _ = self.sender.send(Arc::clone(&event));
        event
    }

    /// Publishes the snapshot itself, the answer to [`crate::api::Command::Snapshot`].
    pub fn publish_snapshot(&mut self, now: Instant) {
        let snapshot = Box::new(self.snapshot());
        self.publish(now, EventBody::Engine(Box::new(EngineChange::Snapshot { snapshot })));
    }

    fn snapshot(&self) -> Snapshot {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl EventSource {
    /// A new reader; the first one misses nothing since the start.
    pub fn subscribe(&self) -> Events {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let seen = if first.is_some() { 0 } else { self.snapshot().seq };
        let receiver = first.or_else(|| self.sender.upgrade().map(|sender| sender.subscribe()));
        Events { receiver, shared: Arc::clone(&self.shared), seen }
    }

    /// The whole state now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Events {
    /// The next event; `None` once the engine is gone.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        let receiver = self.receiver.as_mut()?;
        loop {
            match receiver.recv().await {
                // Already contained in a snapshot that replaced what was missed.
                Ok(event) if event.seq <= self.seen => {}
                Ok(event) => {
                    self.seen = event.seq;
                    return Some(event);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // Subscribed before the snapshot is taken: what comes between is in both, and skipped by number.
                    *receiver = receiver.resubscribe();
                    let snapshot = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    self.seen = snapshot.seq;
                    return Some(Arc::new(whole(snapshot)));
                }
            }
        }
    }
}

fn whole(snapshot: Snapshot) -> Event {
    let (seq, at_ms) = (snapshot.seq, snapshot.at_ms);
    let change = EngineChange::Snapshot { snapshot: Box::new(snapshot) };
    Event { seq, at_ms, body: EventBody::Engine(Box::new(change)) }
}

/// True for the one event per call after which nothing of it remains.
pub fn ends_call(change: &CallChange) -> bool {
    matches!(change, CallChange::Ended { .. })
}

#[cfg(test)]
mod events_tests {
    use super::*;

    fn notice(text: &str) -> EventBody {
        EventBody::Engine(Box::new(EngineChange::Notice { text: text.to_owned() }))
    }

    #[tokio::test]
    async fn the_first_reader_sees_what_was_published_before_it_subscribed() {
        let now = crate::driver::clock::now();
        let (mut hub, source) = hub(now);
        hub.publish(now, notice("early"));
        let event = source.subscribe().next().await.unwrap();
        assert_eq!((event.seq, &event.body), (1, &notice("early")));
    }

    #[tokio::test]
    async fn a_reader_that_lags_gets_one_snapshot_and_then_the_next_event() {
        let now = crate::driver::clock::now();
        let (mut hub, source) = hub(now);
        let mut events = source.subscribe();
        let surplus = u64::try_from(EVENTS_MAX).unwrap() + 10;
        for seq in 0..surplus {
            hub.publish(now, notice(&seq.to_string()));
        }
        let event = events.next().await.unwrap();
        assert_eq!(event.seq, surplus);
        assert!(matches!(&event.body, EventBody::Engine(change) if matches!(**change, EngineChange::Snapshot { .. })));
        hub.publish(now, notice("after"));
        assert_eq!(events.next().await.unwrap().body, notice("after"));
        drop(hub);
        assert!(events.next().await.is_none());
    }
}
