//! The lexical rules that all header fields share, RFC 3261 §25.1.

use crate::error::ParseError;

/// `token`: letters, digits and ``-.!%*_+`'~``.
pub fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c)
}

pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

/// Cuts at each `separator` that is outside of quoted strings and angle brackets; elements are trimmed.
pub fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            _ if c == separator && !quoted && !bracketed => {
                parts.push(text.get(start..at).unwrap_or_default().trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default().trim());
    parts
}

/// The elements of a comma-separated header field. Empty elements are left out.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    split_outside(text, ',').into_iter().filter(|element| !element.is_empty())
}

/// Takes the quoted string at the start of `text`: its content without quotes and escapes, and what follows it.
///
/// # Errors
///
/// If there is no quoted string, or it does not end.
pub fn take_quoted(text: &str) -> Result<(String, &str), ParseError> {
    let inner = text.strip_prefix('"').ok_or_else(|| ParseError::bad("quoted string expected"))?;
    let mut content = String::new();
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => {
                content.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Ok((content, inner.get(at + 1..).unwrap_or_default())),
            _ => content.push(c),
        }
    }
    Err(ParseError::bad("quoted string without its closing quote"))
}

/// Puts text between quotes, with `"` and `\` escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// The content of a quoted string, or the text itself if it is none.
pub fn unquote(text: &str) -> String {
    take_quoted(text).map_or_else(|_| text.to_owned(), |(content, _)| content)
}

/// `delta-seconds`: digits; a number beyond 32 bits counts as the largest (RFC 3261 §20.19 has 2^32 - 1 as its limit).
///
/// # Errors
///
/// If there is anything but digits.
pub fn seconds(text: &str) -> Result<u32, ParseError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::bad(format!("{text:?} is not a number of seconds")));
    }
    Ok(text.parse().unwrap_or(u32::MAX))
}

/// A decimal number that must fit its type. Leading zeros are allowed (RFC 4475 §3.1.1.1).
///
/// # Errors
///
/// If there is anything but digits, or the number is too large.
pub fn number<N: std::str::FromStr>(text: &str) -> Result<N, ParseError> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value.ok_or_else(|| ParseError::bad(format!("{text:?} is not a number in range")))
}
