//! Session descriptions, RFC 8866: syntax and typed access. Their meaning (offer and answer) is the client's.
//!
//! The syntax is read by `sdp-types`, which is lenient; [`SessionDescription::parse`] refuses what an offer or
//! answer cannot do without (RFC 3264 §5). Attributes that nobody here knows stay in their place.

mod attribute;
mod session;

pub use attribute::{Direction, Fingerprint, FormatParameters, RtcpAddress, RtpMap};
pub use session::{Media, MediaSection, SdpError, SessionDescription};
