//! Signalling, message by message, against SIPp: the scenarios in `tests/sipp`, each named after what SIPp does in it.
//!
//! SIPp ends with 0 only if the phone has sent what the scenario expects and nothing else; the phone's exit code and events say
//! whether it knew what was going on; RTP that reaches SIPp's address is counted and comes back, so that media is seen at both ends.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::lab::edge::text;
use tests::lab::phone::Phone;
use tests::peer::loopback::Loopback;
use tests::peer::sipp::{Part, Sipp, scenarios};
use tests::peer::zone::Zone;

/// A whole scenario takes less, also while everything else runs.
const LIMIT: Duration = Duration::from_secs(60);
/// Packets of the two seconds that every call lasts, each way, if none is lost: 100. Half of them is media that flows.
const PACKETS: u64 = 50;

/// The hosts of a test: SIPp, the phone, whoever else SIPp points to, the name server.
struct Hosts {
    network: Loopback,
}

impl Hosts {
    fn new() -> Self {
        Self { network: Loopback::new() }
    }

    fn sipp(&self) -> std::net::Ipv4Addr {
        self.network.host(1)
    }

    fn phone(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.network.host(2)), 5060)
    }

    fn other(&self) -> std::net::Ipv4Addr {
        self.network.host(3)
    }

    fn names(&self) -> std::net::Ipv4Addr {
        self.network.host(9)
    }

    /// A call of the phone to `uri`, two seconds long from its answer.
    fn call(&self, uri: &str, arguments: &[&str]) -> Phone {
        let listen = self.phone().to_string();
        let fixed = ["call", uri, "--listen", &listen, "--srtp", "off", "--tune", "--json", "--no-sound"];
        let duration: &[&str] = if arguments.contains(&"--duration") { &[] } else { &["--duration", "2s"] };
        Phone::start(&[&fixed[..], duration, arguments].concat())
    }

    /// A phone that answers one call.
    fn bot(&self, arguments: &[&str]) -> Phone {
        let listen = self.phone().to_string();
        let fixed = ["bot", "--listen", &listen, "--srtp", "off", "--tune", "--json", "--count", "1"];
        let ring: &[&str] = if arguments.contains(&"--ring") { &[] } else { &["--ring", "300ms"] };
        let mut bot = Phone::start(&[&fixed[..], ring, arguments].concat());
        bot.event("listening", LIMIT).expect("the bot listens");
        bot
    }

    /// The phone calls SIPp, and all ends well on both sides.
    fn called(&self, scenario: &str, arguments: &[&str]) -> Vec<Value> {
        self.called_by(scenario, arguments, 0)
    }

    /// The phone calls SIPp and ends with `code`.
    fn called_by(&self, scenario: &str, arguments: &[&str], code: i32) -> Vec<Value> {
        let mut sipp = Sipp::start(Part::callee(scenario, self.sipp()).pointing_to(self.other())).expect("SIPp runs");
        let mut phone = self.call(&uri(&sipp), arguments);
        ends_with(&mut phone, code, &sipp);
        sipp.finish().unwrap_or_else(|error| panic!("{error}"));
        let heard = sipp.packets();
        let carries = code == 0 && !scenario.starts_with("redirects");
        assert!(!carries || heard >= PACKETS, "{scenario}: only {heard} packets have reached SIPp");
        phone.events()
    }

    /// SIPp calls the phone, and all ends well on both sides.
    fn calls(&self, scenario: &str, arguments: &[&str]) -> Vec<Value> {
        let mut bot = self.bot(arguments);
        let mut sipp = Sipp::start(Part::caller(scenario, self.sipp(), self.phone())).expect("SIPp runs");
        sipp.finish().unwrap_or_else(|error| panic!("{error}"));
        ends_with(&mut bot, 0, &sipp);
        bot.events()
    }
}

fn uri(sipp: &Sipp) -> String {
    format!("sip:bob@{}", sipp.address())
}

#[track_caller]
fn ends_with(phone: &mut Phone, code: i32, sipp: &Sipp) {
    let ended =
        phone.exit_code(LIMIT).unwrap_or_else(|error| panic!("{error}\n{}\n{}", phone.errors(), sipp.messages()));
    let lines = phone.process.output().join("\n");
    assert_eq!(ended, Some(code), "{lines}\n{}\n{}", phone.errors(), sipp.messages());
}

/// Events of this name, in their order.
fn events<'a>(all: &'a [Value], name: &str) -> Vec<&'a Value> {
    all.iter().filter(|event| event["event"] == name).collect()
}

/// Why each call ended.
fn ends(all: &[Value]) -> Vec<String> {
    events(all, "ended").iter().map(|event| event["reason"]["reason"].to_string()).collect()
}

/// The states of a call, in their order.
fn states(all: &[Value], call: u64) -> Vec<&str> {
    let all = events(all, "state").into_iter().filter(|event| event["call"] == call);
    all.filter_map(|event| event["state"].as_str()).collect()
}

/// Media of the call, both ways, as the phone counts it: what it received is what it had sent and SIPp had sent back.
#[track_caller]
fn media_flows(all: &[Value], call: u64) {
    let ended = events(all, "ended").into_iter().find(|event| event["call"] == call);
    let stats = &ended.unwrap_or_else(|| panic!("call {call} has not ended"))["stats"];
    for way in ["sent-packets", "received-packets"] {
        assert!(stats[way].as_u64().is_some_and(|count| count >= PACKETS), "{way} of call {call}: {stats}");
    }
    assert_eq!(stats["lost-packets"], 0, "{stats}");
}

#[test]
fn a_call_to_sipp_is_set_up_carries_media_and_is_ended_by_the_caller() {
    let all = Hosts::new().called("answers_the_call", &[]);
    media_flows(&all, 1);
    assert_eq!(states(&all, 1), ["gathering", "inviting", "ringing", "talking", "ending"]);
}

#[test]
fn a_call_from_sipp_is_answered_carries_media_and_is_ended_by_the_caller() {
    let all = Hosts::new().calls("calls_the_bot", &[]);
    media_flows(&all, 2);
}

#[test]
fn a_183_is_early_media_without_and_with_100rel() {
    for scenario in ["plays_early_media_in_an_unreliable_183", "plays_early_media_in_a_reliable_183"] {
        let all = Hosts::new().called(scenario, &[]);
        media_flows(&all, 1);
        assert_eq!(
            states(&all, 1),
            ["gathering", "inviting", "ringing", "early-media", "talking", "ending"],
            "{scenario}"
        );
    }
}

#[test]
fn a_caller_that_requires_100rel_gets_its_ringing_reliably() {
    media_flows(&Hosts::new().calls("requires_reliable_ringing", &[]), 2);
}

#[test]
fn a_reinvite_of_the_peer_holds_and_resumes_the_call() {
    let all = Hosts::new().called("holds_and_resumes_by_reinvite", &["--duration", "4s"]);
    let by_peer: Vec<_> = events(&all, "hold").iter().map(|event| event["by_peer"].clone()).collect();
    assert_eq!(by_peer, [true, false]);
    media_flows(&all, 1);
}

#[test]
fn a_reinvite_without_an_offer_is_answered_with_one() {
    media_flows(&Hosts::new().called("asks_for_an_offer_by_reinvite", &["--duration", "3s"]), 1);
}

#[test]
fn an_invite_without_an_offer_is_answered_with_one() {
    media_flows(&Hosts::new().calls("calls_without_an_offer", &[]), 2);
}

#[test]
fn a_200_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let all = Hosts::new().called_by("answers_into_the_cancel", &["--ring-timeout", "1s"], 32);
    assert_eq!(ends(&all).len(), 1);
}

#[test]
fn a_cancel_that_crosses_the_200_changes_nothing_and_one_while_it_rings_ends_the_call() {
    media_flows(&Hosts::new().calls("cancels_into_the_answer", &[]), 2);
    let all = Hosts::new().calls("cancels_while_it_rings", &["--ring", "20s"]);
    assert_eq!(ends(&all), ["\"cancelled\""]);
}

#[test]
fn a_reinvite_that_crosses_the_bye_is_refused_and_the_bye_counts() {
    media_flows(&Hosts::new().called("reinvites_into_the_bye", &[]), 1);
}

/// The phone calls SIPp, which sends it on; whoever answers is a second SIPp.
fn sent_on(scenario: &str, target: &str, arguments: &[&str]) -> Vec<Value> {
    let hosts = Hosts::new();
    let mut other = Sipp::start(Part::callee(target, hosts.other())).expect("SIPp runs");
    let all = hosts.called(scenario, arguments);
    other.finish().unwrap_or_else(|error| panic!("{error}"));
    all
}

#[test]
fn a_transfer_is_carried_out_and_reported_and_the_call_goes_on_with_the_target() {
    let all = sent_on("transfers_the_call", "is_called_by_a_transfer", &["--duration", "4s"]);
    assert_eq!(ends(&all), ["\"remote-hangup\"", "\"local-hangup\""]);
    media_flows(&all, 2);
    let all = sent_on("transfers_and_waits", "answers_the_call", &["--duration", "8s"]);
    assert_eq!(ends(&all), ["\"local-hangup\"", "\"local-hangup\""], "nobody else ends the first call");
    media_flows(&all, 2);
}

#[test]
fn a_transfer_to_somebody_busy_is_reported_and_the_call_goes_on_as_it_was() {
    let all = sent_on("transfers_to_somebody_busy", "is_busy", &["--duration", "4s"]);
    assert_eq!(ends(&all), ["\"busy\"", "\"local-hangup\""]);
    media_flows(&all, 1);
}

#[test]
fn options_are_answered_outside_and_inside_a_call() {
    media_flows(&Hosts::new().calls("asks_for_options", &[]), 2);
}

#[test]
fn the_session_timer_is_agreed_refreshed_by_the_peer_and_raised_by_422_on_either_side() {
    media_flows(&Hosts::new().calls("refreshes_the_session", &[]), 2);
    media_flows(&Hosts::new().calls("wants_too_short_a_session", &[]), 2);
    media_flows(&Hosts::new().called("raises_the_session_interval", &[]), 1);
}

#[test]
#[ignore = "soak: takes 50 s"]
fn soak_the_session_timer_is_refreshed_by_us() {
    media_flows(&Hosts::new().called("wants_to_be_refreshed", &["--duration", "50s"]), 1);
}

#[test]
fn a_redirected_call_goes_to_the_target_and_a_circle_ends_it() {
    let all = sent_on("redirects_the_call", "answers_the_call", &[]);
    assert_eq!(events(&all, "redirected").len(), 1);
    media_flows(&all, 1);
    let all = Hosts::new().called_by("redirects_to_itself", &[], 30);
    assert_eq!(ends(&all), ["\"rejected\""]);
}

/// An account of `lab.test` with the right password, as a private configuration file.
fn account(folder: &tempfile::TempDir, lines: &str) -> PathBuf {
    let file = folder.path().join("alice.toml");
    let account =
        "[[account]]\naor = \"sip:alice@lab.test\"\npassword = \"secret\"\ntransport = \"udp\"\nmras = false\n";
    std::fs::write(&file, format!("{account}{lines}\n")).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its rights");
    file
}

/// `icephone register` with an account that has these further settings.
fn register(lines: &str) -> Phone {
    let folder = tempfile::tempdir().expect("a folder");
    let config = text(&account(&folder, lines));
    let mut phone = Phone::start(&["-c", &config, "register", "--duration", "1s", "--json"]);
    phone.exit_code(LIMIT).unwrap_or_else(|error| panic!("{error}"));
    phone
}

#[test]
fn every_request_may_be_challenged_and_a_stale_nonce_asks_for_no_other_password() {
    let hosts = Hosts::new();
    let edge = format!("edge = \"{}:5060\"", hosts.sipp());
    for scenario in ["registers", "challenges_the_registration"] {
        let mut sipp = Sipp::start(Part::callee(scenario, hosts.sipp())).expect("SIPp runs");
        let mut phone = register(&edge);
        ends_with(&mut phone, 0, &sipp);
        sipp.finish().unwrap_or_else(|error| panic!("{error}"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = text(&account(&folder, &format!("{edge}\nregister = false")));
    let mut sipp = Sipp::start(Part::callee("challenges_every_request_of_a_call", hosts.sipp())).expect("SIPp runs");
    let arguments =
        ["-c", &config, "call", "bob", "--srtp", "off", "--tune", "--duration", "2s", "--json", "--no-sound"];
    let mut phone = Phone::start(&arguments);
    ends_with(&mut phone, 0, &sipp);
    sipp.finish().unwrap_or_else(|error| panic!("{error}"));
    media_flows(&phone.events(), 1);
}

#[test]
fn a_server_that_is_slow_and_repeats_itself_gets_one_call_and_every_ack() {
    let all = Hosts::new().called("is_slow_and_repeats_itself", &[]);
    assert_eq!(states(&all, 1), ["gathering", "inviting", "ringing", "talking", "ending"]);
    media_flows(&all, 1);
}

/// Two servers of one domain, the first of which says 503 to everything.
fn two_servers(hosts: &Hosts, first: &str, second: &str) -> (Sipp, Sipp, Zone) {
    let records = [("one", 10, hosts.sipp()), ("two", 20, hosts.other())].map(|(name, priority, address)| {
        [
            format!("srv-host=_sip._udp.lab.test,{name}.lab.test,5060,{priority}"),
            format!("address=/{name}.lab.test/{address}"),
        ]
    });
    let zone = Zone::start(hosts.names(), "lab.test", &records.concat()).expect("dnsmasq runs");
    let start = |scenario, at| Sipp::start(Part::callee(scenario, at)).expect("SIPp runs");
    (start(first, hosts.sipp()), start(second, hosts.other()), zone)
}

#[test]
fn a_503_of_one_srv_target_leads_to_the_next_for_registrations_and_calls() {
    let hosts = Hosts::new();
    let (mut first, mut second, zone) = two_servers(&hosts, "is_overloaded_as_registrar", "registers");
    let mut phone = register(&format!("dns = \"{}\"", zone.address()));
    ends_with(&mut phone, 0, &second);
    for sipp in [&mut first, &mut second] {
        sipp.finish().unwrap_or_else(|error| panic!("{error}"));
    }
    let all = phone.events();
    let selected: Vec<_> = events(&all, "srv-selected").iter().map(|event| event["target"].clone()).collect();
    assert_eq!(selected, ["one.lab.test", "two.lab.test"]);

    let hosts = Hosts::new();
    let (mut first, mut second, zone) = two_servers(&hosts, "is_overloaded", "answers_the_call");
    let mut phone = hosts.call("sip:bob@lab.test", &["--dns", &zone.address().to_string()]);
    ends_with(&mut phone, 0, &second);
    for sipp in [&mut first, &mut second] {
        sipp.finish().unwrap_or_else(|error| panic!("{error}"));
    }
    media_flows(&phone.events(), 1);
}

/// A scenario that anybody passes proves nothing: SIPp's own scenarios know the basic call and no more.
#[test]
fn every_scenario_but_the_basic_call_fails_against_a_peer_that_knows_no_more_than_that() {
    let passes = [
        "answers_the_call",
        "calls_the_bot",
        "calls_without_an_offer",
        "is_busy",
        "is_overloaded",
        "plays_early_media_in_an_unreliable_183",
    ];
    let callers = ["calls_", "requires_", "cancels_", "asks_for_options", "refreshes_", "wants_too_short"];
    let names = scenarios().expect("the scenarios");
    assert!(names.len() > 25, "{names:?}");
    let wrong: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = names
            .iter()
            .map(|name| {
                let calls = callers.iter().any(|start| name.starts_with(start));
                scope.spawn(move || against_the_basics(name, calls).is_ok())
            })
            .collect();
        let outcomes: Vec<bool> = runs.into_iter().map(|run| run.join().expect("a run")).collect();
        let wrong = names.iter().zip(outcomes).filter(|(name, passed)| *passed != passes.contains(&name.as_str()));
        wrong.map(|(name, passed)| format!("{name}: passed is {passed}")).collect()
    });
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Runs a scenario against SIPp's own one for the other side.
fn against_the_basics(scenario: &str, calls: bool) -> Result<(), String> {
    let hosts = Hosts::new();
    let (at, basic) = (hosts.sipp(), hosts.other());
    let callee = |scenario, at| Part::callee(scenario, at).pointing_to(hosts.network.host(4)).waiting(6);
    let caller = |scenario, at, whom| Part::caller(scenario, at, SocketAddr::new(IpAddr::V4(whom), 5060)).waiting(6);
    if calls {
        let _basic = Sipp::start(callee("-uas", basic))?;
        Sipp::start(caller(scenario, at, basic))?.finish()
    } else {
        let mut sipp = Sipp::start(callee(scenario, at))?;
        let _basic = Sipp::start(caller("-uac", basic, at))?;
        sipp.finish()
    }
}
