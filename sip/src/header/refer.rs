//! Replaces (RFC 3891 §6.1), Event and Subscription-State (RFC 6665 §8.2), Reason (RFC 3326).

use std::fmt;
use std::str::FromStr;

use super::params::Params;
use super::syntax;
use super::timing::value_and_params;
use crate::error::ParseError;

/// Which dialog an INVITE is to take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    pub call_id: String,
    pub to_tag: String,
    pub from_tag: String,
    pub early_only: bool,
}

impl FromStr for Replaces {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (call_id, params) = value_and_params(text)?;
        let tag = |name: &str| {
            let found = params.get(name).map(str::to_owned);
            found.ok_or_else(|| ParseError::bad(format!("Replaces without {name}")))
        };
        let (to_tag, from_tag) = (tag("to-tag")?, tag("from-tag")?);
        Ok(Self { call_id, to_tag, from_tag, early_only: params.contains("early-only") })
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};to-tag={};from-tag={}", self.call_id, self.to_tag, self.from_tag)?;
        if self.early_only { f.write_str(";early-only") } else { Ok(()) }
    }
}

/// `Event: refer;id=93809824`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub package: String,
    pub id: Option<String>,
}

impl FromStr for Event {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (package, params) = value_and_params(text)?;
        if !syntax::is_token(&package) {
            return Err(ParseError::bad("event package is not a token"));
        }
        Ok(Self { package, id: params.get("id").map(str::to_owned) })
    }
}

/// `Subscription-State: terminated;reason=noresource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// `active`, `pending`, `terminated` or an extension, in lower case.
    pub state: String,
    /// Seconds.
    pub expires: Option<u32>,
    pub reason: Option<String>,
}

impl SubscriptionState {
    pub fn is_terminated(&self) -> bool {
        self.state == "terminated"
    }
}

impl FromStr for SubscriptionState {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (state, params) = value_and_params(text)?;
        let expires = params.get("expires").map(syntax::seconds).transpose()?;
        Ok(Self { state: state.to_ascii_lowercase(), expires, reason: params.text("reason") })
    }
}

/// `Reason: SIP;cause=200;text="Call completed elsewhere"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub protocol: String,
    pub cause: Option<u16>,
    pub text: Option<String>,
}

impl FromStr for Reason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (protocol, params) = value_and_params(text)?;
        let cause = params.get("cause").map(syntax::number).transpose()?;
        Ok(Self { protocol, cause, text: params.text("text") })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut params = Params::default();
        if let Some(cause) = self.cause {
            params.set("cause", cause.to_string());
        }
        if let Some(text) = &self.text {
            params.set("text", syntax::quote(text));
        }
        write!(f, "{}{params}", self.protocol)
    }
}
