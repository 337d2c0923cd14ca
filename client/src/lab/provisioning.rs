//! In-band provisioning of the lab: what the 200 to REGISTER hints at, and the answer to the provisioning query
//! (SUBSCRIBE, event `vnd-microsoft-provisioning-v2`), which names the MRAS URI. [MS-SIPREGE]

use quick_xml::Writer;
use quick_xml::events::BytesText;
use sip::message::{Method, Request, Response};

use crate::core::provision::{PROVISIONING_EVENT, PROVISIONING_TYPE};

const NOTIFICATION_NS: &str = "http://schemas.microsoft.com/2006/09/sip/provisiongrouplist-notification";

/// How the document reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In the 200 to the SUBSCRIBE, if the client supports it; else by NOTIFY.
    Piggyback,
    Notify,
    /// A NOTIFY that gets no answer.
    BeNotify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where SERVICE requests go; `None`: no edge for this user.
    pub mras_uri: Option<String>,
    /// `ucPC2PCAVEncryption`.
    pub encryption: Option<String>,
    /// First and last UDP port for audio.
    pub audio_ports: Option<(u16, u16)>,
    pub delivery: Delivery,
    /// The REGISTER came through an edge: `ms-user-logon-data: RemoteUser`.
    pub remote_user: bool,
    /// Seconds between keep-alives of streams, told in `ms-keep-alive`.
    pub keepalive_s: Option<u32>,
    /// A status to refuse the query with, as a fault: 403, 404, 503, 504 …
    pub refuse: Option<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mras_uri: None,
            encryption: None,
            audio_ports: None,
            delivery: Delivery::Piggyback,
            remote_user: true,
            keepalive_s: None,
            refuse: None,
        }
    }
}

impl Config {
    /// Adds what a 200 to REGISTER says beside the bindings.
    pub fn add_hints(&self, response: &mut Response) {
        if self.remote_user {
            response.headers.push("ms-user-logon-data", "RemoteUser");
        }
        response.headers.push("Allow-Events", PROVISIONING_EVENT);
        response.headers.push("Supported", "msrtc-event-categories, adhoclist");
        if let Some(seconds) = self.keepalive_s {
            let value = format!("UAS; tcp=no; hop-hop=yes; end-end=no; timeout={seconds}");
            response.headers.push("ms-keep-alive", value);
        }
    }

    /// The document, children in the order of the field.
    pub fn document(&self) -> Vec<u8> {
        let ports = self.audio_ports.map(|(low, high)| (low.to_string(), high.to_string()));
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if let Some(uri) = &self.mras_uri {
            fields.push(("mrasUri", uri));
        }
        if let Some(encryption) = &self.encryption {
            fields.push(("ucPC2PCAVEncryption", encryption));
        }
        if let Some((low, high)) = &ports {
            fields.extend([("ucPortRangeEnabled", "true"), ("ucMinAudioPort", low), ("ucMaxAudioPort", high)]);
        }
        let mut writer = Writer::new(Vec::new());
        let written = writer
            .create_element("provisionGroupList")
            .with_attribute(("xmlns", NOTIFICATION_NS))
            .write_inner_content(|writer| {
                writer
                    .create_element("provisionGroup")
                    .with_attribute(("name", "ServerConfiguration"))
                    .write_inner_content(|writer| {
                        for (name, text) in fields {
                            writer.create_element(name).write_text_content(BytesText::new(text))?;
                        }
                        Ok(())
                    })?;
                Ok(())
            });
        // Writing into memory does not fail.
        written.map(|_| ()).map_or_else(|_| Vec::new(), |()| writer.into_inner())
    }

    /// Answers the SUBSCRIBE: the response, and the NOTIFY to send behind it, if the document is not in the response.
    /// The caller adds Via, Max-Forwards and the CSeq that suits it to the NOTIFY.
    pub fn answer(&self, subscribe: &Request, tag: &str) -> (Response, Option<Request>) {
        let event = subscribe.headers.parse_one::<sip::header::Event>("Event");
        if !event.is_ok_and(|event| event.package.eq_ignore_ascii_case(PROVISIONING_EVENT)) {
            let mut response = subscribe.response(489, "");
            response.headers.push("Allow-Events", PROVISIONING_EVENT);
            return (response, None);
        }
        if let Some(status) = self.refuse {
            return (subscribe.response(status, ""), None);
        }
        let mut response = subscribe.response(200, "");
        if let Ok(to) = subscribe.headers.to() {
            response.headers.set("To", to.with_tag(tag).to_string());
        }
        response.headers.push("Contact", format!("<{}>", subscribe.uri));
        response.headers.push("Expires", "0");
        response.headers.push("subscription-state", "terminated;expires=0");
        let piggyback = subscribe.headers.lists("Supported", "ms-piggyback-first-notify");
        match self.delivery {
            Delivery::Piggyback if piggyback => {
                response.headers.push("ms-piggyback-cseq", "1");
                response.headers.push("Event", PROVISIONING_EVENT);
                response.set_body(PROVISIONING_TYPE, self.document());
                (response, None)
            }
            Delivery::Piggyback | Delivery::Notify => (response, self.notify(subscribe, tag, &Method::Notify)),
            Delivery::BeNotify => (response, self.notify(subscribe, tag, &Method::BeNotify)),
        }
    }

    /// RFC 6665 §4.2.2: within the dialog of the subscription, from and to swapped.
    fn notify(&self, subscribe: &Request, tag: &str, method: &Method) -> Option<Request> {
        let contact = subscribe.headers.contacts().ok()?.into_iter().next()?;
        let mut notify = Request::new(method.clone(), contact.uri);
        notify.headers.push("From", subscribe.headers.to().ok()?.with_tag(tag).to_string());
        notify.headers.push("To", subscribe.headers.from().ok()?.to_string());
        notify.headers.push("Call-ID", subscribe.headers.call_id().ok()?);
        notify.headers.push("CSeq", format!("1 {method}"));
        notify.headers.push("Event", PROVISIONING_EVENT);
        notify.headers.push("Subscription-State", "terminated;reason=timeout");
        notify.headers.push("Contact", format!("<{}>", subscribe.uri));
        notify.set_body(PROVISIONING_TYPE, self.document());
        Some(notify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provision::{Encryption, parse_provisioning};

    #[test]
    fn our_phone_can_read_the_document() {
        let config = Config {
            mras_uri: Some("sip:MRASLoc.lab.test@lab.test;gruu;opaque=srvr:MRAS:a&b".to_owned()),
            encryption: Some("SupportEncryption".to_owned()),
            audio_ports: Some((50_020, 50_039)),
            ..Config::default()
        };
        let read = parse_provisioning(std::str::from_utf8(&config.document()).unwrap()).unwrap();
        assert_eq!(read.mras_uri, config.mras_uri);
        assert_eq!((read.encryption, read.audio_ports), (Some(Encryption::Supported), Some((50_020, 50_039))));
        let none = parse_provisioning(std::str::from_utf8(&Config::default().document()).unwrap()).unwrap();
        assert_eq!(none.mras_uri, None);
    }
}
