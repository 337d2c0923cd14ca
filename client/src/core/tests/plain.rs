//! A peer without ICE, as an ordinary PBX is one: written by hand, packet by packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sip::message::{Message, Method, Request, Response};

use super::wire::{World, listening};
use crate::api::{CallChange, CallId, CallState, EndReason, MediaSource, Protection, SrtpMode, TransportChoice};

const C1: CallId = CallId(1);
const PBX: &str = "192.0.2.50:5060";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A user agent server of a few lines: answers INVITE with PCMU at one address, counts RTP and sends as much back.
struct Pbx {
    sip: SocketAddr,
    rtp: SocketAddr,
    /// First media line of the answer, and what to answer to an offer with SAVP.
    refuse_srtp: bool,
    /// Sends a 183 first, with this port for media.
    announcement: Option<u16>,
    /// Says so in the 200 to REGISTER.
    outbound: bool,
    stun_keepalives: usize,
    announced_packets: usize,
    seen: BTreeMap<String, usize>,
    rtp_packets: usize,
    rtcp_packets: usize,
    offers: Vec<String>,
}

impl Pbx {
    fn new() -> Self {
        Self {
            sip: PBX.parse().unwrap(),
            rtp: "192.0.2.50:7000".parse().unwrap(),
            refuse_srtp: false,
            announcement: None,
            outbound: false,
            stun_keepalives: 0,
            announced_packets: 0,
            seen: BTreeMap::new(),
            rtp_packets: 0,
            rtcp_packets: 0,
            offers: Vec::new(),
        }
    }

    fn body(&self) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.50\r\ns=-\r\nc=IN IP4 192.0.2.50\r\nt=0 0\r\nm=audio {} RTP/AVP 0 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\n",
            self.rtp.port()
        )
    }

    fn answer(&mut self, request: &Request) -> Option<Response> {
        *self.seen.entry(request.method.to_string()).or_default() += 1;
        let respond = |status: u16| {
            let mut response = request.response(status, "");
            let to = response.headers.get("To").unwrap_or_default().to_owned();
            if !to.contains("tag=") {
                response.headers.set("To", format!("{to};tag=pbx"));
            }
            response
        };
        match &request.method {
            Method::Ack => None,
            Method::Invite => {
                let offer = String::from_utf8_lossy(&request.body).into_owned();
                let refuse = self.refuse_srtp && offer.contains("a=crypto");
                self.offers.push(offer);
                if refuse {
                    return Some(respond(488));
                }
                let mut response = respond(200);
                response.headers.push("Contact", format!("<sip:pbx@{}>", self.sip));
                response.set_body("application/sdp", self.body().into_bytes());
                Some(response)
            }
            Method::Register => {
                let mut response = respond(200);
                response.headers.push("Contact", request.headers.get("Contact").unwrap_or_default());
                if self.outbound {
                    response.headers.push("Require", "outbound");
                }
                Some(response)
            }
            _ => Some(respond(200)),
        }
    }

    /// Takes what came for it; answers SIP, and every RTP packet with one of its own.
    fn run(&mut self, world: &mut World) {
        while let Some((to, from, payload)) = world.scripted.pop_front() {
            if to == self.sip {
                if let Ok(Message::Request(request)) = sip::parse::parse_message(&payload)
                    && let Some(response) = self.answer(&request)
                {
                    if let Some(port) = self.announcement.filter(|_| request.method == Method::Invite) {
                        let mut early = response.clone();
                        (early.status, early.reason) = (183, "Session Progress".to_owned());
                        early.body = self.body().replace(" 7000 ", &format!(" {port} ")).into_bytes();
                        early.headers.set("Content-Length", early.body.len().to_string());
                        world.inject(self.sip, from, early.to_bytes());
                        world.run_for(secs(1));
                    }
                    world.inject(self.sip, from, response.to_bytes());
                } else if payload.starts_with(&[0, 1]) {
                    self.stun_keepalives += 1;
                }
            } else if Some(to.port()) == self.announcement {
                self.announced_packets += 1;
            } else if to == self.rtp {
                self.rtp_packets += 1;
                let mut packet = payload.clone();
                packet[8..12].copy_from_slice(&[9, 9, 9, 9]);
                world.inject(self.rtp, from, packet);
            } else if to.port() == self.rtp.port() + 1 {
                self.rtcp_packets += 1;
            }
        }
    }
}

fn run(world: &mut World, pbx: &mut Pbx, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.run_for(Duration::from_millis(5));
        pbx.run(world);
    }
}

fn dial(srtp: SrtpMode, pbx: &mut Pbx) -> World {
    let mut world = World::new(1);
    world.add(0, crate::api::AccountConfig { srtp, ..listening("192.0.2.1:5060", TransportChoice::Udp) });
    world.dial(0, C1, "sip:100@192.0.2.50", MediaSource::Tone { hz: 1000.0 });
    run(&mut world, pbx, secs(7));
    world
}

#[test]
fn a_peer_without_ice_gets_plain_rtp_and_rtcp_at_its_addresses() {
    let mut pbx = Pbx::new();
    let mut world = dial(SrtpMode::Off, &mut pbx);
    let phone = &world.phones[0];
    assert!(phone.is(C1, CallState::Talking), "{}", world.story());
    assert!(
        phone.sees(C1, |change| matches!(change, CallChange::NoIce { remote } if *remote == pbx.rtp)),
        "{}",
        world.story()
    );
    assert!(pbx.rtp_packets > 250 && pbx.rtcp_packets > 0, "{} RTP, {} RTCP", pbx.rtp_packets, pbx.rtcp_packets);
    let end = world.now - world.start;
    assert!(phone.loudness(C1, end - secs(2), end) > 1000.0, "the echo of the PBX is heard\n{}", world.story());
    assert!(phone.sees(C1, |change| {
        matches!(change, CallChange::MediaStarted { codec, protection: Protection::None } if codec == "PCMU")
    }));
    world.command(0, crate::api::Command::Hangup { call: C1 });
    run(&mut world, &mut pbx, secs(2));
    assert_eq!(world.phones[0].ended(C1), Some(EndReason::LocalHangup));
    assert_eq!(pbx.seen.get("BYE"), Some(&1), "{:?}", pbx.seen);
}

#[test]
fn optional_srtp_is_given_up_once_after_a_488() {
    let mut pbx = Pbx { refuse_srtp: true, ..Pbx::new() };
    let world = dial(SrtpMode::Optional, &mut pbx);
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
    assert_eq!(pbx.offers.len(), 2);
    assert!(pbx.offers[0].contains("RTP/AVP") && pbx.offers[0].contains("a=crypto"));
    assert!(pbx.offers[1].contains("RTP/AVP") && !pbx.offers[1].contains("a=crypto"));
}

#[test]
fn required_srtp_ends_the_call_if_the_peer_has_none() {
    let mut pbx = Pbx::new();
    let world = dial(SrtpMode::Required, &mut pbx);
    assert!(matches!(world.phones[0].ended(C1), Some(EndReason::NotAcceptable { .. })), "{}", world.story());
    assert_eq!(pbx.seen.get("BYE"), Some(&1), "what was answered is hung up");
    assert_eq!(pbx.rtp_packets, 0);
}

#[test]
fn the_peers_hold_and_its_options_are_answered() {
    let mut pbx = Pbx::new();
    let mut world = dial(SrtpMode::Off, &mut pbx);
    let original = world.phones[0].log.iter().find_map(|line| sent_invite(line)).unwrap();
    let (from, to) = (pbx.sip, "192.0.2.1:5060".parse().unwrap());
    let plain = pbx.body();
    let body = |version: u32, line: &str| plain.replace("o=- 1 1", &format!("o=- 1 {version}")) + line;
    world.inject(from, to, reinvite(2, &body(2, "a=sendonly\r\n"), &original));
    run(&mut world, &mut pbx, secs(1));
    assert!(
        world.phones[0].sees(C1, |change| matches!(change, CallChange::Hold { by_us: false, by_peer: true })),
        "{}",
        world.story()
    );
    let before = pbx.rtp_packets;
    run(&mut world, &mut pbx, secs(1));
    assert!(pbx.rtp_packets <= before + 1, "nothing is sent to one who does not listen");
    world.inject(from, to, reinvite(3, &body(3, "a=sendrecv\r\n"), &original));
    run(&mut world, &mut pbx, secs(1));
    assert!(world.phones[0].sees(C1, |change| matches!(change, CallChange::Hold { by_us: false, by_peer: false })));
    assert!(pbx.rtp_packets > before + 20);
}

/// A request of the PBX inside the dialog of `call`.
fn request_of(method: &Method, cseq: u32, call: &Request) -> Request {
    let mut request = Request::new(method.clone(), "sip:phone@192.0.2.1:5060".parse().unwrap());
    request.headers.push("Via", format!("SIP/2.0/UDP {PBX};branch=z9hG4bKpbx{cseq}{method}"));
    request.headers.push("From", format!("{};tag=pbx", call.headers.get("To").unwrap()));
    request.headers.push("To", call.headers.get("From").unwrap());
    request.headers.push("Call-ID", call.headers.get("Call-ID").unwrap());
    request.headers.push("CSeq", format!("{cseq} {method}"));
    request.headers.push("Contact", format!("<sip:pbx@{PBX}>"));
    request.headers.push("Max-Forwards", "70");
    request
}

fn reinvite(cseq: u32, body: &str, call: &Request) -> Vec<u8> {
    let mut request = request_of(&Method::Invite, cseq, call);
    request.set_body("application/sdp", body.as_bytes().to_vec());
    request.to_bytes()
}

#[test]
fn a_hold_by_the_address_0_0_0_0_stops_what_we_send_and_is_taken_back() {
    let mut pbx = Pbx::new();
    let mut world = dial(SrtpMode::Off, &mut pbx);
    let original = world.phones[0].log.iter().find_map(|line| sent_invite(line)).unwrap();
    let (from, to) = (pbx.sip, "192.0.2.1:5060".parse().unwrap());
    let nowhere = pbx.body().replace("o=- 1 1", "o=- 1 2").replace("c=IN IP4 192.0.2.50", "c=IN IP4 0.0.0.0");
    world.inject(from, to, reinvite(2, &nowhere, &original));
    run(&mut world, &mut pbx, secs(1));
    assert!(world.phones[0].is(C1, CallState::Held), "{}", world.story());
    let before = pbx.rtp_packets;
    run(&mut world, &mut pbx, secs(1));
    assert!(pbx.rtp_packets <= before + 1, "RFC 3264 §8.4: nothing is sent");
    let again = pbx.body().replace("o=- 1 1", "o=- 1 3");
    world.inject(from, to, reinvite(3, &again, &original));
    run(&mut world, &mut pbx, secs(1));
    assert!(pbx.rtp_packets > before + 20, "{}", world.story());
}

#[test]
fn a_hold_that_meets_the_peers_change_leaves_when_that_is_over() {
    let mut pbx = Pbx::new();
    let mut world = dial(SrtpMode::Off, &mut pbx);
    let original = world.phones[0].log.iter().find_map(|line| sent_invite(line)).unwrap();
    let (from, to) = (pbx.sip, "192.0.2.1:5060".parse().unwrap());
    let changed = pbx.body().replace("o=- 1 1", "o=- 1 2") + "a=ptime:20\r\n";
    world.inject(from, to, reinvite(2, &changed, &original));
    run(&mut world, &mut pbx, secs(1));
    // Our 200 has no ACK yet.
    world.command(0, crate::api::Command::Hold { call: C1 });
    run(&mut world, &mut pbx, secs(1));
    assert_eq!(pbx.offers.len(), 1);
    world.inject(from, to, request_of(&Method::Ack, 2, &original).to_bytes());
    run(&mut world, &mut pbx, secs(1));
    assert_eq!(pbx.offers.len(), 2, "{}", world.story());
    assert!(pbx.offers[1].contains("a=sendonly"));
    assert!(world.phones[0].is(C1, CallState::Held));
}

#[test]
fn the_call_speaks_to_the_address_of_the_200_and_not_to_that_of_the_announcement_before_it() {
    let mut pbx = Pbx { announcement: Some(7100), ..Pbx::new() };
    let world = dial(SrtpMode::Off, &mut pbx);
    assert!(world.phones[0].is(C1, CallState::Talking), "{}", world.story());
    assert!(pbx.announced_packets > 10, "silence goes to the announcement: {}", pbx.announced_packets);
    assert!(pbx.rtp_packets > 200, "{} packets\n{}", pbx.rtp_packets, world.story());
}

#[test]
fn the_end_of_a_played_recording_is_told_once_all_of_it_is_sent() {
    let mut pbx = Pbx { announcement: Some(7100), ..Pbx::new() };
    let mut world = World::new(1);
    world
        .add(0, crate::api::AccountConfig { srtp: SrtpMode::Off, ..listening("192.0.2.1:5060", TransportChoice::Udp) });
    let samples = vec![8000; 48_000].into();
    world.dial(0, C1, "sip:100@192.0.2.50", MediaSource::Samples { samples, repeat: false });
    let ended = |change: &CallChange| matches!(change, CallChange::SourceEnded);
    run(&mut world, &mut pbx, Duration::from_millis(1900));
    assert!(!world.phones[0].sees(C1, ended), "it begins with the answer\n{}", world.story());
    run(&mut world, &mut pbx, Duration::from_millis(500));
    assert!(world.phones[0].sees(C1, ended), "{}", world.story());
}

/// An account at the PBX, by address.
fn at_pbx(register: bool) -> crate::api::AccountConfig {
    crate::api::AccountConfig {
        aor: "sip:100@192.0.2.50".to_owned(),
        edge: Some(PBX.to_owned()),
        transport: TransportChoice::Udp,
        mras: false,
        register,
        ..crate::api::AccountConfig::default()
    }
}

#[test]
fn a_registrar_that_requires_outbound_over_udp_is_kept_alive_with_stun() {
    for outbound in [true, false] {
        let mut pbx = Pbx { outbound, ..Pbx::new() };
        let mut world = World::new(1);
        world.add(0, at_pbx(true));
        run(&mut world, &mut pbx, secs(60));
        let want = if outbound { 2..=3 } else { 0..=0 };
        assert!(want.contains(&pbx.stun_keepalives), "outbound {outbound}: {}", pbx.stun_keepalives);
    }
}

#[test]
fn relays_of_the_configuration_are_probed_without_a_registration_too() {
    let server = crate::api::ServerConfig {
        host: "192.0.2.60".to_owned(),
        port: 3478,
        transport: crate::api::RelayTransport::Udp,
        user: Some("alice".to_owned()),
        password: Some(crate::api::Secret::new("secret".to_owned())),
        rest_secret: None,
    };
    let mut world = World::new(1);
    world.add(0, crate::api::AccountConfig { servers: vec![server], ..at_pbx(false) });
    world.run_for(secs(4));
    let probed = world.phones[0].events.iter().any(|(_, event)| {
        matches!(event, crate::api::EventBody::Account { change, .. }
            if matches!(**change, crate::api::AccountChange::RelayProbed { failure: Some(_), .. }))
    });
    assert!(probed, "{}", world.story());
}

/// The INVITE in a line of the log.
fn sent_invite(line: &str) -> Option<Request> {
    let bytes = line.split_once("payload: [")?.1.trim_end_matches([' ', '}', ']']);
    let bytes: Vec<u8> = bytes.split(", ").filter_map(|byte| byte.parse().ok()).collect();
    match sip::parse::parse_message(&bytes) {
        Ok(Message::Request(request)) if request.method == Method::Invite => Some(request),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn a_call_without_an_offer_gets_ours_in_the_200_and_the_answer_in_the_ack() {
    let mut pbx = Pbx::new();
    let mut world = World::new(1);
    let account = super::wire::answering("192.0.2.1:5060", 100, MediaSource::Tone { hz: 1000.0 });
    world.add(0, crate::api::AccountConfig { srtp: SrtpMode::Off, ..account });
    let request = |method: Method, branch: &str, to: &str| {
        let mut request = Request::new(method.clone(), "sip:phone@192.0.2.1:5060".parse().unwrap());
        request.headers.push("Via", format!("SIP/2.0/UDP {PBX};branch=z9hG4bK{branch}"));
        request.headers.push("From", format!("<sip:pbx@{PBX}>;tag=pbx"));
        request.headers.push("To", to);
        request.headers.push("Call-ID", "late-offer");
        request.headers.push("CSeq", format!("1 {method}"));
        request.headers.push("Contact", format!("<sip:pbx@{PBX}>"));
        request.headers.push("Max-Forwards", "70");
        request
    };
    let (from, phone) = (pbx.sip, "192.0.2.1:5060".parse().unwrap());
    world.inject(from, phone, request(Method::Invite, "late", "<sip:phone@192.0.2.1>").to_bytes());
    let end = world.now + secs(2);
    let mut acknowledged = false;
    while world.now < end {
        world.run_for(Duration::from_millis(5));
        for (to, from, payload) in std::mem::take(&mut world.scripted) {
            let answer = (to == pbx.sip).then(|| sip::parse::parse_message(&payload).ok()).flatten();
            match answer {
                Some(Message::Response(response)) if response.status == 200 && !acknowledged => {
                    acknowledged = true;
                    assert!(String::from_utf8_lossy(&response.body).contains("m=audio"), "our offer");
                    let mut ack = request(Method::Ack, "ack", response.headers.get("To").unwrap());
                    ack.set_body("application/sdp", pbx.body().into_bytes());
                    world.inject(pbx.sip, from, ack.to_bytes());
                }
                Some(_) => {}
                None => world.scripted.push_back((to, from, payload)),
            }
        }
        pbx.run(&mut world);
    }
    let call = CallId(2);
    assert!(world.phones[0].is(call, CallState::Talking), "{}", world.story());
    assert!(pbx.rtp_packets > 50, "{} packets\n{}", pbx.rtp_packets, world.story());
}
