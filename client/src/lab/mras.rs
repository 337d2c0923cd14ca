//! The lab's media relay authentication service: SERVICE in, time-limited relay credentials out, [MS-AVEDGEA].
//!
//! Credentials have the TURN REST form that the lab's relay and coturn understand: user name `<unix expiry>:<user>`,
//! password base64(HMAC-SHA1(secret, user name)). The lifetime is what was asked for, at most what is configured.

use quick_xml::Writer;
use quick_xml::events::BytesText;
use roxmltree::{Document, Node};

use crate::api::Secret;
use crate::core::provision::{Location, turn_rest};

const MRAS_NS: &str = "http://schemas.microsoft.com/2006/09/sip/mrasp";
/// Credentials given out at once (\[MS-AVEDGEA\] allows 1 to 100 requests in a document).
const REQUESTS_MAX: usize = 100;
/// Issued credentials that are remembered for listing.
const ISSUED_MAX: usize = 1024;

/// A relay as the response names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayEntry {
    pub location: Location,
    /// A host name, or an address.
    pub host: String,
    /// `None`: the transport is not offered.
    pub udp_port: Option<u16>,
    pub tcp_port: Option<u16>,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// Shared with the relay.
    pub secret: Secret,
    /// Longest lifetime, minutes; 480 in the field.
    pub minutes: u32,
    /// Written into the response if there is one; else the relay's 401 tells it.
    pub realm: Option<String>,
    pub relays: Vec<RelayEntry>,
}

/// Ways to say no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 200 with this `reasonPhrase`, for example `Server Busy` or `Version Mismatch`.
    Reason(String),
    /// A SIP status instead of a document: 403, 408, 480, 503, 504 …
    Status(u16),
    /// 200 with a body that is no XML.
    Garbage,
}

/// Credentials that were given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub username: String,
    pub identity: String,
    pub expires_unix_s: u64,
}

/// The answer to a SERVICE request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Mras {
    config: Config,
    fault: Option<Fault>,
    issued: std::collections::VecDeque<Issued>,
    requests: u64,
}

/// One `credentialsRequest`.
struct Wanted {
    id: String,
    identity: String,
    location: Option<String>,
    minutes: Option<u32>,
}

impl Mras {
    pub fn new(config: Config) -> Self {
        Self { config, fault: None, issued: std::collections::VecDeque::new(), requests: 0 }
    }

    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// The fault to inject from now on; `None` heals it.
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    /// The latest credentials, the oldest first.
    pub fn issued(&self) -> impl Iterator<Item = &Issued> {
        self.issued.iter()
    }

    /// SERVICE requests answered so far, with whatever result.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Answers one SERVICE body at wall time `unix_s`.
    pub fn answer(&mut self, unix_s: u64, body: &[u8]) -> Answer {
        self.requests += 1;
        match &self.fault {
            Some(Fault::Status(status)) => return Answer { status: *status, body: Vec::new() },
            Some(Fault::Garbage) => return Answer { status: 200, body: b"<response".to_vec() },
            Some(Fault::Reason(_)) | None => {}
        }
        let Some(text) = std::str::from_utf8(body).ok().filter(|text| !text.is_empty()) else {
            return Answer { status: 400, body: Vec::new() };
        };
        let Ok(document) = Document::parse(text) else {
            return Answer { status: 400, body: Vec::new() };
        };
        let root = document.root_element();
        let mut reason = match &self.fault {
            Some(Fault::Reason(reason)) => reason.clone(),
            Some(Fault::Status(_) | Fault::Garbage) | None => "OK".to_owned(),
        };
        let wanted = match read_request(root) {
            Ok(wanted) => wanted,
            Err(problem) => {
                problem.clone_into(&mut reason);
                Vec::new()
            }
        };
        let granted = if reason == "OK" { wanted } else { Vec::new() };
        // Writing into memory does not fail.
        let body = self.write(unix_s, root, &reason, &granted).unwrap_or_default();
        Answer { status: 200, body }
    }

    fn write(&mut self, unix_s: u64, root: Node<'_, '_>, reason: &str, granted: &[Wanted]) -> std::io::Result<Vec<u8>> {
        let echoed = |name: &'static str| root.attribute(name).unwrap_or_default().to_owned();
        let (id, version, to, from) = (echoed("requestID"), echoed("version"), echoed("to"), echoed("from"));
        let mut writer = Writer::new(Vec::new());
        writer
            .create_element("response")
            .with_attributes([
                ("requestID", id.as_str()),
                ("version", if version.is_empty() { "1.0" } else { version.as_str() }),
                ("serverVersion", "2.0"),
                // Echoed, not swapped.
                ("to", to.as_str()),
                ("from", from.as_str()),
                ("reasonPhrase", reason),
                ("xmlns", MRAS_NS),
            ])
            .write_inner_content(|writer| {
                for wanted in granted {
                    self.write_credentials(unix_s, writer, wanted)?;
                }
                Ok(())
            })?;
        Ok(writer.into_inner())
    }

    fn write_credentials(&mut self, unix_s: u64, writer: &mut Writer<Vec<u8>>, wanted: &Wanted) -> std::io::Result<()> {
        let minutes = wanted.minutes.unwrap_or(self.config.minutes).min(self.config.minutes);
        let expires_unix_s = unix_s + u64::from(minutes) * 60;
        let user = wanted.identity.trim_start_matches("sips:").trim_start_matches("sip:");
        let user = user.split('@').next().unwrap_or(user);
        let (username, password) = turn_rest(&self.config.secret, user, expires_unix_s);
        if self.issued.len() >= ISSUED_MAX {
            self.issued.pop_front();
        }
        let identity = wanted.identity.clone();
        self.issued.push_back(Issued { username: username.clone(), identity, expires_unix_s });
        let minutes = minutes.to_string();
        let realm = self.config.realm.as_deref().map(|realm| ("realm", realm));
        let fields = [("username", username.as_str()), ("password", password.expose()), ("duration", minutes.as_str())];
        let fits = |relay: &&RelayEntry| wanted.location.as_deref().is_none_or(|l| l == relay.location.as_str());
        let relays = self.config.relays.iter().filter(fits);
        writer
            .create_element("credentialsResponse")
            .with_attribute(("credentialsRequestID", wanted.id.as_str()))
            .write_inner_content(|writer| {
                writer
                    .create_element("credentials")
                    .write_inner_content(|writer| texts(writer, fields.into_iter().chain(realm)))?;
                writer.create_element("mediaRelayList").write_inner_content(|writer| {
                    for relay in relays {
                        let ports = [("udpPort", relay.udp_port), ("tcpPort", relay.tcp_port)];
                        let ports = ports.map(|(name, port)| (name, port.map(|port| port.to_string())));
                        let address = relay.host.parse::<std::net::IpAddr>().is_ok();
                        let host = (if address { "directIPAddress" } else { "hostName" }, relay.host.as_str());
                        let ports = ports.iter().filter_map(|(name, port)| port.as_deref().map(|port| (*name, port)));
                        let fields = [("location", relay.location.as_str()), host].into_iter().chain(ports);
                        writer.create_element("mediaRelay").write_inner_content(|writer| texts(writer, fields))?;
                    }
                    Ok(())
                })?;
                Ok(())
            })?;
        Ok(())
    }
}

fn texts<'a>(writer: &mut Writer<Vec<u8>>, fields: impl Iterator<Item = (&'a str, &'a str)>) -> std::io::Result<()> {
    for (name, text) in fields {
        writer.create_element(name).write_text_content(BytesText::new(text))?;
    }
    Ok(())
}

/// The requests of a document, or the `reasonPhrase` that refuses it.
fn read_request(root: Node<'_, '_>) -> Result<Vec<Wanted>, &'static str> {
    const MALFORMED: &str = "Request Malformed";
    if root.tag_name().name() != "request" || root.tag_name().namespace() != Some(MRAS_NS) {
        return Err(MALFORMED);
    }
    let sip = |name: &str| root.attribute(name).is_some_and(|uri| uri.starts_with("sip:") || uri.starts_with("sips:"));
    let id_fits = root.attribute("requestID").is_some_and(|id| !id.is_empty() && id.len() <= 64);
    if !sip("from") || !sip("to") || !id_fits {
        return Err(MALFORMED);
    }
    if !matches!(root.attribute("version"), Some("1.0" | "2.0")) {
        return Err("Version Mismatch");
    }
    let mut wanted = Vec::new();
    for node in root.children().filter(|node| node.tag_name().name() == "credentialsRequest") {
        let text = |name: &str| {
            let child = node.children().find(|child| child.tag_name().name() == name);
            child.and_then(|child| child.text()).map(|text| text.trim().to_owned())
        };
        let id =
            node.attribute("credentialsRequestID").filter(|id| !id.is_empty() && id.len() <= 64).ok_or(MALFORMED)?;
        let identity = text("identity").filter(|identity| !identity.is_empty()).ok_or(MALFORMED)?;
        let minutes = match text("duration") {
            None => None,
            Some(text) => Some(text.parse::<u32>().ok().filter(|minutes| *minutes > 0).ok_or(MALFORMED)?),
        };
        wanted.push(Wanted { id: id.to_owned(), identity, location: text("location"), minutes });
    }
    match wanted.len() {
        0 => Err(MALFORMED),
        count if count > REQUESTS_MAX => Err("Request Too Large"),
        _ => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provision::{CredentialsRequest, ProvisionError, mras_request, parse_mras_response};

    const NOW: u64 = 1_767_196_800;

    fn mras() -> Mras {
        let relay = |location, host: &str, tcp_port| RelayEntry {
            location,
            host: host.to_owned(),
            udp_port: Some(3478),
            tcp_port,
        };
        Mras::new(Config {
            secret: Secret::new("edge-lab-secret".to_owned()),
            minutes: 480,
            realm: Some("lab.test".to_owned()),
            relays: vec![
                relay(Location::Internet, "av.lab.test", Some(443)),
                relay(Location::Internet, "203.0.113.9", None),
                relay(Location::Intranet, "av-internal.lab.test", Some(443)),
            ],
        })
    }

    fn request(minutes: u32, version: &str) -> Vec<u8> {
        let identity = "sip:alice@lab.test";
        let (mras_uri, location) = ("sip:MRASLoc.lab.test@lab.test;gruu;opaque=srvr:MRAS:1", Location::Internet);
        mras_request(&CredentialsRequest { id: "7", version, identity, mras_uri, location, minutes }).unwrap()
    }

    #[test]
    fn what_our_phone_asks_it_can_read_the_answer_of() {
        let mut mras = mras();
        let answer = mras.answer(NOW, &request(480, "1.0"));
        let text = String::from_utf8(answer.body).unwrap();
        let credentials = parse_mras_response(&text, "7").unwrap();
        assert_eq!(credentials.username, "1767225600:alice");
        assert_eq!(credentials.password.expose(), "05jEHr12im4bMl4yybc+61bnap8=", "the vector of the facts sheet");
        assert_eq!(credentials.lifetime.as_secs(), 480 * 60);
        let hosts: Vec<String> = credentials.relays.iter().map(|relay| relay.host.to_string()).collect();
        assert_eq!(hosts, ["av.lab.test", "203.0.113.9"], "only those of the location asked for");
        assert_eq!((credentials.relays[0].tcp_port, credentials.relays[1].tcp_port), (Some(443), None));
        assert_eq!(mras.issued().map(|issued| issued.expires_unix_s).collect::<Vec<_>>(), [1_767_225_600]);
    }

    #[test]
    fn the_shorter_lifetime_counts() {
        for (configured, asked, want) in [(1, 480, 1), (480, 5, 5), (480, 4_000_000, 480)] {
            let mut mras = mras();
            mras.config_mut().minutes = configured;
            let body = mras.answer(NOW, &request(asked, "1.0")).body;
            let lifetime = parse_mras_response(std::str::from_utf8(&body).unwrap(), "7").unwrap().lifetime;
            assert_eq!(lifetime.as_secs(), want * 60, "configured {configured}, asked {asked}");
        }
    }

    #[test]
    fn refusals_are_documents_or_statuses() {
        let mut mras = mras();
        let refused = |answer: Answer| {
            let text = String::from_utf8(answer.body).unwrap();
            match parse_mras_response(&text, "7") {
                Err(ProvisionError::Refused(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(mras.answer(NOW, &request(480, "3.0"))), "Version Mismatch");
        let no_identity =
            String::from_utf8(request(480, "1.0")).unwrap().replace("sip:alice@lab.test</identity>", "</identity>");
        assert_eq!(refused(mras.answer(NOW, no_identity.as_bytes())), "Request Malformed");
        mras.set_fault(Some(Fault::Reason("Server Busy".to_owned())));
        assert_eq!(refused(mras.answer(NOW, &request(480, "1.0"))), "Server Busy");
        mras.set_fault(Some(Fault::Status(480)));
        assert_eq!(mras.answer(NOW, &request(480, "1.0")), Answer { status: 480, body: Vec::new() });
        mras.set_fault(None);
        assert_eq!(mras.answer(NOW, b"no xml").status, 400);
        assert_eq!(mras.issued().count(), 0);
        assert_eq!(mras.requests(), 5);
    }
}
