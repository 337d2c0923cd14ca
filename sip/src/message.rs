//! Requests, responses and their header fields, RFC 3261 §7.
//!
//! Header fields keep the order, the spelling and the bytes they were received with: a proxy must forward what it
//! does not understand (RFC 3261 §16.6). Typed views are in [`crate::header`].

use std::fmt;
use std::str::FromStr;

use crate::error::ParseError;
use crate::header::syntax;
use crate::uri::Uri;

/// A SIP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request(Request),
    Response(Response),
}

impl Message {
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    pub fn headers_mut(&mut self) -> &mut Headers {
        match self {
            Self::Request(request) => &mut request.headers,
            Self::Response(response) => &mut response.headers,
        }
    }

    pub fn body(&self) -> &[u8] {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// A request: method, Request-URI, header fields, body (RFC 3261 §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Request {
    /// A request without header fields or body.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: Headers::default(), body: Vec::new() }
    }

    /// The answer with the header fields that RFC 3261 §8.2.6.2 copies: every Via, From, To, Call-ID, CSeq, and
    /// the Timestamp of a 100. The To tag is the caller's to add. An empty `reason` stands for the usual phrase.
    pub fn response(&self, status: u16, reason: &str) -> Response {
        let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
        let mut headers = Headers::default();
        for header in self.headers.iter() {
            let name = canonical_name(&header.name);
            let copied =
                ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|copied| copied.eq_ignore_ascii_case(name))
                    || (status == 100 && name.eq_ignore_ascii_case("Timestamp"));
            if copied {
                headers.push(name, header.value.clone());
            }
        }
        Response { status, reason: reason.to_owned(), headers, body: Vec::new() }
    }

    /// Sets body and Content-Type together.
    pub fn set_body(&mut self, content_type: &str, body: Vec<u8>) {
        self.headers.set("Content-Type", content_type);
        self.body = body;
    }
}

/// A response: status, phrase, header fields, body (RFC 3261 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// `100..=699`.
    pub status: u16,
    pub reason: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    pub fn is_provisional(&self) -> bool {
        self.status < 200
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Sets body and Content-Type together.
    pub fn set_body(&mut self, content_type: &str, body: Vec<u8>) {
        self.headers.set("Content-Type", content_type);
        self.body = body;
    }
}

/// A request method. Methods are case-sensitive tokens (RFC 3261 §7.1), and the list is open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Prack,
    Subscribe,
    Notify,
    Publish,
    Info,
    Refer,
    Message,
    Update,
    /// [MS-SIPRE], used to ask for relay credentials.
    Service,
    /// [MS-SIP]: a NOTIFY that gets no answer.
    BeNotify,
    Other(String),
}

const METHODS: [(Method, &str); 16] = [
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Bye, "BYE"),
    (Method::Cancel, "CANCEL"),
    (Method::Register, "REGISTER"),
    (Method::Options, "OPTIONS"),
    (Method::Prack, "PRACK"),
    (Method::Subscribe, "SUBSCRIBE"),
    (Method::Notify, "NOTIFY"),
    (Method::Publish, "PUBLISH"),
    (Method::Info, "INFO"),
    (Method::Refer, "REFER"),
    (Method::Message, "MESSAGE"),
    (Method::Update, "UPDATE"),
    (Method::Service, "SERVICE"),
    (Method::BeNotify, "BENOTIFY"),
];

impl Method {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => METHODS.iter().find(|(method, _)| method == known).map_or("", |(_, name)| name),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if !syntax::is_token(text) {
            return Err(ParseError::bad("method is not a token"));
        }
        let known = METHODS.iter().find(|(_, name)| *name == text).map(|(method, _)| method.clone());
        Ok(known.unwrap_or_else(|| Self::Other(text.to_owned())))
    }
}

/// One header field: the name as received, the value unfolded and trimmed.
///
/// Bytes of the value that are not UTF-8 are kept as private-use characters and written back as the same bytes
/// (see [`crate::parse::text_from_bytes`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// Header fields in the order of the message. Lookups ignore case and know the compact forms (RFC 3261 §7.3.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    list: Vec<Header>,
}

impl Headers {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Header> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|header| same_name(&header.name, name)).map(|header| header.value.as_str())
    }

    /// The values of all fields of this name, one per field line (see [`Headers::values`] for lists).
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.list.iter().filter(move |header| same_name(&header.name, name)).map(|header| header.value.as_str())
    }

    /// The elements of a comma-separated header field over all its lines, in order: `Route: a, b` and two lines
    /// `Route: a`, `Route: b` mean the same (RFC 3261 §7.3.1). Not for the authentication header fields.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.get_all(name).flat_map(syntax::split_list)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// True if the list in this header field (Supported, Require, Allow …) has the given element, ignoring case.
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(element))
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.list.push(Header { name: name.into(), value: value.into() });
    }

    /// Adds a field before all others (Via, Record-Route: the topmost is the newest).
    pub fn insert_first(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.list.insert(0, Header { name: name.into(), value: value.into() });
    }

    /// Replaces all fields of this name by one, in the place of the first of them or else at the end.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let place = self.list.iter().position(|header| same_name(&header.name, name));
        self.remove(name);
        let header = Header { name: name.to_owned(), value: value.into() };
        self.list.insert(place.unwrap_or(self.list.len()).min(self.list.len()), header);
    }

    /// Removes all fields of this name and tells how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.list.len();
        self.list.retain(|header| !same_name(&header.name, name));
        before - self.list.len()
    }

    /// Removes the first element of a comma-separated header field and returns it: how a Via or a Route is taken
    /// off (RFC 3261 §16.7 step 3, §16.4).
    pub fn pop_first_value(&mut self, name: &str) -> Option<String> {
        let place = self.list.iter().position(|header| same_name(&header.name, name))?;
        let header = self.list.get_mut(place)?;
        let mut values = syntax::split_list(&header.value);
        let first = values.next().unwrap_or_default().to_owned();
        let rest = values.collect::<Vec<_>>().join(", ");
        if rest.is_empty() {
            self.list.remove(place);
        } else {
            header.value = rest;
        }
        Some(first)
    }

    /// Replaces the first element of a comma-separated header field, for example the top Via once `received` is known.
    pub fn replace_first_value(&mut self, name: &str, value: &str) {
        let Some(header) = self.list.iter_mut().find(|header| same_name(&header.name, name)) else {
            return;
        };
        let rest: Vec<&str> = syntax::split_list(&header.value).skip(1).collect();
        header.value = std::iter::once(value).chain(rest).collect::<Vec<_>>().join(", ");
    }
}

/// Compact forms: RFC 3261 §20, RFC 3515 §2.1, 3841, 3892, 4028, 6665, 8224.
const COMPACT: [(&str, &str); 19] = [
    ("a", "Accept-Contact"),
    ("b", "Referred-By"),
    ("c", "Content-Type"),
    ("d", "Request-Disposition"),
    ("e", "Content-Encoding"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("j", "Reject-Contact"),
    ("k", "Supported"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("o", "Event"),
    ("r", "Refer-To"),
    ("s", "Subject"),
    ("t", "To"),
    ("u", "Allow-Events"),
    ("v", "Via"),
    ("x", "Session-Expires"),
    ("y", "Identity"),
];

/// The long form of a header field name; a name without a compact form is its own.
pub fn canonical_name(name: &str) -> &str {
    COMPACT.iter().find(|(compact, _)| compact.eq_ignore_ascii_case(name)).map_or(name, |(_, long)| long)
}

fn same_name(left: &str, right: &str) -> bool {
    canonical_name(left).eq_ignore_ascii_case(canonical_name(right))
}

/// The usual phrase of a status code (RFC 3261 §21 and the IANA registry); empty for an unknown one.
pub fn reason_phrase(status: u16) -> &'static str {
    PHRASES.iter().find(|(code, _)| *code == status).map_or("", |(_, phrase)| phrase)
}

const PHRASES: [(u16, &str); 56] = [
    (100, "Trying"),
    (180, "Ringing"),
    (181, "Call Is Being Forwarded"),
    (182, "Queued"),
    (183, "Session Progress"),
    (199, "Early Dialog Terminated"),
    (200, "OK"),
    (202, "Accepted"),
    (204, "No Notification"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (305, "Use Proxy"),
    (380, "Alternative Service"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (410, "Gone"),
    (413, "Request Entity Too Large"),
    (415, "Unsupported Media Type"),
    (416, "Unsupported URI Scheme"),
    (420, "Bad Extension"),
    (421, "Extension Required"),
    (422, "Session Interval Too Small"),
    (423, "Interval Too Brief"),
    (430, "Flow Failed"),
    (439, "First Hop Lacks Outbound Support"),
    (440, "Max-Breadth Exceeded"),
    (469, "Bad Info Package"),
    (480, "Temporarily Unavailable"),
    (481, "Call/Transaction Does Not Exist"),
    (482, "Loop Detected"),
    (483, "Too Many Hops"),
    (484, "Address Incomplete"),
    (486, "Busy Here"),
    (487, "Request Terminated"),
    (488, "Not Acceptable Here"),
    (489, "Bad Event"),
    (491, "Request Pending"),
    (494, "Security Agreement Required"),
    (500, "Server Internal Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Server Time-out"),
    (505, "Version Not Supported"),
    (513, "Message Too Large"),
    (600, "Busy Everywhere"),
    (603, "Decline"),
    (604, "Does Not Exist Anywhere"),
    (606, "Not Acceptable"),
];
