//! `;name=value` parameters, RFC 3261 §25.1 `generic-param` and `uri-parameter`.

use std::fmt;

use super::syntax;
use crate::error::ParseError;

/// Parameters in their order. Names compare without case; values keep quotes and escapes as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    list: Vec<(String, Option<String>)>,
}

impl Params {
    /// Reads `name=value;name`, without a `;` before the first.
    ///
    /// # Errors
    ///
    /// If a name is no token, a value is missing behind `=`, or nothing stands between two semicolons.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let list = syntax::split_outside(text, ';').into_iter().map(parse_one).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { list })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `None` if there is no such parameter, `Some(None)` if it has no value.
    pub fn entry(&self, name: &str) -> Option<Option<&str>> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The value as received (with quotes, if any).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).flatten()
    }

    /// The value without quotes.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(syntax::unquote)
    }

    /// Sets or adds a parameter with a value, which is quoted if it has to be.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        let plain = crate::uri::is_plain_parameter(&value) || value.starts_with('"');
        self.set_entry(name, Some(if plain { value } else { syntax::quote(&value) }));
    }

    /// Sets or adds a parameter without a value, like `lr` and `rport`.
    pub fn set_flag(&mut self, name: &str) {
        self.set_entry(name, None);
    }

    pub fn remove(&mut self, name: &str) {
        self.list.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn set_entry(&mut self, name: &str, value: Option<String>) {
        match self.list.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some(entry) => entry.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

fn parse_one(text: &str) -> Result<(String, Option<String>), ParseError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
        None => (text, None),
    };
    // URI parameters may hold a few characters more than a token: [ ] / : & + $ (RFC 3261 §25.1 `param-unreserved`).
    let fits = |c: char| syntax::is_token_char(c) || "[]/:&$()".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(ParseError::bad(format!("parameter {text:?} has no proper name")));
    }
    match value {
        None => Ok((name.to_owned(), None)),
        Some(value) if value.starts_with('"') => match syntax::take_quoted(value)? {
            (_, "") => Ok((name.to_owned(), Some(value.to_owned()))),
            (_, _) => Err(ParseError::bad(format!("text behind the quoted value of parameter {name:?}"))),
        },
        Some("") => Err(ParseError::bad(format!("parameter {name:?} has '=' but no value"))),
        Some(value) if value.contains(['"', ',', '<', '>', ' ', '\t']) => {
            Err(ParseError::bad(format!("value of parameter {name:?} must be quoted")))
        }
        Some(value) => Ok((name.to_owned(), Some(value.to_owned()))),
    }
}
