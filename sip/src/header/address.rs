//! From, To, Contact, Route, Record-Route, Path and their kin: `name-addr` or `addr-spec`, RFC 3261 §20.10, §25.1.

use std::fmt;
use std::str::FromStr;

use super::params::Params;
use super::syntax;
use crate::error::ParseError;
use crate::uri::Uri;

/// A URI with a display name and header parameters. Always written with angle brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// Without quotes and escapes; empty if there is none.
    pub display_name: String,
    pub uri: Uri,
    pub params: Params,
}

impl NameAddr {
    pub fn new(uri: Uri) -> Self {
        Self { display_name: String::new(), uri, params: Params::default() }
    }

    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag")
    }

    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.params.set("tag", tag);
        self
    }

    /// The `expires` parameter of a Contact, seconds (RFC 3261 §20.10).
    pub fn expires(&self) -> Option<u32> {
        self.params.get("expires").and_then(|text| syntax::seconds(text).ok())
    }

    /// The `q` parameter of a Contact in thousandths, `0..=1000`; 1000 if absent or unreadable.
    pub fn q_thousandths(&self) -> u16 {
        let Some(text) = self.params.get("q") else {
            return 1000;
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        let (whole, digits) = (whole.parse::<u16>(), digits.parse::<u16>());
        whole
            .ok()
            .zip(digits.ok())
            .map_or(1000, |(whole, digits)| whole.saturating_mul(1000).saturating_add(digits).min(1000))
    }
}

impl FromStr for NameAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let (display_name, rest) = if text.starts_with('"') {
            let (name, rest) = syntax::take_quoted(text)?;
            (name, rest.trim_start())
        } else if let Some(bracket) = text.find('<') {
            let (name, rest) = text.split_at_checked(bracket).unwrap_or_default();
            // Words of token characters; other scripts unquoted are forgiven, separators are not (RFC 4475 §3.1.2.16).
            if !name.split_whitespace().all(|word| word.chars().all(|c| syntax::is_token_char(c) || !c.is_ascii())) {
                return Err(ParseError::bad("display name must be quoted"));
            }
            (name.trim().to_owned(), rest)
        } else {
            return addr_spec(text);
        };
        let inner = rest.strip_prefix('<').ok_or_else(|| ParseError::bad("no '<' behind the display name"))?;
        let (uri, rest) = inner.split_once('>').ok_or_else(|| ParseError::bad("address without '>'"))?;
        let params = match rest.trim_start().strip_prefix(';') {
            Some(params) => Params::parse(params)?,
            None if rest.trim().is_empty() => Params::default(),
            None => return Err(ParseError::bad("text behind the '>' of an address")),
        };
        Ok(Self { display_name, uri: uri.parse()?, params })
    }
}

/// Without angle brackets all parameters belong to the header field, and a comma, question mark or semicolon
/// cannot be the URI's (RFC 3261 §20.10, RFC 4475 §3.1.2.13).
fn addr_spec(text: &str) -> Result<NameAddr, ParseError> {
    let (uri, params) = match text.split_once(';') {
        Some((uri, params)) => (uri.trim_end(), Params::parse(params)?),
        None => (text, Params::default()),
    };
    if uri.contains(['?', ',']) {
        return Err(ParseError::bad("a URI with '?' or ',' must stand in angle brackets"));
    }
    Ok(NameAddr { display_name: String::new(), uri: uri.parse()?, params })
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.display_name.is_empty() {
            write!(f, "{} ", syntax::quote(&self.display_name))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}
