//! Relay credentials: in-band provisioning, media relay authentication (MRAS), and what stands in for them.
//!
//! ```text
//!   REGISTER 200 ──▶ SUBSCRIBE vnd-microsoft-provisioning-v2 ──▶ mrasUri ──▶ SERVICE ──▶ user name, password, relays
//!                                                      no mrasUri: static stun/turn servers of the configuration, or host only
//! ```
//!
//! Documents of [MS-SIPREGE] (provisioning) and [MS-AVEDGEA] (MRAS). Everything here is a pure function of its arguments.
//! A half-understood document is a failure: nothing of it is used.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use quick_xml::Writer;
use quick_xml::events::BytesText;
use roxmltree::{Document, Node};
use sha1::Sha1;

use crate::api::Secret;

/// The event package and the media type of the provisioning query.
pub const PROVISIONING_EVENT: &str = "vnd-microsoft-provisioning-v2";
pub const PROVISIONING_TYPE: &str = "application/vnd-microsoft-roaming-provisioning-v2+xml";
/// The media type of an MRAS request and its response.
pub const MRAS_TYPE: &str = "application/msrtc-media-relay-auth+xml";

const PROVISIONING_REQUEST_NS: &str = "http://schemas.microsoft.com/2006/09/sip/provisioninggrouplist";
const MRAS_NS: &str = "http://schemas.microsoft.com/2006/09/sip/mrasp";
/// Relays taken from one response; an edge pool has a handful.
const RELAYS_MAX: usize = 16;

/// Where we are as the edge sees it (\[MS-AVEDGEA\] `location`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    Intranet,
    Internet,
}

impl Location {
    /// Intranet only if an `_sipinternal*` name led us to the server and the registrar did not call us a remote user.
    pub fn of(found_by_internal_name: bool, remote_user: bool) -> Self {
        if found_by_internal_name && !remote_user { Self::Intranet } else { Self::Internet }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intranet => "intranet",
            Self::Internet => "internet",
        }
    }
}

/// What the server says about media encryption (`ucPC2PCAVEncryption`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    Required,
    Supported,
    Never,
}

/// The parts of the provisioning document that a phone needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provisioning {
    /// Where to ask for relay credentials; opaque. `None`: there is no edge for this user.
    pub mras_uri: Option<String>,
    pub encryption: Option<Encryption>,
    /// First and last UDP port for audio, inclusive.
    pub audio_ports: Option<(u16, u16)>,
}

/// Why a document gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    #[error("the {document} is not well-formed XML: {cause}")]
    Xml { document: &'static str, cause: String },
    #[error("the {document} has root element {found:?}, expected {expected:?}")]
    Root { document: &'static str, found: String, expected: &'static str },
    #[error("the {document} lacks {what}")]
    Missing { document: &'static str, what: &'static str },
    #[error("the {document} has {what} {value:?}, which is not valid")]
    Invalid { document: &'static str, what: &'static str, value: String },
    /// A well-formed MRAS response that says no, for example `Forbidden` or `Version Mismatch`.
    #[error("the media relay service answered {0:?}")]
    Refused(String),
    #[error("the media relay service answered another request ({found:?} instead of {expected:?})")]
    Mismatch { expected: String, found: String },
}

/// The body of the provisioning query.
pub fn provisioning_request() -> String {
    format!(
        "<provisioningGroupList xmlns=\"{PROVISIONING_REQUEST_NS}\"><provisioningGroup name=\"ServerConfiguration\"/>\
         <provisioningGroup name=\"ucPolicy\"/></provisioningGroupList>"
    )
}

/// Reads the answer to the provisioning query. Order of elements and unknown elements do not matter.
///
/// # Errors
///
/// If it is not XML, or has another root. (The root's name differs from that of the request.)
pub fn parse_provisioning(body: &str) -> Result<Provisioning, ProvisionError> {
    const DOCUMENT: &str = "provisioning document";
    let document = parse(DOCUMENT, body)?;
    let root = document.root_element();
    expect_root(DOCUMENT, root, "provisionGroupList")?;
    let mut provisioning = Provisioning::default();
    let groups = root.children().filter(|node| node.tag_name().name() == "provisionGroup");
    for group in groups.filter(|group| group.attribute("name") == Some("ServerConfiguration")) {
        provisioning.mras_uri = child_text(group, "mrasUri").map(str::to_owned);
        provisioning.encryption = child_text(group, "ucPC2PCAVEncryption").map(|text| match text {
            "SupportEncryption" => Encryption::Supported,
            "DoNotSupportEncryption" => Encryption::Never,
            _ => Encryption::Required, // RequireEncryption, and anything newer than this program
        });
        if child_text(group, "ucPortRangeEnabled") == Some("true") {
            let port =
                |name| child_text(group, name).and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
            provisioning.audio_ports =
                port("ucMinAudioPort").zip(port("ucMaxAudioPort")).filter(|(low, high)| low <= high);
        }
    }
    Ok(provisioning)
}

/// What an MRAS request says.
#[derive(Debug, Clone)]
pub struct CredentialsRequest<'a> {
    pub id: &'a str,
    /// `1.0` or `2.0`.
    pub version: &'a str,
    /// Our address of record, a SIP URI.
    pub identity: &'a str,
    pub mras_uri: &'a str,
    pub location: Location,
    pub minutes: u32,
}

/// The body of the SERVICE request. Children in the order of the schema: identity, location, duration.
///
/// # Errors
///
/// Never in practice: writing into memory does not fail.
pub fn mras_request(request: &CredentialsRequest<'_>) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    writer
        .create_element("request")
        .with_attributes([
            ("requestID", request.id),
            ("version", request.version),
            ("from", request.identity),
            ("to", request.mras_uri),
            ("xmlns", MRAS_NS),
            ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
        ])
        .write_inner_content(|writer| {
            writer
                .create_element("credentialsRequest")
                .with_attribute(("credentialsRequestID", request.id))
                .write_inner_content(|writer| {
                    let minutes = request.minutes.to_string();
                    let children = [
                        ("identity", request.identity),
                        ("location", request.location.as_str()),
                        ("duration", minutes.as_str()),
                    ];
                    for (name, text) in children {
                        writer.create_element(name).write_text_content(BytesText::new(text))?;
                    }
                    Ok(())
                })?;
            Ok(())
        })?;
    Ok(writer.into_inner())
}

/// How a relay is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayHost {
    Name(String),
    Address(IpAddr),
}

impl std::fmt::Display for RelayHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// One entry of the `mediaRelayList`. A port that is not named is a transport that is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    pub location: Option<Location>,
    pub host: RelayHost,
    pub udp_port: Option<u16>,
    pub tcp_port: Option<u16>,
}

/// Credentials with the relays they are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: Secret,
    /// Often absent: then the realm of the relay's 401 counts.
    pub realm: Option<String>,
    pub lifetime: Duration,
    pub relays: Vec<Relay>,
}

/// Reads an MRAS response.
///
/// # Errors
///
/// If it is not XML, not a response to `request_id`, says no, or lacks user name, password or duration.
pub fn parse_mras_response(body: &str, request_id: &str) -> Result<Credentials, ProvisionError> {
    const DOCUMENT: &str = "media relay response";
    let document = parse(DOCUMENT, body)?;
    let root = document.root_element();
    expect_root(DOCUMENT, root, "response")?;
    if root.tag_name().namespace() != Some(MRAS_NS) {
        let value = root.tag_name().namespace().unwrap_or_default().to_owned();
        return Err(ProvisionError::Invalid { document: DOCUMENT, what: "namespace", value });
    }
    let phrase = root.attribute("reasonPhrase").unwrap_or("OK");
    if phrase != "OK" {
        return Err(ProvisionError::Refused(phrase.to_owned()));
    }
    let missing = |what| ProvisionError::Missing { document: DOCUMENT, what };
    let response = child(root, "credentialsResponse").ok_or(missing("credentialsResponse"))?;
    let found = response.attribute("credentialsRequestID").unwrap_or_default();
    if found != request_id {
        return Err(ProvisionError::Mismatch { expected: request_id.to_owned(), found: found.to_owned() });
    }
    let credentials = child(response, "credentials").ok_or(missing("credentials"))?;
    let text = |name: &'static str| child_text(credentials, name).ok_or(missing(name));
    let minutes = text("duration")?;
    let lifetime = minutes
        .parse::<u32>()
        .ok()
        .filter(|minutes| *minutes > 0)
        .ok_or_else(|| ProvisionError::Invalid { document: DOCUMENT, what: "duration", value: minutes.to_owned() })?;
    let list = child(response, "mediaRelayList").ok_or(missing("mediaRelayList"))?;
    let relays = list.children().filter(|node| node.tag_name().name() == "mediaRelay").filter_map(parse_relay);
    Ok(Credentials {
        username: text("username")?.to_owned(),
        password: Secret::new(text("password")?.to_owned()),
        realm: child_text(credentials, "realm").map(str::to_owned),
        lifetime: Duration::from_mins(1) * lifetime,
        relays: relays.take(RELAYS_MAX).collect(),
    })
}

fn parse_relay(node: Node<'_, '_>) -> Option<Relay> {
    let host = match child_text(node, "directIPAddress") {
        Some(address) => RelayHost::Address(address.parse().ok()?),
        None => RelayHost::Name(child_text(node, "hostName")?.to_owned()),
    };
    // A name that is an address needs no DNS.
    let host = match host {
        RelayHost::Name(name) => name.parse().map_or(RelayHost::Name(name), RelayHost::Address),
        RelayHost::Address(address) => RelayHost::Address(address),
    };
    let port = |name| child_text(node, name).and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
    let location = match child_text(node, "location") {
        Some("intranet") => Some(Location::Intranet),
        Some("internet") => Some(Location::Internet),
        Some(_) | None => None,
    };
    Some(Relay { location, host, udp_port: port("udpPort"), tcp_port: port("tcpPort") })
}

/// The relays that are of use from `location`: outside only those for outside, inside those for inside first.
pub fn useful_relays(relays: &[Relay], location: Location) -> Vec<Relay> {
    let of = |wanted: &[Option<Location>]| {
        relays.iter().filter(|relay| wanted.contains(&relay.location)).cloned().collect::<Vec<_>>()
    };
    match location {
        Location::Internet => of(&[Some(Location::Internet), None]),
        Location::Intranet => {
            let mut list = of(&[Some(Location::Intranet), None]);
            list.extend(of(&[Some(Location::Internet)]));
            list
        }
    }
}

/// User name and password for a TURN server that shares a secret with us (the "TURN REST" scheme of coturn's `use-auth-secret`).
///
/// `expires_unix_s` is when the credentials end, in seconds since 1970. The password's text is used as it is.
pub fn turn_rest(secret: &Secret, user: &str, expires_unix_s: u64) -> (String, Secret) {
    let username = format!("{expires_unix_s}:{user}");
    // An HMAC takes a key of any length.
    let tag = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()).map(|mut mac| {
        mac.update(username.as_bytes());
        mac.finalize().into_bytes().to_vec()
    });
    let password = base64::engine::general_purpose::STANDARD.encode(tag.unwrap_or_default());
    (username, Secret::new(password))
}

/// When to fetch the next credentials: at 80 % of their life, counted from the sending of the request.
pub fn renew_at(requested_at: Instant, lifetime: Duration) -> Instant {
    requested_at + lifetime * 4 / 5
}

/// How long to wait after the `failures`-th failure in a row (1, 2, …) while there are no credentials: 30 s, 60 s, 120 s, …,
/// 15 min. While an older set still works the next try comes after a minute.
pub fn retry_after(failures: u32, have_credentials: bool) -> Duration {
    if have_credentials {
        return Duration::from_mins(1);
    }
    let doublings = failures.saturating_sub(1).min(5);
    (Duration::from_secs(30) * (1 << doublings)).min(Duration::from_mins(15))
}

fn parse<'a>(document: &'static str, body: &'a str) -> Result<Document<'a>, ProvisionError> {
    Document::parse(body).map_err(|error| ProvisionError::Xml { document, cause: error.to_string() })
}

fn expect_root(document: &'static str, root: Node<'_, '_>, expected: &'static str) -> Result<(), ProvisionError> {
    let found = root.tag_name().name();
    if found == expected {
        return Ok(());
    }
    Err(ProvisionError::Root { document, found: found.to_owned(), expected })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The text of a child element without surrounding blanks; `None` if it is absent or empty.
fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).and_then(|child| child.text()).map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"<provisionGroupList xmlns="http://schemas.microsoft.com/2006/09/sip/provisiongrouplist-notification">
 <provisionGroup name="ServerConfiguration">
  <somethingNew>1</somethingNew>
  <mrasUri>
    sip:MRASLoc.example.test@example.test;gruu;opaque=srvr:MRAS:q3Zc0uKx7EiX0aVb9w1TtgAA
  </mrasUri>
  <ucPC2PCAVEncryption>SupportEncryption</ucPC2PCAVEncryption>
  <ucPortRangeEnabled>true</ucPortRangeEnabled>
  <ucMinAudioPort>50020</ucMinAudioPort><ucMaxAudioPort>50039</ucMaxAudioPort>
 </provisionGroup>
</provisionGroupList>"#;

    #[test]
    fn the_provisioning_document_names_relay_service_encryption_and_ports() {
        let provisioning = parse_provisioning(DOCUMENT).unwrap();
        let uri = "sip:MRASLoc.example.test@example.test;gruu;opaque=srvr:MRAS:q3Zc0uKx7EiX0aVb9w1TtgAA";
        assert_eq!(provisioning.mras_uri.as_deref(), Some(uri));
        assert_eq!(provisioning.encryption, Some(Encryption::Supported));
        assert_eq!(provisioning.audio_ports, Some((50020, 50039)));
    }

    #[test]
    fn an_empty_relay_service_is_none_and_another_root_is_an_error() {
        let empty = "<provisionGroupList><provisionGroup name='ServerConfiguration'><mrasUri/></provisionGroup></provisionGroupList>";
        assert_eq!(parse_provisioning(empty), Ok(Provisioning::default()));
        let error = parse_provisioning("<provisioningGroupList/>").unwrap_err();
        insta::assert_snapshot!(error, @r#"the provisioning document has root element "provisioningGroupList", expected "provisionGroupList""#);
        assert!(matches!(parse_provisioning("no xml"), Err(ProvisionError::Xml { .. })));
    }

    #[test]
    fn the_request_escapes_and_keeps_the_order_of_the_schema() {
        let request = CredentialsRequest {
            id: "1984201",
            version: "1.0",
            identity: "sip:a&b@example.test",
            mras_uri: "sip:mras@example.test;gruu",
            location: Location::Internet,
            minutes: 480,
        };
        let text = String::from_utf8(mras_request(&request).unwrap()).unwrap();
        let document = Document::parse(&text).unwrap();
        let inner = child(document.root_element(), "credentialsRequest").unwrap();
        let names: Vec<_> = inner.children().map(|node| node.tag_name().name()).collect();
        assert_eq!(names, ["identity", "location", "duration"]);
        assert_eq!(child_text(inner, "identity"), Some("sip:a&b@example.test"));
        assert_eq!(document.root_element().attribute("from"), Some("sip:a&b@example.test"));
        assert_eq!(document.root_element().tag_name().namespace(), Some(MRAS_NS));
    }

    fn response(inner: &str, reason: &str) -> String {
        format!(
            r#"<response requestID="7" version="1.0" serverVersion="2.0" to="sip:m" from="sip:a" reasonPhrase="{reason}"
 xmlns="http://schemas.microsoft.com/2006/09/sip/mrasp"><credentialsResponse credentialsRequestID="7">{inner}</credentialsResponse></response>"#
        )
    }

    const CREDENTIALS: &str = "<credentials><username>AgAA</username><password>mK0x</password><duration>480</duration><realm>rtcmedia</realm></credentials>";

    #[test]
    fn a_response_gives_credentials_and_the_relays_with_the_transports_they_offer() {
        let relays = "<mediaRelayList><mediaRelay><location>internet</location><hostName>av.example.test</hostName><udpPort>3478</udpPort>\
             <tcpPort>443</tcpPort></mediaRelay><mediaRelay><location>intranet</location><directIPAddress>10.0.0.9</directIPAddress>\
             <udpPort>3478</udpPort></mediaRelay></mediaRelayList>";
        let credentials = parse_mras_response(&response(&format!("{CREDENTIALS}{relays}"), "OK"), "7").unwrap();
        assert_eq!(credentials.lifetime, Duration::from_hours(8));
        assert_eq!(credentials.realm.as_deref(), Some("rtcmedia"));
        assert!(!format!("{credentials:?}").contains("mK0x"), "the password is not printed");
        assert_eq!(credentials.relays[1].tcp_port, None);
        let outside = useful_relays(&credentials.relays, Location::Internet);
        assert_eq!(outside.iter().map(|relay| relay.host.to_string()).collect::<Vec<_>>(), ["av.example.test"]);
        let inside = useful_relays(&credentials.relays, Location::Intranet);
        assert_eq!(
            inside.iter().map(|relay| relay.host.to_string()).collect::<Vec<_>>(),
            ["10.0.0.9", "av.example.test"]
        );
    }

    #[test]
    fn a_refusal_and_a_half_document_give_nothing() {
        let cases = [
            ("a refusal", response("", "Forbidden"), "7"),
            ("another request", response(CREDENTIALS, "OK"), "8"),
            ("no relays", response(CREDENTIALS, "OK"), "7"),
            (
                "no password",
                response("<credentials><username>x</username><duration>1</duration></credentials>", "OK"),
                "7",
            ),
            ("no namespace", response(CREDENTIALS, "OK").replace(MRAS_NS, "urn:other"), "7"),
        ];
        let errors = cases.map(|(name, body, id)| format!("{name}: {}", parse_mras_response(&body, id).unwrap_err()));
        insta::assert_snapshot!(errors.join("\n"), @r#"
        a refusal: the media relay service answered "Forbidden"
        another request: the media relay service answered another request ("7" instead of "8")
        no relays: the media relay response lacks mediaRelayList
        no password: the media relay response lacks mediaRelayList
        no namespace: the media relay response has namespace "urn:other", which is not valid
        "#);
    }

    #[test]
    fn turn_rest_gives_the_password_of_the_facts_sheet() {
        let (username, password) = turn_rest(&Secret::new("edge-lab-secret".to_owned()), "alice", 1_767_225_600);
        assert_eq!(username, "1767225600:alice");
        assert_eq!(password.expose(), "05jEHr12im4bMl4yybc+61bnap8=");
    }

    #[test]
    fn location_is_intranet_only_when_both_signs_say_so() {
        let cases =
            [(true, false, Location::Intranet), (true, true, Location::Internet), (false, false, Location::Internet)];
        for (internal, remote, want) in cases {
            assert_eq!(Location::of(internal, remote), want, "internal name {internal}, remote user {remote}");
        }
    }

    #[test]
    fn failures_are_retried_after_half_a_minute_doubling_to_a_quarter_of_an_hour() {
        let seconds: Vec<_> = (1..=7).map(|failures| retry_after(failures, false).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(retry_after(3, true).as_secs(), 60);
    }
}
