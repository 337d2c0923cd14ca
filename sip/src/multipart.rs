//! Multipart bodies, RFC 2046 §5.1, RFC 5621: alternatives of one session description, mostly.

use crate::error::ParseError;
use crate::header::syntax;
use crate::message::Headers;

/// The most parts that are read: two are seen in the field.
const PARTS_MAX: usize = 16;

/// One part: its own header fields and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    pub headers: Headers,
    pub body: Vec<u8>,
}

/// Reads a multipart body. `content_type` is the value of the Content-Type header field.
///
/// # Errors
///
/// If the type is not `multipart/…`, has no boundary, or the boundary does not occur in the body.
pub fn parse(content_type: &str, body: &[u8]) -> Result<Vec<Part>, ParseError> {
    let mut fields = syntax::split_outside(content_type, ';').into_iter();
    let media_type = fields.next().unwrap_or_default();
    if !media_type.to_ascii_lowercase().starts_with("multipart/") {
        return Err(ParseError::bad(format!("{media_type:?} is not multipart")));
    }
    let boundary = fields.filter_map(|field| field.split_once('='));
    let boundary = boundary.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let boundary = boundary.map(|(_, value)| syntax::unquote(value.trim())).filter(|value| !value.is_empty());
    let boundary = boundary.ok_or_else(|| ParseError::bad("multipart without a boundary"))?;

    // The line break before a boundary belongs to it; one is put before the first as well.
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let body = [b"\r\n", body].concat();
    let mut parts = Vec::new();
    let mut rest = after(&body, &delimiter).ok_or_else(|| ParseError::bad("multipart boundary is not in the body"))?;
    while !rest.starts_with(b"--") && parts.len() < PARTS_MAX {
        // Behind the boundary may be blanks up to the end of the line.
        let content = after(rest, b"\r\n").ok_or_else(|| ParseError::bad("multipart ends in a boundary line"))?;
        let end = memchr::memmem::find(content, &delimiter);
        let part = end.and_then(|end| content.get(..end)).unwrap_or(content);
        parts.push(parse_part(part));
        let Some(next) = after(content, &delimiter) else {
            break; // no closing boundary: what is there still counts
        };
        rest = next;
    }
    Ok(parts)
}

/// The Content-Type and the body of a multipart message.
pub fn write(subtype: &str, boundary: &str, parts: &[Part]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        for header in part.headers.iter() {
            body.extend_from_slice(format!("{}: {}\r\n", header.name, header.value).as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&part.body);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/{subtype};boundary={}", syntax::quote(boundary)), body)
}

/// The session description of a message: the body itself, or the first part with one that is not the fallback
/// part for peers of 2007. `None` if there is none.
pub fn session_description(headers: &Headers, body: &[u8]) -> Option<Vec<u8>> {
    let content_type = headers.content_type()?;
    if content_type == "application/sdp" {
        return Some(body.to_vec()).filter(|body| !body.is_empty());
    }
    let parts = parse(headers.get("Content-Type")?, body).ok()?;
    let wanted = |part: &Part| {
        let disposition = part.headers.get("Content-Disposition").unwrap_or_default();
        part.headers.content_type().as_deref() == Some("application/sdp")
            && !disposition.to_ascii_lowercase().contains("ms-proxy-2007fallback")
    };
    parts.into_iter().find(wanted).map(|part| part.body)
}

fn parse_part(bytes: &[u8]) -> Part {
    // A part without header fields begins with the empty line.
    let (head, body) = match bytes.strip_prefix(b"\r\n") {
        Some(body) => (Default::default(), body),
        None => match memchr::memmem::find(bytes, b"\r\n\r\n") {
            Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 4..).unwrap_or_default()),
            None => (bytes, Default::default()),
        },
    };
    Part { headers: crate::parse::fields_of(head), body: body.to_vec() }
}

fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(bytes, needle)?;
    bytes.get(at + needle.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of the facts sheet, §5.1.
    const BODY: &[u8] = b"------=_NextPart_000_0011_01DA5F11.7A90C2E0\r\n\
Content-Type: application/sdp\r\nContent-Transfer-Encoding: 7bit\r\nContent-ID: <f1@example.test>\r\n\
Content-Disposition: session; handling=optional; ms-proxy-2007fallback\r\n\r\n\
v=0\r\no=- 0 0 IN IP4 10.0.0.5\r\ns=session\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n\r\n\
------=_NextPart_000_0011_01DA5F11.7A90C2E0\r\n\
Content-Type: application/sdp\r\nContent-Transfer-Encoding: 7bit\r\nContent-ID: <f2@example.test>\r\n\
Content-Disposition: session; handling=optional\r\n\r\n\
v=0\r\no=- 0 1 IN IP4 10.0.0.5\r\ns=session\r\nt=0 0\r\nm=audio 50040 RTP/SAVP 0\r\n\r\n\
------=_NextPart_000_0011_01DA5F11.7A90C2E0--\r\n";
    const TYPE: &str = "multipart/alternative;boundary=\"----=_NextPart_000_0011_01DA5F11.7A90C2E0\"";

    #[test]
    fn the_part_that_is_not_the_fallback_is_taken() {
        let mut headers = Headers::default();
        headers.push("c", TYPE);
        let sdp = session_description(&headers, BODY).unwrap();
        assert!(sdp.starts_with(b"v=0\r\no=- 0 1 IN"), "{}", String::from_utf8_lossy(&sdp));
        assert!(sdp.ends_with(b"RTP/SAVP 0\r\n"));
    }

    #[test]
    fn binary_parts_are_read_and_written_unchanged() {
        let mut part = Part { body: vec![0, 255, 13, 10, 45, 45], ..Part::default() };
        part.headers.push("Content-Type", "application/pkcs7-mime");
        let parts = vec![Part { body: b"plain".to_vec(), ..Part::default() }, part];
        let (content_type, body) = write("mixed", "7a9c b=", &parts);
        assert_eq!(parse(&content_type, &body).unwrap(), parts);
    }

    #[test]
    fn what_is_no_multipart_is_refused_with_its_reason() {
        let cases: [(&str, &str, &[u8], &str); 4] = [
            ("other type", "application/sdp", b"v=0", "is not multipart"),
            ("no boundary", "multipart/mixed", b"--x", "without a boundary"),
            ("boundary not found", "multipart/mixed;boundary=x", b"--y", "is not in the body"),
            ("nothing behind it", "multipart/mixed;boundary=x", b"--x", "ends in a boundary line"),
        ];
        for (name, content_type, body, want) in cases {
            assert!(parse(content_type, body).unwrap_err().reason.contains(want), "case: {name}");
        }
    }
}
