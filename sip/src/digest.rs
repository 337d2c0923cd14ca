//! Digest access authentication, RFC 7616 (MD5, SHA-256, both also as `-sess`), RFC 8760, RFC 3261 §22.
//!
//! ```text
//!   401/407 ──▶ Challenge ──▶ choose ──▶ Session ──authorize──▶ Authorization, nc = 1, 2, 3 …
//!                                          ▲ stale=true or a new nonce: a new Session
//! ```
//!
//! The server side is [`Credentials`] and [`Credentials::verify`]; nonces are made and remembered by the caller.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use rand::Rng;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::error::ParseError;
use crate::header::AuthValue;
use crate::message::{Headers, Method};

/// A password, or what is as good as one. Debug does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Not for logs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// RFC 7616 §3.3 `algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
}

impl Algorithm {
    fn parse(text: &str) -> Option<Self> {
        let known = [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess];
        known.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
        }
    }

    fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess)
    }

    fn hash(self, text: &[u8]) -> String {
        match self {
            Self::Md5 | Self::Md5Sess => hex(&Md5::digest(text)),
            Self::Sha256 | Self::Sha256Sess => hex(&Sha256::digest(text)),
        }
    }
}

/// RFC 7616 §3.3 `qop`: what the response protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qop {
    Auth,
    /// With the body.
    AuthInt,
}

impl Qop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Auth, Self::AuthInt].into_iter().find(|qop| qop.as_str().eq_ignore_ascii_case(text))
    }
}

/// A digest challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    /// The nonce was too old, the password was right (RFC 7616 §3.3): repeat without asking anybody.
    pub stale: bool,
    pub algorithm: Algorithm,
    /// In the order offered; empty for a server of RFC 2069.
    pub qop: Vec<Qop>,
}

impl Challenge {
    /// # Errors
    ///
    /// If it is no digest challenge, its algorithm is not known, it demands a `qop` we do not have, or realm or
    /// nonce are missing.
    pub fn parse(value: &AuthValue) -> Result<Self, ParseError> {
        if !value.scheme.eq_ignore_ascii_case("Digest") {
            return Err(ParseError::bad(format!("authentication scheme {} is not Digest", value.scheme)));
        }
        let need = |name: &str| {
            let found = value.get(name).map(str::to_owned);
            found.ok_or_else(|| ParseError::bad(format!("digest challenge without {name}")))
        };
        let algorithm = value.get("algorithm").unwrap_or("MD5");
        let algorithm = Algorithm::parse(algorithm)
            .ok_or_else(|| ParseError::bad(format!("digest algorithm {algorithm:?} is not known")))?;
        let offered = value.get("qop").unwrap_or_default();
        let qop: Vec<Qop> = offered.split(',').filter_map(|qop| Qop::parse(qop.trim())).collect();
        if qop.is_empty() && !offered.trim().is_empty() {
            return Err(ParseError::bad(format!("none of the digest qop values {offered:?} is known")));
        }
        Ok(Self {
            realm: need("realm")?,
            nonce: need("nonce")?,
            opaque: value.get("opaque").map(str::to_owned),
            stale: value.get("stale").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            algorithm,
            qop,
        })
    }

    /// The header field value of a server's challenge.
    pub fn to_value(&self) -> AuthValue {
        let mut value = AuthValue::new("Digest").quoted("realm", &self.realm).quoted("nonce", &self.nonce);
        if let Some(opaque) = &self.opaque {
            value = value.quoted("opaque", opaque);
        }
        if self.stale {
            value = value.plain("stale", "true");
        }
        value = value.plain("algorithm", self.algorithm.as_str());
        let qop: Vec<&str> = self.qop.iter().map(|qop| qop.as_str()).collect();
        if qop.is_empty() { value } else { value.quoted("qop", &qop.join(",")) }
    }
}

/// The challenges of a response that we can answer, in the order of the server, which is its order of preference
/// (RFC 8760 §2.4). `name` is `WWW-Authenticate` or `Proxy-Authenticate`. Only the first of each realm is returned.
pub fn challenges(headers: &Headers, name: &str) -> Vec<Challenge> {
    let mut usable: Vec<Challenge> = Vec::new();
    for value in headers.get_all(name).filter_map(|text| text.parse::<AuthValue>().ok()) {
        if let Ok(challenge) = Challenge::parse(&value)
            && !usable.iter().any(|known| known.realm == challenge.realm)
        {
            usable.push(challenge);
        }
    }
    usable
}

/// A client's use of one nonce: counts `nc`, keeps `cnonce`.
#[derive(Debug, Clone)]
pub struct Session {
    challenge: Challenge,
    username: String,
    password: Secret,
    cnonce: String,
    nc: u32,
}

impl Session {
    pub fn new(challenge: Challenge, username: &str, password: Secret, rng: &mut impl Rng) -> Self {
        let mut random = [0; 12];
        rng.fill_bytes(&mut random);
        Self { challenge, username: username.to_owned(), password, cnonce: STANDARD.encode(random), nc: 0 }
    }

    /// With a given client nonce, for test vectors.
    pub fn with_cnonce(challenge: Challenge, username: &str, password: Secret, cnonce: &str) -> Self {
        Self { challenge, username: username.to_owned(), password, cnonce: cnonce.to_owned(), nc: 0 }
    }

    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// True if the server refuses this very user and password: the same realm is challenged again, and not
    /// because the nonce was stale. Repeating would ask for the same refusal (RFC 3261 §22.1).
    pub fn was_refused(&self, again: &Challenge) -> bool {
        self.nc > 0 && again.realm == self.challenge.realm && !again.stale
    }

    /// Takes the `nextnonce` of an Authentication-Info (RFC 7616 §3.5).
    pub fn next_nonce(&mut self, nonce: &str) {
        nonce.clone_into(&mut self.challenge.nonce);
        self.nc = 0;
    }

    /// The value of the next Authorization or Proxy-Authorization. Each call uses up one `nc`.
    pub fn authorize(&mut self, method: &Method, uri: &str, body: &[u8]) -> AuthValue {
        self.nc = self.nc.saturating_add(1);
        let challenge = &self.challenge;
        let qop = challenge.qop.iter().find(|qop| **qop == Qop::Auth).or(challenge.qop.first()).copied();
        let credentials = Credentials {
            username: self.username.clone(),
            realm: challenge.realm.clone(),
            nonce: challenge.nonce.clone(),
            uri: uri.to_owned(),
            response: String::new(),
            algorithm: challenge.algorithm,
            opaque: challenge.opaque.clone(),
            protection: qop.map(|qop| Protection { qop, cnonce: self.cnonce.clone(), nc: self.nc }),
        };
        let response = credentials.expected(&self.password, method, body);
        Credentials { response, ..credentials }.to_value()
    }
}

/// `qop` with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    pub qop: Qop,
    pub cnonce: String,
    pub nc: u32,
}

/// The digest credentials of a request, as a server reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    pub response: String,
    pub algorithm: Algorithm,
    pub opaque: Option<String>,
    /// Absent for a client of RFC 2069.
    pub protection: Option<Protection>,
}

impl Credentials {
    /// # Errors
    ///
    /// If it is not Digest, a field is missing, or the algorithm, `qop` or `nc` cannot be read.
    pub fn parse(value: &AuthValue) -> Result<Self, ParseError> {
        if !value.scheme.eq_ignore_ascii_case("Digest") {
            return Err(ParseError::bad("credentials are not Digest"));
        }
        let need = |name: &str| {
            let found = value.get(name).map(str::to_owned);
            found.ok_or_else(|| ParseError::bad(format!("digest credentials without {name}")))
        };
        let algorithm = Algorithm::parse(value.get("algorithm").unwrap_or("MD5"))
            .ok_or_else(|| ParseError::bad("digest algorithm is not known"))?;
        let protection = match value.get("qop") {
            None => None,
            Some(text) => {
                let qop = Qop::parse(text).ok_or_else(|| ParseError::bad("digest qop is not known"))?;
                let nc = u32::from_str_radix(&need("nc")?, 16).map_err(|_| ParseError::bad("nc is not hexadecimal"))?;
                Some(Protection { qop, cnonce: need("cnonce")?, nc })
            }
        };
        Ok(Self {
            username: need("username")?,
            realm: need("realm")?,
            nonce: need("nonce")?,
            uri: need("uri")?,
            response: need("response")?,
            algorithm,
            opaque: value.get("opaque").map(str::to_owned),
            protection,
        })
    }

    /// The credentials for `realm` among the fields of this name.
    pub fn find(headers: &Headers, name: &str, realm: &str) -> Option<Self> {
        let values = headers.get_all(name).filter_map(|text| text.parse::<AuthValue>().ok());
        values.filter_map(|value| Self::parse(&value).ok()).find(|credentials| credentials.realm == realm)
    }

    /// True if they were made with this password for this request. Nonce, `nc`, realm and whether `uri` fits the
    /// Request-URI are for the caller to check.
    pub fn verify(&self, password: &Secret, method: &Method, body: &[u8]) -> bool {
        let expected = self.expected(password, method, body);
        bool::from(expected.as_bytes().ct_eq(self.response.to_ascii_lowercase().as_bytes()))
    }

    /// RFC 7616 §3.4.1: KD(H(A1), unq(nonce):nc:unq(cnonce):unq(qop):H(A2)).
    fn expected(&self, password: &Secret, method: &Method, body: &[u8]) -> String {
        let hash = |text: String| self.algorithm.hash(text.as_bytes());
        let cnonce = self.protection.as_ref().map_or("", |protection| protection.cnonce.as_str());
        let mut a1 = hash(format!("{}:{}:{}", self.username, self.realm, password.reveal()));
        if self.algorithm.is_session() {
            a1 = hash(format!("{a1}:{}:{cnonce}", self.nonce));
        }
        let qop = self.protection.as_ref().map(|protection| protection.qop);
        let a2 = match qop {
            Some(Qop::AuthInt) => hash(format!("{method}:{}:{}", self.uri, self.algorithm.hash(body))),
            Some(Qop::Auth) | None => hash(format!("{method}:{}", self.uri)),
        };
        match &self.protection {
            Some(Protection { qop, nc, .. }) => {
                hash(format!("{a1}:{}:{nc:08x}:{cnonce}:{}:{a2}", self.nonce, qop.as_str()))
            }
            None => hash(format!("{a1}:{}:{a2}", self.nonce)),
        }
    }

    fn to_value(&self) -> AuthValue {
        let mut value = AuthValue::new("Digest")
            .quoted("username", &self.username)
            .quoted("realm", &self.realm)
            .quoted("nonce", &self.nonce)
            .quoted("uri", &self.uri)
            .quoted("response", &self.response)
            .plain("algorithm", self.algorithm.as_str());
        if let Some(Protection { qop, cnonce, nc }) = &self.protection {
            value = value.plain("qop", qop.as_str()).plain("nc", &format!("{nc:08x}")).quoted("cnonce", cnonce);
        }
        match &self.opaque {
            Some(opaque) => value.quoted("opaque", opaque),
            None => value,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, opaque: Option<&str>) -> Challenge {
        let opaque = opaque.map(str::to_owned);
        let qop = vec![Qop::Auth];
        Challenge { realm: realm.to_owned(), nonce: nonce.to_owned(), opaque, stale: false, algorithm, qop }
    }

    fn response(challenge: Challenge, who: (&str, &str), cnonce: &str, method: &str, uri: &str) -> String {
        let mut session = Session::with_cnonce(challenge, who.0, Secret::new(who.1), cnonce);
        session.authorize(&method.parse().unwrap(), uri, b"").get("response").unwrap().to_owned()
    }

    #[test]
    fn rfc_7616_section_3_9_1_comes_out_byte_for_byte() {
        let cases = [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (algorithm, want) in cases {
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            let opaque = Some("FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS");
            let challenge = challenge("http-auth@example.org", nonce, algorithm, opaque);
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let got = response(challenge, ("Mufasa", "Circle of Life"), cnonce, "GET", "/dir/index.html");
            assert_eq!(got, want, "case: {algorithm:?}");
        }
    }

    #[test]
    fn the_vectors_of_the_facts_sheet_and_of_rfc_2617_come_out() {
        let alice = |algorithm| {
            let challenge = challenge("example.test", "5f1c0b7e9d", algorithm, None);
            response(challenge, ("alice", "s3cret"), "0a4f113b", "REGISTER", "sip:example.test")
        };
        assert_eq!(alice(Algorithm::Md5), "d504bebda59a40c5504eeaec51554e69");
        assert_eq!(alice(Algorithm::Sha256), "ba9a4d06e4cadfb7c7ea81ac7e6cabfeac068b4615b182ddad530c026ad97933");
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let mufasa = challenge("testrealm@host.com", nonce, Algorithm::Md5, None);
        let got = response(mufasa, ("Mufasa", "Circle Of Life"), "0a4f113b", "GET", "/dir/index.html");
        assert_eq!(got, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn a_server_of_rfc_2069_gets_the_response_without_qop() {
        // RFC 2069 §2.4 with the erratum 749 response.
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let old = Challenge { qop: Vec::new(), ..challenge("testrealm@host.com", nonce, Algorithm::Md5, None) };
        let mut session = Session::with_cnonce(old, "Mufasa", Secret::new("CircleOfLife"), "");
        let value = session.authorize(&"GET".parse().unwrap(), "/dir/index.html", b"");
        assert_eq!(value.get("response"), Some("1949323746fe6a43ef61f9606e7febea"));
        assert!(value.get("nc").is_none() && value.get("cnonce").is_none());
    }

    #[test]
    fn a_server_accepts_what_our_client_answers_and_nothing_else() {
        for algorithm in [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess] {
            for qop in [vec![Qop::Auth], vec![Qop::AuthInt], vec![]] {
                let offered = Challenge { qop, ..challenge("lab.test", "n0", algorithm, Some("o")) };
                let line = offered.to_value().to_string();
                let read = Challenge::parse(&line.parse().unwrap()).unwrap();
                assert_eq!(read, offered);
                let mut session = Session::with_cnonce(read, "al\"ice", Secret::new("pä:ss"), "c0");
                let text = session.authorize(&Method::Invite, "sip:lab.test", b"body").to_string();
                let credentials = Credentials::parse(&text.parse().unwrap()).unwrap();
                assert!(credentials.verify(&Secret::new("pä:ss"), &Method::Invite, b"body"), "{text}");
                assert!(!credentials.verify(&Secret::new("other"), &Method::Invite, b"body"));
                assert!(!credentials.verify(&Secret::new("pä:ss"), &Method::Bye, b"body"));
                assert!(!Credentials { nonce: "n1".to_owned(), ..credentials }.verify(
                    &Secret::new("pä:ss"),
                    &Method::Invite,
                    b"body"
                ));
            }
        }
    }

    #[test]
    fn nc_counts_and_a_stale_nonce_is_no_refusal() {
        let first = challenge("lab.test", "n0", Algorithm::Md5, None);
        let mut session = Session::with_cnonce(first.clone(), "alice", Secret::new("x"), "c");
        assert!(!session.was_refused(&first), "nothing was sent yet");
        for want in ["00000001", "00000002", "00000003"] {
            assert_eq!(session.authorize(&Method::Register, "sip:lab.test", b"").get("nc"), Some(want));
        }
        assert!(session.was_refused(&first));
        assert!(!session.was_refused(&Challenge { stale: true, nonce: "n1".to_owned(), ..first }));
    }

    #[test]
    fn the_first_challenge_that_can_be_answered_is_taken_per_realm() {
        let mut headers = Headers::default();
        headers.push("WWW-Authenticate", "NTLM realm=\"SIP Communications Service\", targetname=\"a\", version=4");
        headers.push("WWW-Authenticate", "Digest realm=\"a\", nonce=\"1\", algorithm=SHA-512-256, qop=\"auth\"");
        headers.push("WWW-Authenticate", "Digest realm=\"a\", nonce=\"2\", algorithm=SHA-256, qop=\"auth-int, auth\"");
        headers.push("WWW-Authenticate", "Digest realm=\"a\",nonce=\"3\",qop=\"auth\"");
        let usable = challenges(&headers, "www-authenticate");
        assert_eq!(usable.len(), 1);
        assert_eq!((usable[0].algorithm, usable[0].nonce.as_str()), (Algorithm::Sha256, "2"));
    }

    #[test]
    fn no_debug_output_shows_a_password_or_a_response() {
        let mut session =
            Session::with_cnonce(challenge("r", "n", Algorithm::Md5, None), "alice", Secret::new("hunter2"), "c");
        let value = session.authorize(&Method::Register, "sip:r", b"");
        let shown = format!("{session:?} {value:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(value.get("response").unwrap()), "{shown}");
    }
}
