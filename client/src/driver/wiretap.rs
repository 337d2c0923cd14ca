//! Signalling in the log: the first line of each SIP message with `-vv`, all of it without its secrets with `-vvv`.

use std::fmt::Display;

use tracing::{Level, debug, enabled, trace};

use crate::logging::redact;

/// Logs a payload if it is SIP and somebody wants to read it.
pub(super) fn log(direction: &'static str, peer: impl Display, payload: &[u8]) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let Some((first, text)) = sip(payload) else { return };
    debug!(%peer, "SIP {direction}: {first}");
    if enabled!(Level::TRACE) {
        for line in text.lines() {
            trace!(%peer, "SIP {direction} | {}", redact(line));
        }
    }
}

/// The first line and the whole, if this is the beginning of a SIP message (RFC 3261 §7).
fn sip(payload: &[u8]) -> Option<(&str, &str)> {
    if !payload.first()?.is_ascii_uppercase() {
        return None;
    }
    let text = std::str::from_utf8(payload).ok()?;
    let first = text.lines().next()?;
    first.contains("SIP/2.0").then_some((first, text))
}

#[cfg(test)]
mod wiretap_tests {
    use super::*;

    #[test]
    fn only_sip_is_text_to_be_logged() {
        let request = b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n";
        assert_eq!(sip(request).map(|(first, _)| first), Some("OPTIONS sip:a@b SIP/2.0"));
        for other in [&b"\r\n\r\n"[..], b"", &[0x40, 1, 0, 2, 9, 9], &[0x80, 111, 0, 1], b"HELLO"] {
            assert_eq!(sip(other), None);
        }
    }
}
