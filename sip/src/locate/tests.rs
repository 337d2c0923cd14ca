use super::*;
use crate::transaction::tests::epoch;

const SEED: [u8; 32] = [3; 32];

/// A zone: what each (name, type) answers. What is not in it does not exist.
type Zone = Vec<(&'static str, Kind, Answer)>;

fn srv(list: &[(u16, u16, &str)]) -> Answer {
    let record = |(priority, port, target): &(u16, u16, &str)| Srv {
        priority: *priority,
        weight: 0,
        port: *port,
        target: (*target).to_owned(),
    };
    Answer::Srv(list.iter().map(record).collect())
}

fn a(list: &[&str]) -> Answer {
    Answer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect())
}

fn domain() -> Host {
    "example.test".parse().unwrap()
}

fn account(transport: Option<Transport>) -> Config {
    Config::account(domain(), None, transport)
}

/// Runs a search in virtual time. DNS answers after 10 ms; `dead` addresses fail after `Duration`, all others connect
/// after 20 ms. The log: (milliseconds, what happened).
fn run(config: Config, zone: &Zone, dead: &[(&str, u64)]) -> Vec<(u128, String)> {
    let start = epoch();
    let mut locator = Locator::new(start, config, SEED);
    let mut pending: Vec<(Instant, u32, Input)> = Vec::new();
    let (mut now, mut log, mut order) = (start, Vec::new(), 0);
    loop {
        let wake = loop {
            let ms = (now - start).as_millis();
            match locator.poll_output() {
                Output::Resolve { query, name, kind } => {
                    let found = zone.iter().find(|(n, k, _)| *n == name && *k == kind);
                    let answer = found.map_or(Answer::NoSuchName, |(_, _, answer)| answer.clone());
                    if answer != Answer::Failed("silent".to_owned()) {
                        order += 1;
                        pending.push((now + Duration::from_millis(10), order, Input::Answered { query, answer }));
                    }
                    log.push((ms, format!("? {kind} {name}")));
                }
                Output::Connect(target) => {
                    log.push((ms, format!("> {} {}", target.transport.via_name(), target.address)));
                    let fate = dead.iter().find(|(address, _)| target.address.to_string().starts_with(address));
                    let (after, input) = match fate {
                        Some((_, after)) => (*after, Input::Failed { target: target.id, cause: "refused".to_owned() }),
                        None => (20, Input::Connected(target.id)),
                    };
                    order += 1;
                    pending.push((now + Duration::from_millis(after), order, input));
                }
                Output::Abandon(id) => {
                    pending.retain(|(_, _, input)| !matches!(input, Input::Failed { target, .. } if *target == id));
                    log.push((ms, format!("x {}", id.0)));
                }
                Output::Event(Event::Selected(target)) => log.push((ms, format!("= {}", target.address))),
                Output::Event(Event::Failed(error)) => log.push((ms, format!("! {:?}", error.kind))),
                Output::Timeout(at) => break at,
            }
        };
        pending.sort_by_key(|(at, order, _)| (*at, *order));
        let next = pending.first().map(|(at, ..)| *at);
        match (next, wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                now = at;
                let (_, _, input) = pending.remove(0);
                locator.handle_input(now, input);
            }
            (_, Some(at)) => {
                assert!(at > now, "a deadline in the past would spin");
                now = at;
                locator.handle_input(now, Input::Timeout);
            }
            (_, None) => return log,
        }
    }
}

/// What happened without the questions.
fn steps(config: Config, zone: &Zone, dead: &[(&str, u64)]) -> Vec<String> {
    let log = run(config, zone, dead).into_iter().filter(|(_, line)| !line.starts_with('?'));
    log.map(|(ms, line)| format!("{ms} {line}")).collect()
}

fn full_zone() -> Zone {
    vec![
        ("_sipinternaltls._tcp.example.test", Kind::Srv, srv(&[(0, 5061, "fe.example.test.")])),
        ("_sip._tls.example.test", Kind::Srv, srv(&[(10, 443, "edge1.example.test"), (20, 443, "edge2.example.test")])),
        ("_sips._tcp.example.test", Kind::Srv, srv(&[(0, 5061, "std.example.test")])),
        ("_sip._tcp.example.test", Kind::Srv, srv(&[(0, 5060, "tcp.example.test")])),
        ("_sip._udp.example.test", Kind::Srv, srv(&[(0, 5060, "udp.example.test")])),
        ("fe.example.test", Kind::A, a(&["10.0.0.1"])),
        ("edge1.example.test", Kind::A, a(&["203.0.113.10"])),
        ("edge2.example.test", Kind::A, a(&["203.0.113.11"])),
        ("std.example.test", Kind::A, a(&["203.0.113.12"])),
        ("tcp.example.test", Kind::A, a(&["203.0.113.13"])),
        ("udp.example.test", Kind::A, a(&["203.0.113.14"])),
    ]
}

fn without(names: &[&str]) -> Zone {
    full_zone().into_iter().filter(|(name, ..)| !names.iter().any(|cut| name.starts_with(cut))).collect()
}

const TLS_NAMES: [&str; 3] = ["_sipinternaltls", "_sip._tls", "_sips"];

#[test]
fn all_names_are_asked_at_once() {
    let log = run(account(None), &full_zone(), &[]);
    let first: Vec<&str> = log.iter().filter(|(ms, _)| *ms == 0).map(|(_, line)| line.as_str()).collect();
    let want = [
        "? SRV _sipinternaltls._tcp.example.test",
        "? SRV _sip._tls.example.test",
        "? NAPTR example.test",
        "? SRV _sips._tcp.example.test",
        "? SRV _sip._tcp.example.test",
        "? SRV _sip._udp.example.test",
    ];
    assert_eq!(first, want);
}

/// Name, configuration, zone, (address, milliseconds until it fails), what happens.
type Case<'a> = (&'a str, Config, Zone, &'a [(&'a str, u64)], &'a [&'a str]);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn servers_are_tried_in_the_order_of_the_names_250_ms_apart() {
    let cases: [Case<'_>; 12] = [
        ("inside first", account(None), full_zone(), &[], &["20 > TLS 10.0.0.1:5061", "40 = 10.0.0.1:5061"]),
        (
            "a silent server costs 250 ms, and is given up",
            account(None),
            full_zone(),
            &[("10.0.0.1", 9000)],
            &["20 > TLS 10.0.0.1:5061", "270 > TLS 203.0.113.10:443", "290 x 0", "290 = 203.0.113.10:443"],
        ),
        (
            "a refusal costs nothing; priority 10 dead, 20 used",
            account(None),
            full_zone(),
            &[("10.0.0.1", 5), ("203.0.113.10", 5)],
            &[
                "20 > TLS 10.0.0.1:5061",
                "25 > TLS 203.0.113.10:443",
                "30 > TLS 203.0.113.11:443",
                "50 = 203.0.113.11:443",
            ],
        ),
        (
            "no TLS server answers: never a downgrade",
            account(None),
            full_zone(),
            &[("10.", 5), ("203.0.113.10", 5), ("203.0.113.11", 5), ("203.0.113.12", 5)],
            &[
                "20 > TLS 10.0.0.1:5061",
                "25 > TLS 203.0.113.10:443",
                "30 > TLS 203.0.113.11:443",
                "35 > TLS 203.0.113.12:5061",
                "40 ! AllFailed",
            ],
        ),
        (
            "no TLS name: TCP",
            account(None),
            without(&TLS_NAMES),
            &[],
            &["20 > TCP 203.0.113.13:5060", "40 = 203.0.113.13:5060"],
        ),
        (
            "no TLS name, TCP dead: UDP",
            account(None),
            without(&TLS_NAMES),
            &[("203.0.113.13", 5)],
            &["20 > TCP 203.0.113.13:5060", "25 > UDP 203.0.113.14:5060", "45 = 203.0.113.14:5060"],
        ),
        (
            "transport by hand: only its name",
            account(Some(Transport::Udp)),
            full_zone(),
            &[],
            &["20 > UDP 203.0.113.14:5060", "40 = 203.0.113.14:5060"],
        ),
        (
            "no SRV at all: the host, UDP",
            account(None),
            vec![("example.test", Kind::A, a(&["192.0.2.1"]))],
            &[],
            &["20 > UDP 192.0.2.1:5060", "40 = 192.0.2.1:5060"],
        ),
        (
            "no SRV at all, TLS by hand",
            account(Some(Transport::Tls)),
            vec![("example.test", Kind::A, a(&["192.0.2.1"]))],
            &[],
            &["20 > TLS 192.0.2.1:5061", "40 = 192.0.2.1:5061"],
        ),
        ("nothing exists", account(None), vec![], &[], &["20 ! NoAddress"]),
        (
            "an edge by hand: no SRV",
            Config::account(domain(), Some(("10.9.9.9".parse().unwrap(), Some(5061))), None),
            full_zone(),
            &[],
            &["0 > TLS 10.9.9.9:5061", "20 = 10.9.9.9:5061"],
        ),
        (
            "both families: IPv6 first, then in turns",
            Config::account(domain(), Some(("two.test".parse().unwrap(), None)), Some(Transport::Tcp)),
            vec![("two.test", Kind::A, a(&["192.0.2.1", "192.0.2.2"])), ("two.test", Kind::Aaaa, a(&["2001:db8::1"]))],
            &[("192.0.2.1", 5), ("[2001:db8::1]", 300)],
            &[
                "10 > TCP [2001:db8::1]:5060",
                "260 > TCP 192.0.2.1:5060",
                "265 > TCP 192.0.2.2:5060",
                "285 x 0",
                "285 = 192.0.2.2:5060",
            ],
        ),
    ];
    for (name, config, zone, dead, want) in cases {
        assert_eq!(steps(config, &zone, dead), want, "case: {name}");
    }
}

#[test]
fn a_server_that_several_names_lead_to_is_tried_once() {
    let edge = || srv(&[(0, 5061, "edge.example.test")]);
    let zone = vec![
        ("_sipinternaltls._tcp.example.test", Kind::Srv, edge()),
        ("_sip._tls.example.test", Kind::Srv, edge()),
        ("edge.example.test", Kind::A, a(&["192.0.2.9"])),
    ];
    let log = steps(account(None), &zone, &[("192.0.2.9", 32_000)]);
    assert_eq!(log.iter().filter(|step| step.contains(" > ")).count(), 1, "{log:?}");
    assert!(log.last().is_some_and(|step| step.contains("! AllFailed")), "{log:?}");
}

#[test]
fn a_service_that_is_not_offered_is_not_looked_for_at_the_host() {
    let mut zone: Zone = vec![("example.test", Kind::A, a(&["192.0.2.1"]))];
    zone.push(("_sip._udp.example.test", Kind::Srv, srv(&[(0, 0, ".")])));
    assert_eq!(steps(account(None), &zone, &[]), ["10 ! NotOffered"]);
}

#[test]
fn a_dns_failure_is_no_absence() {
    let servfail = || Answer::Failed("SERVFAIL".to_owned());
    let mut zone = without(&TLS_NAMES);
    zone.push(("_sip._tls.example.test", Kind::Srv, servfail()));
    assert_eq!(steps(account(None), &zone, &[]), ["10 ! DnsFailed"], "TCP is there, but TLS might be");
    let mut silent = without(&TLS_NAMES);
    silent.push(("_sip._tls.example.test", Kind::Srv, Answer::Failed("silent".to_owned())));
    assert_eq!(steps(account(None), &silent, &[]), ["5000 ! DnsFailed"]);
    let dead_host: Zone = vec![("edge.test", Kind::A, servfail()), ("edge.test", Kind::Aaaa, servfail())];
    let edge = Config::account(domain(), Some(("edge.test".parse().unwrap(), None)), None);
    assert_eq!(steps(edge, &dead_host, &[]), ["10 ! DnsFailed"]);
}

#[test]
fn resolvers_without_naptr_are_put_up_with() {
    for (fault, want) in [("SERVFAIL", "20 > TCP 203.0.113.13:5060"), ("silent", "1010 > TCP 203.0.113.13:5060")] {
        let mut zone = without(&TLS_NAMES);
        zone.push(("example.test", Kind::Naptr, Answer::Failed(fault.to_owned())));
        assert_eq!(steps(account(None), &zone, &[])[0], want, "case: {fault}");
    }
}

#[test]
fn one_silent_name_does_not_hold_up_the_others() {
    let mut zone = without(&["_sipinternaltls"]);
    zone.push(("_sipinternaltls._tcp.example.test", Kind::Srv, Answer::Failed("silent".to_owned())));
    let got = steps(account(None), &zone, &[]);
    assert_eq!(got, ["270 > TLS 203.0.113.10:443", "290 = 203.0.113.10:443"]);
    let mut family: Zone = vec![("edge.test", Kind::A, a(&["192.0.2.1"]))];
    family.push(("edge.test", Kind::Aaaa, Answer::Failed("silent".to_owned())));
    let edge = Config::account(domain(), Some(("edge.test".parse().unwrap(), None)), Some(Transport::Tcp));
    assert_eq!(steps(edge, &family, &[]), ["60 > TCP 192.0.2.1:5060", "80 = 192.0.2.1:5060"]);
}

#[test]
fn naptr_may_name_another_owner_of_the_srv_records() {
    let naptr = |order, service: &str, replacement: &str| Naptr {
        order,
        preference: 50,
        flags: "s".to_owned(),
        service: service.to_owned(),
        replacement: replacement.to_owned(),
    };
    let records =
        vec![naptr(20, "SIP+D2U", "_sip._udp.example.test."), naptr(10, "SIPS+D2T", "_sips._tcp.hosted.test.")];
    let zone: Zone = vec![
        ("example.test", Kind::Naptr, Answer::Naptr(records)),
        ("_sips._tcp.hosted.test", Kind::Srv, srv(&[(0, 5061, "sbc.hosted.test")])),
        ("sbc.hosted.test", Kind::A, a(&["198.51.100.5"])),
    ];
    let log = run(account(None), &zone, &[]);
    assert!(log.contains(&(10, "? SRV _sips._tcp.hosted.test".to_owned())));
    assert!(log.contains(&(30, "> TLS 198.51.100.5:5061".to_owned())), "{log:?}");
}

#[test]
fn uris_follow_rfc_3263_section_4() {
    let zone = full_zone();
    let cases = [
        ("sip:bob@192.0.2.7", "0 > UDP 192.0.2.7:5060"),
        ("sips:bob@192.0.2.7", "0 > TLS 192.0.2.7:5061"),
        ("sip:bob@[2001:db8::7]:5080;transport=tcp", "0 > TCP [2001:db8::7]:5080"),
        ("sip:bob@edge1.example.test:5070", "10 > UDP 203.0.113.10:5070"),
        ("sip:bob@example.test;transport=tcp", "20 > TCP 203.0.113.13:5060"),
        ("sips:bob@example.test", "20 > TLS 203.0.113.12:5061"),
        ("sip:bob@example.test", "20 > TLS 203.0.113.12:5061"),
        ("sip:bob@example.test;maddr=192.0.2.9", "0 > UDP 192.0.2.9:5060"),
    ];
    for (uri, want) in cases {
        assert_eq!(steps(Config::uri(&uri.parse().unwrap()), &zone, &[])[0], want, "case: {uri}");
    }
}

#[test]
fn a_server_that_fails_later_gives_way_to_the_next() {
    let start = epoch();
    let mut locator =
        Locator::new(start, Config::account(domain(), Some(("192.0.2.1".parse().unwrap(), None)), None), SEED);
    let Output::Connect(target) = locator.poll_output() else { panic!("an address needs no DNS") };
    locator.handle_input(start, Input::Connected(target.id));
    assert!(matches!(locator.poll_output(), Output::Event(Event::Selected(_))));
    assert_eq!(locator.poll_output(), Output::Timeout(None));
    locator.handle_input(start, Input::Failed { target: target.id, cause: "503 from the server".to_owned() });
    let Output::Event(Event::Failed(error)) = locator.poll_output() else { panic!("no other server") };
    let want = "no server of 192.0.2.1 could be reached: 192.0.2.1:5060 (192.0.2.1, UDP): 503 from the server";
    assert_eq!(error.to_string(), want);
}

#[test]
fn certificates_may_name_the_domain_or_a_host_inside_it() {
    let zone: Zone = vec![
        ("_sip._tls.example.test", Kind::Srv, srv(&[(0, 443, "edge.example.test"), (1, 443, "edge.hoster.test")])),
        ("edge.example.test", Kind::A, a(&["203.0.113.1"])),
        ("edge.hoster.test", Kind::A, a(&["203.0.113.2"])),
    ];
    let start = epoch();
    let mut locator = Locator::new(start, account(None), SEED);
    let mut names = Vec::new();
    let mut now = start;
    for _ in 0..40 {
        match locator.poll_output() {
            Output::Resolve { query, name, kind } => {
                let found = zone.iter().find(|(n, k, _)| *n == name && *k == kind);
                let answer = found.map_or(Answer::NoRecords, |(_, _, answer)| answer.clone());
                locator.handle_input(now, Input::Answered { query, answer });
            }
            Output::Connect(target) => names.push(target.names),
            Output::Timeout(Some(at)) => {
                now = at;
                locator.handle_input(now, Input::Timeout);
            }
            Output::Timeout(None) | Output::Abandon(_) | Output::Event(_) => break,
        }
    }
    assert_eq!(names, [vec!["example.test", "edge.example.test"], vec!["example.test"]]);
}

#[test]
fn the_error_names_what_was_asked() {
    let start = epoch();
    let mut locator = Locator::new(start, account(Some(Transport::Udp)), SEED);
    loop {
        match locator.poll_output() {
            Output::Resolve { query, .. } => {
                locator.handle_input(start, Input::Answered { query, answer: Answer::NoSuchName });
            }
            Output::Event(Event::Failed(error)) => {
                let want = "no server for example.test in DNS: none of SRV _sip._udp.example.test, A example.test, \
                            AAAA example.test exists";
                assert_eq!(error.to_string(), want);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}
