//! Why a message or a header field could not be read, and what a server answers to it.

use crate::message::Request;

/// A message, header field or URI that breaks its grammar (RFC 3261 §25).
///
/// `status` is what a server should answer if the message was a request: 400, 505 for another SIP version
/// (RFC 3261 §21.5.6), 513 for one that is too large (§21.5.7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ParseError {
    /// The status code of the answer, should there be one.
    pub status: u16,
    /// What is wrong, fit for a reason phrase and for a log line.
    pub reason: String,
    /// The request as far as it was understood. Present if it names enough (Via, From, To, Call-ID, CSeq) for an
    /// answer to find its way back; absent for responses, which are dropped (RFC 3261 §18.1.2), and for noise.
    pub request: Option<Box<Request>>,
}

impl ParseError {
    /// A 400 without the request it belongs to.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::with_status(400, reason)
    }

    /// Another status than 400.
    pub fn with_status(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), request: None }
    }

    /// The same error with the name of the place it happened in put before its text.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.reason = format!("{place}: {}", self.reason);
        self
    }
}
