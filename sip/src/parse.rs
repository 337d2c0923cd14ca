//! Bytes to messages, RFC 3261 §7, §18.3, §25.1; what RFC 4475 calls invalid is refused with the status it names.

use crate::error::ParseError;
use crate::header::syntax;
use crate::message::{Header, Headers, Message, Method, Request, Response, canonical_name};

/// The largest message: what fits a UDP datagram; larger ones on streams are refused before they fill the memory.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// The most header fields: ten times what long routes and several authentication rounds need.
pub const HEADERS_MAX: usize = 256;

/// Reads the message in a datagram. Bytes behind Content-Length are ignored (RFC 3261 §18.3).
///
/// # Errors
///
/// [`ParseError`] with the status to answer, and with the request if an answer can be addressed.
pub fn parse_message(bytes: &[u8]) -> Result<Message, ParseError> {
    if bytes.len() > MESSAGE_MAX {
        return Err(ParseError::with_status(513, format!("message is larger than {MESSAGE_MAX} bytes")));
    }
    // Line ends before the start line are to be ignored (RFC 3261 §7.5).
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let bytes = bytes.get(blank..).unwrap_or_default();
    let (head, body) = split_head(bytes).ok_or_else(|| ParseError::bad("no empty line behind the header fields"))?;
    let (start, fields) = split_line(head);
    let (headers, fault) = parse_fields(fields);
    let start = text_from_bytes(start);
    if let Some(rest) = start.strip_prefix("SIP/2.0 ") {
        return response(rest, headers, fault, body);
    }
    request(&start, headers, fault, body)
}

/// How long the first message in a stream's buffer is, head and body together, or `None` while its head is not
/// complete. A message on a stream must have a Content-Length (RFC 3261 §18.3); one without counts as bodyless.
///
/// # Errors
///
/// If the length cannot be told or is beyond [`MESSAGE_MAX`]: the stream is out of step and has to be closed.
pub fn frame_length(buffer: &[u8]) -> Result<Option<usize>, ParseError> {
    let too_large = || ParseError::with_status(513, format!("message is larger than {MESSAGE_MAX} bytes"));
    let Some((head, _)) = split_head(buffer) else {
        return if buffer.len() > MESSAGE_MAX { Err(too_large()) } else { Ok(None) };
    };
    let (_, fields) = split_line(head);
    let (headers, fault) = parse_fields(fields);
    let length = content_length(&headers).map_err(|error| fault.unwrap_or(error))?.unwrap_or(0);
    let total = head.len().saturating_add(4).saturating_add(length);
    if total > MESSAGE_MAX { Err(too_large()) } else { Ok(Some(total)) }
}

/// Text of bytes that should be UTF-8. A byte that is not becomes the private-use character U+F700 + byte, which
/// [`bytes_from_text`] turns back: whatever arrived leaves the same.
pub fn text_from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_raw_byte(c) {
                // The very characters used here arrived as such: keep their bytes one by one.
                let mut buffer = [0; 4];
                text.extend(c.encode_utf8(&mut buffer).bytes().map(raw_byte));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(raw_byte));
    }
    text
}

/// The inverse of [`text_from_bytes`].
pub fn bytes_from_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(u32::from(c) & 0xff) {
            Ok(byte) if is_raw_byte(c) => bytes.push(byte),
            Ok(_) | Err(_) => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// Text for people: bytes that were not UTF-8 are read as ISO 8859-1, which is what old devices send.
pub fn readable(text: &str) -> String {
    let latin1 = |c: char| if is_raw_byte(c) { char::from_u32(u32::from(c) & 0xff).unwrap_or(c) } else { c };
    text.chars().map(latin1).collect()
}

fn raw_byte(byte: u8) -> char {
    char::from_u32(0xf700 + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_raw_byte(c: char) -> bool {
    ('\u{f780}'..='\u{f7ff}').contains(&c)
}

fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    Some((bytes.get(..at)?, bytes.get(at + 4..)?))
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memmem::find(bytes, b"\r\n") {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 2..).unwrap_or_default()),
        None => (bytes, &[]),
    }
}

/// All fields that can be read, and the first fault: with them a server can still answer.
fn parse_fields(mut rest: &[u8]) -> (Headers, Option<ParseError>) {
    let mut lines: Vec<String> = Vec::new();
    let mut fault = None;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        if line.contains(&b'\r') || line.contains(&b'\n') {
            fault.get_or_insert_with(|| ParseError::bad("line break that is not CR LF"));
        }
        let text = text_from_bytes(line);
        if !text.starts_with([' ', '\t']) {
            if lines.len() == HEADERS_MAX {
                let reason = format!("more than {HEADERS_MAX} header fields");
                return (fields(&lines, &mut fault), Some(fault.unwrap_or(ParseError::with_status(513, reason))));
            }
            lines.push(text);
        } else if let Some(folded) = lines.last_mut() {
            // A folded line continues the one before, the break counts as one blank (RFC 3261 §7.3.1).
            folded.push(' ');
            folded.push_str(text.trim());
        } else {
            fault.get_or_insert_with(|| ParseError::bad("first header field begins with a blank"));
        }
    }
    let headers = fields(&lines, &mut fault);
    (headers, fault)
}

/// The header fields of a body part; lines that are none are left out.
pub(crate) fn fields_of(head: &[u8]) -> Headers {
    parse_fields(head).0
}

fn fields(lines: &[String], fault: &mut Option<ParseError>) -> Headers {
    let mut headers = Headers::default();
    for line in lines {
        match line.split_once(':').map(|(name, value)| (name.trim_end(), value.trim())) {
            Some((name, value)) if syntax::is_token(name) => headers.push(name, value),
            Some(_) | None => {
                fault.get_or_insert_with(|| ParseError::bad("header field without a proper name and a colon"));
            }
        }
    }
    headers
}

fn response(rest: &str, headers: Headers, fault: Option<ParseError>, body: &[u8]) -> Result<Message, ParseError> {
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let status = code.parse::<u16>().ok().filter(|s| code.len() == 3 && (100..700).contains(s));
    let status = status.ok_or_else(|| ParseError::bad("status code is not within 100..=699"))?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let body = cut_body(&headers, body)?;
    check_mandatory(&headers)?;
    Ok(Message::Response(Response { status, reason: reason.to_owned(), headers, body }))
}

fn request(start: &str, headers: Headers, fault: Option<ParseError>, body: &[u8]) -> Result<Message, ParseError> {
    let mut words = start.split(' ');
    let (method, uri, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(uri), Some(version)) = (method, uri, version) else {
        return Err(ParseError::bad("start line is neither a request nor a response of SIP"));
    };
    let Ok(method) = method.parse::<Method>() else {
        return Err(ParseError::bad("start line is neither a request nor a response of SIP"));
    };
    let extra = words.next().is_some();
    let parsed = uri.parse();
    // Without a readable Request-URI the answer only needs the header fields.
    let placeholder = || crate::uri::Uri::sip("", crate::uri::Host::Name("invalid".to_owned()));
    let target = parsed.clone().unwrap_or_else(|_| placeholder());
    let mut request = Request { method, uri: target, headers, body: Vec::new() };
    let checked = (|| {
        if extra || version.is_empty() || uri.is_empty() {
            return Err(ParseError::bad("request line is not three words with one blank between them"));
        }
        if !version.eq_ignore_ascii_case("SIP/2.0") {
            return Err(ParseError::with_status(505, format!("version {version:?} is not SIP/2.0")));
        }
        if !parsed.map_err(|error| error.within("Request-URI"))?.headers.is_empty() {
            return Err(ParseError::bad("Request-URI must not have headers")); // RFC 3261 §19.1.1, table 1
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        let body = cut_body(&request.headers, body)?;
        check_mandatory(&request.headers)?;
        check_request(&request)?;
        Ok(body)
    })();
    match checked {
        Ok(body) => {
            request.body = body;
            Ok(Message::Request(request))
        }
        Err(error) => Err(ParseError { request: answerable(request).map(Box::new), ..error }),
    }
}

/// An ACK is never answered; anything else is if the header fields that an answer copies are there.
fn answerable(request: Request) -> Option<Request> {
    let has = |name: &str| request.headers.contains(name);
    let complete = has("From") && has("To") && has("Call-ID") && has("CSeq") && request.headers.via_top().is_ok();
    (complete && request.method != Method::Ack).then_some(request)
}

fn content_length(headers: &Headers) -> Result<Option<usize>, ParseError> {
    let mut lengths = headers.get_all("Content-Length");
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    // Two of them, equal or not, are how messages are smuggled past a proxy (RFC 4475 §3.3.9).
    if lengths.next().is_some() {
        return Err(ParseError::bad("more than one Content-Length"));
    }
    syntax::number(length).map(Some).map_err(|error| error.within("Content-Length"))
}

fn cut_body(headers: &Headers, body: &[u8]) -> Result<Vec<u8>, ParseError> {
    let length = content_length(headers)?.unwrap_or(body.len());
    let body = body.get(..length).ok_or_else(|| ParseError::bad("Content-Length is larger than the message"))?;
    Ok(body.to_vec())
}

/// What every message must have exactly once and well formed (RFC 3261 §8.1.1, §20).
fn check_mandatory(headers: &Headers) -> Result<(), ParseError> {
    for name in ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Expires", "Content-Type"] {
        if headers.get_all(name).count() > 1 {
            return Err(ParseError::bad(format!("more than one {name}")));
        }
    }
    for Header { name, value } in headers.iter() {
        let listed = ["Via", "Contact", "Route", "Record-Route"].contains(&canonical_name(name));
        // Only some lists may have empty elements, and none of these (RFC 4475 §3.1.2.1).
        if listed && syntax::split_outside(value, ',').iter().any(|element| element.is_empty()) {
            return Err(ParseError::bad(format!("{}: empty element", canonical_name(name))));
        }
    }
    headers.via_top()?;
    headers.vias()?;
    headers.from()?;
    headers.to()?;
    headers.call_id()?;
    headers.cseq()?;
    Ok(())
}

fn check_request(request: &Request) -> Result<(), ParseError> {
    let headers = &request.headers;
    if headers.cseq()?.method != request.method {
        return Err(ParseError::bad("CSeq names another method than the request line"));
    }
    headers.max_forwards()?;
    headers.contacts()?;
    headers.routes()?;
    headers.record_routes()?;
    headers.expires()?;
    Ok(())
}
