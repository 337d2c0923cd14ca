//! Where each component sends now (RFC 8445 §12).

/// There is no path to send on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("component {0} has no valid pair yet")]
    NoValidPair(crate::Component),
    #[error("consent ran out on component {0}: restart ICE")]
    NoConsent(crate::Component),
    #[error("the agent is closed")]
    Closed,
}
