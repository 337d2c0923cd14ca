//! Session-Expires and Min-SE (RFC 4028 §4, §5), Retry-After (RFC 3261 §20.33), Expires-like numbers.

use std::fmt;
use std::str::FromStr;

use super::params::Params;
use super::syntax;
use crate::error::ParseError;

/// Who refreshes the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    Uac,
    Uas,
}

impl fmt::Display for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uac => "uac",
            Self::Uas => "uas",
        })
    }
}

/// `Session-Expires: 1800;refresher=uac`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    /// Seconds.
    pub interval: u32,
    pub refresher: Option<Refresher>,
}

impl FromStr for SessionExpires {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (interval, params) = value_and_params(text)?;
        let refresher = match params.get("refresher").map(str::to_ascii_lowercase).as_deref() {
            Some("uac") => Some(Refresher::Uac),
            Some("uas") => Some(Refresher::Uas),
            Some(_) | None => None,
        };
        Ok(Self { interval: syntax::seconds(&interval)?, refresher })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refresher {
            Some(refresher) => write!(f, "{};refresher={refresher}", self.interval),
            None => write!(f, "{}", self.interval),
        }
    }
}

/// `Min-SE: 90`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinSe(pub u32);

impl FromStr for MinSe {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (interval, _) = value_and_params(text)?;
        Ok(Self(syntax::seconds(&interval)?))
    }
}

/// `Retry-After: 18000 (a comment);duration=3600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// Seconds until the request may be repeated.
    pub delay: u32,
}

impl FromStr for RetryAfter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.trim().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        Ok(Self { delay: syntax::seconds(digits)? })
    }
}

/// `value;name=value`, the shape of many small header fields.
pub(super) fn value_and_params(text: &str) -> Result<(String, Params), ParseError> {
    let (value, params) = match text.split_once(';') {
        Some((value, params)) => (value, Params::parse(params)?),
        None => (text, Params::default()),
    };
    let value = value.trim();
    if value.is_empty() { Err(ParseError::bad("empty value")) } else { Ok((value.to_owned(), params)) }
}
