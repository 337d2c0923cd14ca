//! One call between two icephones of the laboratory, with different speech both ways, and what the wire says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::capture::Capture;
use super::cells::is_relay;
use super::media_path::{Reader, Rtp, Way};
use super::network::Host;
use super::phone::{Phone, Usage, cpu_time};
use super::run::now;
use super::servers::NetLab;
use super::speech::{likeness, spoken};
use super::user::aor;
use super::wire::Micros;

/// Until a phone is registered and has its relay credentials.
const REGISTERED: Duration = Duration::from_secs(30);
/// A call's set-up and end, beside its talk.
const CALL: Duration = Duration::from_secs(60);
/// How often a running phone is asked what it used.
const SAMPLE: Duration = Duration::from_millis(200);
/// The end of a call is not counted for losses: one side stops before the other knows.
const TAIL: Micros = 500_000;

/// Who calls whom, and how.
#[derive(Debug, Clone)]
pub struct CallPlan {
    pub caller: Host,
    pub callee: Host,
    /// From the answer to the caller's BYE.
    pub talk: Duration,
    /// How long the callee rings.
    pub ring: Duration,
    /// More flags for both phones.
    pub flags: Vec<String>,
    /// More lines for both accounts.
    pub account: String,
}

impl CallPlan {
    pub fn between(caller: Host, callee: Host) -> Self {
        let (talk, ring) = (Duration::from_secs(7), Duration::from_secs(1));
        Self { caller, callee, talk, ring, flags: Vec::new(), account: String::new() }
    }
}

/// What happened at one end.
#[derive(Debug, Clone)]
pub struct End {
    /// How media left in the end, and towards whom.
    pub way: Way,
    pub remote: Option<SocketAddr>,
    /// From the INVITE to the first RTP packet on this end's line, in milliseconds.
    pub first_rtp_ms: Option<f64>,
    /// To the first packet of the way that lasted to the end.
    pub final_path_ms: Option<f64>,
    /// Sent by the other end after the first one that arrived here, and not arrived.
    pub lost: usize,
    pub received: usize,
    /// How often a packet came a second time.
    pub repeated: usize,
    /// Likeness of the recording to what the other end said, and to what this end said.
    pub likeness: (f64, f64),
    /// Processor time of the whole program, and its largest size.
    pub cpu_ms: f64,
    pub rss_kib: u64,
    /// The way as the phone itself names it.
    pub says: String,
    pub events: Vec<Value>,
}

/// Both ends: the caller's, then the callee's.
#[derive(Debug, Clone)]
pub struct Measured {
    pub ends: [End; 2],
}

impl Measured {
    /// Whether each recording holds what the other end said, and not what its own end said.
    ///
    /// # Errors
    ///
    /// Which does not.
    pub fn check_speech(&self, least: f64) -> Result<(), String> {
        for (who, end) in ["caller", "callee"].iter().zip(&self.ends) {
            let (same, other) = end.likeness;
            if same < least || other >= 0.5 {
                return Err(format!("the {who} heard {same:.3} of what was said and {other:.3} of the other sentence"));
            }
        }
        Ok(())
    }
}

/// A phone whose use of the machine is looked at while it runs.
struct Watched {
    phone: Phone,
    cpu: Duration,
    rss_kib: u64,
}

impl Watched {
    fn look(&mut self) {
        let pid = self.phone.process.pid();
        if let (Ok(cpu), Ok(usage)) = (cpu_time(pid), Usage::of(pid)) {
            self.cpu = self.cpu.max(cpu);
            self.rss_kib = self.rss_kib.max(usage.rss_kib);
        }
    }

    /// When this phone's clock began, by the least delayed of its lines.
    fn epoch(&mut self) -> Option<Micros> {
        self.phone.process.output();
        let process = &mut self.phone.process;
        let lines = process.output().to_vec();
        let starts = lines.iter().zip(process.arrivals()).filter_map(|(line, at)| {
            let event: Value = serde_json::from_str(line).ok()?;
            micros(*at)?.checked_sub(event["at_ms"].as_u64()? * 1000)
        });
        starts.min()
    }
}

fn micros(at: SystemTime) -> Option<Micros> {
    Micros::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

impl NetLab {
    /// Makes the call, and looks at it from outside.
    ///
    /// # Errors
    ///
    /// What went wrong, with what both phones wrote.
    pub fn call(&self, plan: &CallPlan) -> Result<Measured, String> {
        let at = |name: String| self.file(&name).to_string_lossy().into_owned();
        let hosts = [plan.caller, plan.callee, Host::Edge, Host::Spare];
        let mut captures = Vec::new();
        for host in hosts {
            let file = self.file(&format!("{host}.pcap"));
            captures.push(Capture::start(&self.network.host(host), "any", &file)?);
        }
        let recordings = [plan.caller, plan.callee].map(|host| at(format!("{host}.wav")));
        let phones = self.talk(plan, &recordings);
        let packets: Vec<_> = captures.into_iter().map(Capture::stop).collect();
        let (phones, invite) = phones?;
        let packets: Vec<_> = packets.into_iter().collect::<Result<_, _>>()?;
        let (mut media, mut hidden) = (Vec::new(), Vec::new());
        for packets in &packets {
            let mut reader = Reader::default();
            media.push(reader.read(&packets.payloads()?));
            hidden.push(reader.tls.iter().any(|(from, to)| is_relay(*from) || is_relay(*to)));
        }
        let wire = Wire::of(&media, &hidden);
        let mut ends = Vec::new();
        for (side, mut watched) in phones.into_iter().enumerate() {
            let events = watched.phone.events();
            let likeness = likeness(recordings[side].as_ref(), 1 - side)?;
            ends.push(wire.end(
                side,
                invite,
                End {
                    way: Way::Direct,
                    remote: None,
                    first_rtp_ms: None,
                    final_path_ms: None,
                    lost: 0,
                    received: 0,
                    repeated: 0,
                    likeness,
                    cpu_ms: watched.cpu.as_secs_f64() * 1000.0,
                    rss_kib: watched.rss_kib,
                    says: last_path(&events),
                    events,
                },
            ));
        }
        let ends = <[End; 2]>::try_from(ends).map_err(|_| "two ends".to_owned())?;
        Ok(Measured { ends })
    }

    /// The two phones after their call, both ended, and the time of the INVITE.
    fn talk(&self, plan: &CallPlan, recordings: &[String; 2]) -> Result<([Watched; 2], Micros), String> {
        let [says, answers] = spoken().each_ref().map(|file| file.to_string_lossy().into_owned());
        let flags: Vec<&str> = plan.flags.iter().map(String::as_str).collect();
        let ring = format!("{}ms", plan.ring.as_millis());
        let callee = ["bot", "--json", "--play", &answers, "--record", &recordings[1], "--ring", &ring];
        let mut bot = self.watched(plan.callee, &[&callee[..], &flags].concat(), &plan.account)?;
        bot.phone.event("registered", REGISTERED)?;
        // Relay credentials, or the news that there are none to be had.
        let ready = |line: &str| {
            ["credentials-received", "credentials-failed", "\"mras_uri\":null"].iter().any(|word| line.contains(word))
        };
        let line = bot.phone.process.wait_line("relay credentials", REGISTERED, ready)?;
        await_probes(&mut bot.phone, &line)?;
        let talk = format!("{}ms", plan.talk.as_millis());
        let to = aor(plan.callee);
        let caller = ["call", &to, "--json", "--play", &says, "--record", &recordings[0], "--duration", &talk];
        let mut phone = self.watched(plan.caller, &[&caller[..], &flags].concat(), &plan.account)?;
        let until = now() + plan.talk + plan.ring + CALL;
        while phone.phone.process.status().is_none() && now() < until {
            phone.look();
            bot.look();
            let _ = phone.phone.process.wait_exit(SAMPLE);
        }
        let status = phone.phone.process.wait_exit(Duration::ZERO)?;
        let reports = |phone: &mut Watched, bot: &mut Watched| {
            let of = |watched: &mut Watched| {
                format!("{}\n{}", watched.phone.process.output().join("\n"), watched.phone.errors())
            };
            format!("caller:\n{}\ncallee:\n{}", of(phone), of(bot))
        };
        if !status.success() {
            return Err(format!("the call ended with {status}\n{}", reports(&mut phone, &mut bot)));
        }
        bot.phone.event("ended", CALL)?;
        bot.phone.stop()?;
        let invite = phone.invite().ok_or_else(|| format!("no INVITE\n{}", reports(&mut phone, &mut bot)))?;
        Ok(([phone, bot], invite))
    }

    fn watched(&self, user: Host, arguments: &[&str], account: &str) -> Result<Watched, String> {
        Ok(Watched { phone: self.phone(user, arguments, account)?, cpu: Duration::ZERO, rss_kib: 0 })
    }

    /// Starts icephone in a user's host, with more lines for the user's account.
    ///
    /// # Errors
    ///
    /// If the account cannot be written.
    pub fn phone(&self, user: Host, arguments: &[&str], account: &str) -> Result<Phone, String> {
        let config = self.account(user, account)?.to_string_lossy().into_owned();
        let arguments = [&["-c", config.as_str()], arguments].concat();
        Ok(Phone::start_in(Some(&self.network.host(user)), &arguments, |_| {}))
    }
}

impl Watched {
    /// When the first INVITE left.
    fn invite(&mut self) -> Option<Micros> {
        let epoch = self.epoch()?;
        let events = self.phone.events();
        let sent = events.iter().find(|event| event["event"] == "offer-sent" && event["message"] == "INVITE")?;
        Some(epoch + sent["at_ms"].as_u64()? * 1000)
    }
}

/// The name of the last path that carried RTP, in the phone's own words.
pub fn last_path(events: &[Value]) -> String {
    let mut changes = events.iter().filter(|event| event["event"] == "path-changed" && event["component"] == "rtp");
    changes.next_back().and_then(|event| event["path"]["name"].as_str()).unwrap_or("none").to_owned()
}

/// The media at both ends, each direction where it can be read: at the end itself, or, if a TLS connection to a relay hides
/// it there, at the relay.
struct Wire {
    sent: [Vec<Rtp>; 2],
    received: [Vec<Rtp>; 2],
}

impl Wire {
    /// From what was seen at the caller, the callee, the edge and the spare relay, and whether it had TLS to a relay in it.
    fn of(media: &[Vec<Rtp>], hidden: &[bool]) -> Self {
        let direction = |side: usize, outgoing: bool| -> Vec<Rtp> {
            media[side].iter().filter(|rtp| rtp.outgoing == outgoing).copied().collect()
        };
        let mut wire = Self {
            sent: [direction(0, true), direction(1, true)],
            received: [direction(0, false), direction(1, false)],
        };
        let known: Vec<[Option<u32>; 2]> = (0..2).map(|side| wire.ssrcs_of(side)).collect();
        for (side, [ours, theirs]) in known.into_iter().enumerate().filter(|(side, _)| hidden[*side]) {
            // The relay passes on, with the same SSRC, what this end says and hears inside TLS.
            let at_relays = || media[2].iter().chain(&media[3]).filter(|rtp| rtp.way == Way::Direct);
            // Inside one relay's host a packet is seen once, as one that arrives.
            let leaves = |rtp: &&Rtp| Some(rtp.ssrc) == ours && (rtp.outgoing || is_relay(rtp.remote));
            let arrives = |rtp: &&Rtp| Some(rtp.ssrc) == theirs && !rtp.outgoing;
            add_hidden(&mut wire.sent[side], at_relays().filter(leaves));
            add_hidden(&mut wire.received[side], at_relays().filter(arrives));
        }
        wire
    }

    /// What a side sends and what it is sent, if that is readable anywhere.
    fn ssrcs_of(&self, side: usize) -> [Option<u32>; 2] {
        let first = |list: &[Rtp]| list.first().map(|rtp| rtp.ssrc);
        let other = 1 - side;
        [
            first(&self.sent[side]).or_else(|| first(&self.received[other])),
            first(&self.received[side]).or_else(|| first(&self.sent[other])),
        ]
    }

    fn end(&self, side: usize, invite: Micros, end: End) -> End {
        let (sent, received) = (&self.sent[side], &self.received[side]);
        let after = |at: Micros| (at as f64 - invite as f64) / 1000.0;
        let last = received.last().map(|rtp| (rtp.way, rtp.remote));
        // The way that lasted: the first packet behind the last one that came another way.
        let other = received.iter().rposition(|rtp| Some((rtp.way, rtp.remote)) != last);
        let settled = received.get(other.map_or(0, |at| at + 1));
        let (lost, repeated) = losses(&self.sent[1 - side], received);
        End {
            way: sent.last().map_or(Way::Direct, |rtp| rtp.way),
            remote: sent.last().map(|rtp| rtp.remote),
            first_rtp_ms: received.first().map(|rtp| after(rtp.at)),
            final_path_ms: settled.map(|rtp| after(rtp.at)),
            lost,
            received: received.len(),
            repeated,
            ..end
        }
    }
}

/// A phone that has been registered for a while knows which of its relays answer, over UDP and over TCP: a call that comes
/// in its first half second would measure that search instead.
fn await_probes(bot: &mut Phone, credentials: &str) -> Result<(), String> {
    let event: Value = serde_json::from_str(credentials).map_err(|error| format!("{error} in {credentials}"))?;
    let relays = event["relays"].as_array().map_or(0, Vec::len);
    let mut probed = BTreeSet::new();
    while probed.len() < relays * 2 {
        let is_next = |line: &str| line.contains("\"event\":\"relay-probed\"") && !probed.contains(line);
        let line = bot.process.wait_line("probe of a relay", REGISTERED, is_next)?;
        probed.insert(line);
    }
    Ok(())
}

/// Adds packets that a TLS connection hides at the end itself.
fn add_hidden<'a>(seen: &mut Vec<Rtp>, at_relays: impl Iterator<Item = &'a Rtp>) {
    let mut known: BTreeSet<(u32, u16)> = seen.iter().map(|rtp| (rtp.ssrc, rtp.sequence)).collect();
    for rtp in at_relays {
        if known.insert((rtp.ssrc, rtp.sequence)) {
            seen.push(Rtp { way: Way::RelayTls, ..*rtp });
        }
    }
    seen.sort_by_key(|rtp| rtp.at);
}

/// Packets that were sent after the first that arrived, and did not arrive; and those that arrived again.
fn losses(sent: &[Rtp], received: &[Rtp]) -> (usize, usize) {
    let mut counts: BTreeMap<(u32, u16), usize> = BTreeMap::new();
    for rtp in received {
        *counts.entry((rtp.ssrc, rtp.sequence)).or_default() += 1;
    }
    let repeated = counts.values().map(|count| count - 1).sum();
    let (Some(first), Some(last)) = (received.first(), sent.last()) else { return (sent.len(), repeated) };
    let counted = sent.iter().skip_while(|rtp| (rtp.ssrc, rtp.sequence) != (first.ssrc, first.sequence));
    let counted = counted.filter(|rtp| rtp.at + TAIL < last.at);
    (counted.filter(|rtp| !counts.contains_key(&(rtp.ssrc, rtp.sequence))).count(), repeated)
}
