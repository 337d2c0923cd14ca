//! WWW-Authenticate, Proxy-Authenticate, Authorization, Proxy-Authorization and Authentication-Info,
//! RFC 3261 §20.7, §20.44, §25.1, RFC 7616 §3.
//!
//! One field line holds one scheme with its parameters; commas separate parameters, so these lines are never
//! split as lists.

use std::fmt;
use std::str::FromStr;

use super::syntax;
use crate::error::ParseError;

/// A scheme and its parameters in their order. The same shape serves challenges and credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthValue {
    /// `Digest`, `NTLM` …, as received.
    pub scheme: String,
    /// Name, value without quotes, and whether it stood (or is to stand) in quotes.
    params: Vec<(String, String, bool)>,
}

impl AuthValue {
    pub fn new(scheme: &str) -> Self {
        Self { scheme: scheme.to_owned(), params: Vec::new() }
    }

    /// The value of a parameter without quotes.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|(_, value, _)| value.as_str())
    }

    /// Adds `name="value"`.
    #[must_use]
    pub fn quoted(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned(), true));
        self
    }

    /// Adds `name=value`.
    #[must_use]
    pub fn plain(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned(), false));
        self
    }
}

impl FromStr for AuthValue {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (scheme, rest) = text.trim().split_once([' ', '\t']).unwrap_or((text.trim(), ""));
        if !syntax::is_token(scheme) {
            return Err(ParseError::bad("authentication scheme is not a token"));
        }
        let mut value = Self::new(scheme);
        for param in syntax::split_list(rest) {
            let (name, text) = param.split_once('=').ok_or_else(|| ParseError::bad("auth parameter without '='"))?;
            let (name, text) = (name.trim(), text.trim());
            if !syntax::is_token(name) {
                return Err(ParseError::bad("auth parameter without a proper name"));
            }
            let quoted = text.starts_with('"');
            let content = if quoted { syntax::take_quoted(text)?.0 } else { text.to_owned() };
            value.params.push((name.to_owned(), content, quoted));
        }
        Ok(value)
    }
}

impl fmt::Display for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        for (position, (name, value, quoted)) in self.params.iter().enumerate() {
            f.write_str(if position == 0 { " " } else { ", " })?;
            if *quoted {
                write!(f, "{name}={}", syntax::quote(value))?;
            } else {
                write!(f, "{name}={value}")?;
            }
        }
        Ok(())
    }
}

/// Without `response` and `cnonce`: together with the challenge they allow the password to be guessed offline.
impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| ["response", "cnonce", "gssapi-data"].iter().any(|s| s.eq_ignore_ascii_case(name));
        let shown =
            self.params.iter().map(|(name, value, _)| (name, if secret(name) { "***" } else { value.as_str() }));
        f.debug_struct("AuthValue").field("scheme", &self.scheme).field("params", &shown.collect::<Vec<_>>()).finish()
    }
}
