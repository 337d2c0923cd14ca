//! Typed views of header fields, read on demand from the text of [`crate::message::Headers`].
//!
//! Each type has `FromStr` and `Display`. The accessors here name the header field in their errors; a header field
//! that a message must have and lacks is an error too, so that a caller can answer 400 with its text.

pub mod address;
pub mod auth;
pub mod cseq;
pub mod params;
pub mod refer;
pub mod syntax;
pub mod timing;
pub mod via;

pub use address::NameAddr;
pub use auth::AuthValue;
pub use cseq::{CSeq, RAck};
pub use params::Params;
pub use refer::{Event, Reason, Replaces, SubscriptionState};
pub use timing::{MinSe, Refresher, RetryAfter, SessionExpires};
pub use via::Via;

use std::str::FromStr;

use crate::error::ParseError;
use crate::message::Headers;

impl Headers {
    /// The topmost Via: the previous hop of a request, ourselves in a response.
    ///
    /// # Errors
    ///
    /// If there is none or it cannot be read.
    pub fn via_top(&self) -> Result<Via, ParseError> {
        let value = self.values("Via").next().ok_or_else(|| missing("Via"))?;
        value.parse().map_err(|error: ParseError| error.within("Via"))
    }

    /// All Vias from the top.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn vias(&self) -> Result<Vec<Via>, ParseError> {
        self.parse_list("Via")
    }

    /// # Errors
    ///
    /// If it is missing or cannot be read.
    pub fn from(&self) -> Result<NameAddr, ParseError> {
        self.parse_one("From")
    }

    /// # Errors
    ///
    /// If it is missing or cannot be read.
    pub fn to(&self) -> Result<NameAddr, ParseError> {
        self.parse_one("To")
    }

    /// # Errors
    ///
    /// If it is missing or empty.
    pub fn call_id(&self) -> Result<&str, ParseError> {
        self.get("Call-ID").filter(|id| !id.is_empty()).ok_or_else(|| missing("Call-ID"))
    }

    /// # Errors
    ///
    /// If it is missing or cannot be read.
    pub fn cseq(&self) -> Result<CSeq, ParseError> {
        self.parse_one("CSeq")
    }

    /// True for `Contact: *`, which removes all bindings (RFC 3261 §10.2.2).
    pub fn contact_is_star(&self) -> bool {
        self.get("Contact").is_some_and(|value| value.trim() == "*")
    }

    /// The contacts; none for `Contact: *`.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, ParseError> {
        if self.contact_is_star() { Ok(Vec::new()) } else { self.parse_list("Contact") }
    }

    /// # Errors
    ///
    /// If one cannot be read.
    pub fn routes(&self) -> Result<Vec<NameAddr>, ParseError> {
        self.parse_list("Route")
    }

    /// # Errors
    ///
    /// If one cannot be read.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, ParseError> {
        self.parse_list("Record-Route")
    }

    /// Seconds, if there is an Expires.
    ///
    /// # Errors
    ///
    /// If it is not a number.
    pub fn expires(&self) -> Result<Option<u32>, ParseError> {
        self.get("Expires").map(syntax::seconds).transpose().map_err(|error| error.within("Expires"))
    }

    /// `0..=255`, if there is a Max-Forwards (RFC 3261 §20.22).
    ///
    /// # Errors
    ///
    /// If it is not a number up to 255.
    pub fn max_forwards(&self) -> Result<Option<u8>, ParseError> {
        self.get("Max-Forwards").map(syntax::number).transpose().map_err(|error| error.within("Max-Forwards"))
    }

    /// The media type in lower case without parameters, like `application/sdp`.
    pub fn content_type(&self) -> Option<String> {
        let value = self.get("Content-Type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// A header field with one value, of any type of this module.
    ///
    /// # Errors
    ///
    /// If it is missing or cannot be read.
    pub fn parse_one<T: FromStr<Err = ParseError>>(&self, name: &str) -> Result<T, ParseError> {
        let value = self.get(name).ok_or_else(|| missing(name))?;
        value.parse().map_err(|error: ParseError| error.within(name))
    }

    /// A header field that is a list, of any type of this module; empty if it is absent.
    ///
    /// # Errors
    ///
    /// If an element cannot be read.
    pub fn parse_list<T: FromStr<Err = ParseError>>(&self, name: &str) -> Result<Vec<T>, ParseError> {
        self.values(name).map(|value| value.parse().map_err(|error: ParseError| error.within(name))).collect()
    }
}

fn missing(name: &str) -> ParseError {
    ParseError::bad(format!("no {name} header field"))
}
