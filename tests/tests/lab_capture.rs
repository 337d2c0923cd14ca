//! Calls over UDP and over TCP signalling, from behind a masquerading NAT and to there, as tshark sees them.

use std::path::Path;
use std::time::Duration;

use tests::binary::icephone;
use tests::lab::capture::{Capture, Packets};
use tests::lab::edge::{Lab, text};
use tests::lab::network::{Host, Network, Plan};
use tests::lab::run::Process;
use tests::lab::skip;

const EDGE: &str = "203.0.113.10";
const HOME: &str = "192.168.1.10";
const PEER: &str = "203.0.113.50";

#[test]
fn the_network_of_the_captures_translates_addresses() {
    let network = match Network::build(Plan::default()) {
        Ok(network) => network,
        Err(reason) => return skip("the_network_of_the_captures_translates_addresses", &reason),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let capture =
        Capture::start(&network.host(Host::Edge), "eth0", &folder.path().join("edge.pcap")).expect("a capture");
    let mut ping = network.host(Host::Alice).command(Path::new("ping"));
    let status = ping.args(["-c", "1", "-W", "5", EDGE]).stdout(std::process::Stdio::null()).status();
    assert!(status.expect("ping").success(), "the edge answers through the NAT");
    let packets = capture.stop().expect("the capture ends");
    let sources = packets.rows("icmp.type == 8", &["ip.src"]).expect("tshark reads it");
    assert_eq!(sources, [["203.0.113.20"]], "{}", packets.listing());
}

/// Which way the call between the phone behind the NAT and the one on the Internet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    FromHome,
    ToHome,
}

/// One call, as seen at the phone behind the NAT.
struct Seen {
    way: Way,
    packets: Packets,
    _folder: tempfile::TempDir,
}

fn call_over(network: &Network, transport: &str, way: Way) -> Result<Seen, String> {
    let (caller, callee) = match way {
        Way::FromHome => (Host::Alice, Host::Dave),
        Way::ToHome => (Host::Dave, Host::Alice),
    };
    let lab = Lab::start(Some(&network.host(Host::Edge)), &["--address", EDGE])?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let capture = Capture::start(&network.host(Host::Alice), "eth0", &folder.path().join("home.pcap"))?;
    let (alice, bob) = (text(&lab.account("alice")), text(&lab.account("bob")));
    let bot_arguments = ["bot", "--config", &bob, "--transport", transport, "--json"];
    let mut bot = Process::start(Some(&network.host(callee)), &icephone(), &bot_arguments);
    bot.wait_line("relay credentials", Duration::from_secs(20), |line| line.contains("\"credentials-received\""))?;
    let to = lab.aor("bob")?;
    let call_arguments = ["call", &to, "--config", &alice, "--transport", transport, "--duration", "6s", "--json"];
    let mut call = Process::start(Some(&network.host(caller)), &icephone(), &call_arguments);
    let status = call.wait_exit(Duration::from_secs(60))?;
    let packets = capture.stop()?;
    if !status.success() {
        return Err(format!(
            "the call ended with {status}:\n{}\nbot:\n{}",
            call.output().join("\n"),
            bot.output().join("\n")
        ));
    }
    Ok(Seen { way, packets, _folder: folder })
}

impl Seen {
    fn count(&self, filter: &str) -> usize {
        self.packets.count(filter).unwrap_or_else(|error| panic!("{filter}: {error}"))
    }

    #[track_caller]
    fn expect(&self, what: &str, filter: &str) {
        assert!(self.count(filter) > 0, "{what} ({filter}) is not in\n{}", self.packets.listing());
    }

    /// Numbers of the frames that `filter` lets through.
    fn frames(&self, filter: &str) -> Vec<u64> {
        let rows = self.packets.rows(filter, &["frame.number"]).unwrap_or_else(|error| panic!("{filter}: {error}"));
        rows.iter().filter_map(|row| row.first()?.parse().ok()).collect()
    }

    /// The SDP attribute lines of the messages that `filter` lets through, one text per message.
    fn sdp(&self, filter: &str) -> Vec<String> {
        let filter = format!("sdp and {filter}");
        let rows = self.packets.rows(&filter, &["sdp.media_attr"]).unwrap_or_else(|error| panic!("{filter}: {error}"));
        rows.into_iter().map(|row| row.join(";")).collect()
    }

    fn check(&self) {
        self.expect("the SRV question", "dns.qry.type == 33 and dns.flags.response == 0");
        self.expect("the SRV answer", "dns.srv.target");
        for (what, method, status) in [
            ("the challenge", "REGISTER", 401),
            ("the registration", "REGISTER", 200),
            ("the relay credentials", "SERVICE", 200),
            ("early media", "INVITE", 183),
            ("the answer", "INVITE", 200),
        ] {
            self.expect(what, &format!("sip.CSeq.method == \"{method}\" and sip.Status-Code == {status}"));
        }
        self.check_candidates();
        self.check_media();
    }

    /// The phone behind the NAT names a host, a reflexive and two relayed addresses; the other one has no NAT, so that its
    /// reflexive address is its own.
    fn check_candidates(&self) {
        let status = |status: u16| format!("sip.CSeq.method == \"INVITE\" and sip.Status-Code == {status}");
        let (offers, answers) = (["sip.Method == \"INVITE\"".to_owned()], [status(183), status(200)]);
        let (home, peer) = match self.way {
            Way::FromHome => (&offers[..], &answers[..]),
            Way::ToHome => (&answers[..], &offers[..]),
        };
        for (messages, kinds) in
            [(home, &["typ host", "typ srflx", "typ relay"][..]), (peer, &["typ host", "typ relay"][..])]
        {
            for message in messages {
                let all = self.sdp(message);
                let first = all.first().unwrap_or_else(|| panic!("no description in {message}"));
                for kind in kinds {
                    assert!(first.contains(kind), "{kind} is not in {message}: {first}");
                }
                // The relay is reached over UDP and over TCP: each gives a candidate of its own per component.
                assert_eq!(relayed(first), 2, "relayed candidates for RTP in {message}: {first}");
            }
        }
        self.expect("an allocation over TCP", "tcp and stun.type.method == 0x0003 and stun.type.class == 0x10");
        self.expect("an allocation over UDP", "udp and stun.type.method == 0x0003 and stun.type.class == 0x10");
        let offers = self.sdp(&offers[0]);
        assert!(offers.iter().any(|sdp| sdp.contains("remote-candidates")), "no re-INVITE names the pair: {offers:?}");
    }

    fn check_media(&self) {
        let (home, peer) = (HOME, PEER);
        let check = "stun.type.method == 0x0001 and stun.type.class == 0x00 and stun.att.username";
        self.expect("checks sent", &format!("{check} and ip.src == {home}"));
        self.expect("checks received", &format!("{check} and ip.dst == {home}"));
        let answered = self.frames("sip.CSeq.method == \"INVITE\" and sip.Status-Code == 200");
        let answered = *answered.first().expect("a 200");
        for (direction, filter) in
            [("sent", format!("rtp and ip.src == {home}")), ("received", format!("rtp and ip.dst == {home}"))]
        {
            let frames = self.frames(&filter);
            let before = frames.iter().filter(|frame| **frame < answered).count();
            assert!(before > 0, "no SRTP {direction} before the 200");
            assert!(frames.len() - before > 200, "only {} packets {direction} after the 200", frames.len() - before);
        }
        self.expect("media on the direct path", &format!("rtp and ip.src == {home} and ip.dst == {peer}"));
    }
}

/// Relayed candidates of the first component among attribute lines joined by `;`.
fn relayed(attributes: &str) -> usize {
    let is_rtp = |line: &&str| line.to_ascii_lowercase().contains(" 1 udp");
    attributes.split(';').filter(is_rtp).filter(|line| line.contains("typ relay")).count()
}

fn capture_over(transport: &str, way: Way, test: &str) {
    let network = match Network::build(Plan::default()) {
        Ok(network) => network,
        Err(reason) => return skip(test, &reason),
    };
    call_over(&network, transport, way).unwrap_or_else(|error| panic!("{error}")).check();
}

#[test]
fn a_call_through_a_nat_over_udp_is_on_the_wire_as_designed() {
    capture_over("udp", Way::FromHome, "a_call_through_a_nat_over_udp_is_on_the_wire_as_designed");
}

#[test]
fn a_call_through_a_nat_over_tcp_is_on_the_wire_as_designed() {
    capture_over("tcp", Way::FromHome, "a_call_through_a_nat_over_tcp_is_on_the_wire_as_designed");
}

#[test]
fn a_call_to_behind_a_nat_over_udp_is_on_the_wire_as_designed() {
    capture_over("udp", Way::ToHome, "a_call_to_behind_a_nat_over_udp_is_on_the_wire_as_designed");
}

#[test]
fn a_call_to_behind_a_nat_over_tcp_is_on_the_wire_as_designed() {
    capture_over("tcp", Way::ToHome, "a_call_to_behind_a_nat_over_tcp_is_on_the_wire_as_designed");
}
