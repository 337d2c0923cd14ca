//! Messages to bytes, RFC 3261 §7.
//!
//! Content-Length is always written, from the body: in the place of the field if there is one, else as the last.

use crate::message::{Headers, Message, Request, Response, canonical_name};
use crate::parse::bytes_from_text;

impl Message {
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

impl Request {
    pub fn to_bytes(&self) -> Vec<u8> {
        write(&format!("{} {} SIP/2.0", self.method, self.uri), &self.headers, &self.body)
    }
}

impl Response {
    pub fn to_bytes(&self) -> Vec<u8> {
        write(&format!("SIP/2.0 {} {}", self.status, self.reason), &self.headers, &self.body)
    }
}

fn write(start: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512 + body.len());
    push_line(&mut bytes, start);
    let mut length_written = false;
    for header in headers.iter() {
        if canonical_name(&header.name).eq_ignore_ascii_case("Content-Length") {
            if !length_written {
                push_line(&mut bytes, &format!("{}: {}", header.name, body.len()));
            }
            length_written = true;
        } else {
            push_line(&mut bytes, &format!("{}: {}", header.name, header.value));
        }
    }
    if !length_written {
        push_line(&mut bytes, &format!("Content-Length: {}", body.len()));
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A line break inside a value would begin a new header field: it becomes a blank.
fn push_line(bytes: &mut Vec<u8>, line: &str) {
    bytes.extend(bytes_from_text(line).into_iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use crate::parse::parse_message;

    const REGISTER: &[u8] = b"REGISTER sip:lab.test SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.5:5060;rport;branch=z9hG4bK1, \
        SIP/2.0/TCP [2001:db8::1]:5062;branch=z9hG4bK0\r\nf: \"A \\\"q\\\" B\" <sip:a@lab.test>;tag=x\r\nTo: <sip:a@lab.test>\r\n\
        Call-ID: 1@h\r\nCSeq: 7 REGISTER\r\nSubject: caf\xe9 \xef\x9f\xa9\r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn a_message_leaves_byte_for_byte_as_it_came() {
        let message = parse_message(REGISTER).unwrap();
        assert_eq!(message.to_bytes(), REGISTER);
        assert_eq!(message.headers().vias().unwrap().len(), 2);
        assert_eq!(message.headers().from().unwrap().display_name, "A \"q\" B");
    }
}
