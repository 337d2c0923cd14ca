use hickory_proto::op::{MessageType, Query};

use super::*;
use crate::lab::SocketId;
use crate::lab::proxy::tests::epoch;

fn zone() -> Zone {
    let at = |text: &str| text.parse().ok();
    let (plain, tls) = (at("127.0.0.1:5060"), at("127.0.0.1:5061"));
    let mut zone =
        lab_zone("lab.test", "edge.lab.test", Offers { udp: plain, tcp: plain, tls, inside: false }).unwrap();
    zone.address("edge.lab.test", "::1".parse().unwrap());
    zone
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(absolute(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ask(dns: &mut Dns, name: &str, kind: RecordType) -> Option<Message> {
    let from = "127.0.0.1:4000".parse().unwrap();
    dns.handle_input(epoch(), Input::Datagram { socket: SocketId(0), from, bytes: &question(name, kind) });
    match dns.poll_output() {
        Output::Transmit { to, bytes, .. } => {
            assert_eq!(to, from);
            Some(Message::from_vec(&bytes).unwrap())
        }
        Output::Timeout(None) => None,
        other => panic!("{other:?}"),
    }
}

fn outcome(answer: &Message) -> (ResponseCode, Vec<String>) {
    (answer.metadata.response_code, answer.answers.iter().map(|record| record.data.to_string()).collect())
}

#[test]
fn the_lab_zone_answers_every_name_a_phone_asks_for() {
    let mut dns = Dns::new(zone());
    let cases: [(&str, RecordType, ResponseCode, &[&str]); 9] = [
        ("_sip._tls.lab.test", RecordType::SRV, ResponseCode::NoError, &["0 0 5061 edge.lab.test."]),
        ("_SIPS._tcp.LAB.test.", RecordType::SRV, ResponseCode::NoError, &["0 0 5061 edge.lab.test."]),
        ("_sip._tcp.lab.test", RecordType::SRV, ResponseCode::NoError, &["0 0 5060 edge.lab.test."]),
        ("_sip._udp.lab.test", RecordType::SRV, ResponseCode::NoError, &["0 0 5060 edge.lab.test."]),
        ("_sipinternaltls._tcp.lab.test", RecordType::SRV, ResponseCode::NXDomain, &[]),
        ("edge.lab.test", RecordType::A, ResponseCode::NoError, &["127.0.0.1"]),
        ("edge.lab.test", RecordType::AAAA, ResponseCode::NoError, &["::1"]),
        ("edge.lab.test", RecordType::SRV, ResponseCode::NoError, &[]),
        ("_tcp.lab.test", RecordType::A, ResponseCode::NoError, &[]),
    ];
    for (name, kind, code, want) in cases {
        let answer = ask(&mut dns, name, kind).unwrap();
        let (got, records) = outcome(&answer);
        assert_eq!((got, records), (code, want.iter().map(ToString::to_string).collect()), "case: {name} {kind}");
        assert!(answer.metadata.authoritative && answer.metadata.id == 7);
        assert_eq!(answer.authorities.len(), usize::from(want.is_empty()), "an absence carries an SOA: {name}");
    }
    let naptr = ask(&mut dns, "lab.test", RecordType::NAPTR).unwrap();
    assert_eq!(naptr.answers.len(), 3);
    assert_eq!(dns.asked().count(), 10);
}

#[test]
fn a_zone_of_inside_has_the_internal_name_too() {
    let tls = "10.0.0.1:5061".parse().ok();
    let zone = lab_zone("lab.test", "fe.lab.test", Offers { tls, inside: true, ..Offers::default() }).unwrap();
    let names: Vec<String> = zone.list().into_iter().map(|(name, _)| name).collect();
    let want =
        ["_sip._tls.lab.test", "_sipinternaltls._tcp.lab.test", "_sips._tcp.lab.test", "fe.lab.test", "lab.test"];
    assert_eq!(names, want);
}

#[test]
fn records_can_be_removed_and_added_while_it_runs() {
    let mut dns = Dns::new(zone());
    dns.zone_mut().remove("_sip._tls.lab.test", Kind::Srv);
    assert_eq!(
        ask(&mut dns, "_sip._tls.lab.test", RecordType::SRV).unwrap().metadata.response_code,
        ResponseCode::NXDomain
    );
    dns.zone_mut().srv("_sipinternaltls._tcp.lab.test", 0, 0, 5061, ".").unwrap();
    let (_, records) = outcome(&ask(&mut dns, "_sipinternaltls._tcp.lab.test", RecordType::SRV).unwrap());
    assert_eq!(records, ["0 0 5061 ."]);
    assert!(dns.zone().list().iter().all(|(name, _)| name != "_sip._tls.lab.test"));
}

#[test]
fn faults_are_what_they_are_called() {
    let mut dns = Dns::new(zone());
    dns.faults_mut().broken_names.insert("_sip._tls.lab.test".to_owned());
    dns.faults_mut().silent_names.insert("edge.lab.test".to_owned());
    assert_eq!(
        ask(&mut dns, "_sip._tls.lab.test", RecordType::SRV).unwrap().metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(ask(&mut dns, "edge.lab.test", RecordType::A), None);
    dns.faults_mut().silent = true;
    assert_eq!(ask(&mut dns, "lab.test", RecordType::A), None);
}

#[test]
fn what_does_not_fit_is_truncated_and_comes_whole_by_tcp() {
    let mut dns = Dns::new(Zone::new());
    for port in 0..40 {
        let target = format!("a-rather-long-host-name-{port}.lab.test");
        dns.zone_mut().srv("_sip._tcp.lab.test", 0, 0, 5060, &target).unwrap();
    }
    let short = ask(&mut dns, "_sip._tcp.lab.test", RecordType::SRV).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());

    let query = question("_sip._tcp.lab.test", RecordType::SRV);
    let framed = [u16::try_from(query.len()).unwrap().to_be_bytes().as_slice(), &query].concat();
    let stream = StreamId(1);
    let (local, remote) = ("127.0.0.1:53".parse().unwrap(), "127.0.0.1:4000".parse().unwrap());
    dns.handle_input(epoch(), Input::StreamOpened { stream, local, remote, tls: false });
    let (one, two) = framed.split_at(5); // cut anywhere
    dns.handle_input(epoch(), Input::Stream { stream, bytes: one });
    assert_eq!(dns.poll_output(), Output::Timeout(None));
    dns.handle_input(epoch(), Input::Stream { stream, bytes: &[two, &framed].concat() });
    for _ in 0..2 {
        let Output::StreamSend { bytes, .. } = dns.poll_output() else { panic!("an answer for each question") };
        let answer = Message::from_vec(&bytes[2..]).unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 40);
    }
}

#[test]
fn noise_gets_no_answer() {
    let mut dns = Dns::new(zone());
    for bytes in [&b""[..], b"\0\x01", b"REGISTER sip:lab.test SIP/2.0\r\n\r\n"] {
        let from = "127.0.0.1:4000".parse().unwrap();
        dns.handle_input(epoch(), Input::Datagram { socket: SocketId(0), from, bytes });
        assert_eq!(dns.poll_output(), Output::Timeout(None));
    }
}
