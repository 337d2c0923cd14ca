//! One cell of the NAT matrix with whole phones: registered at the lab's servers, real SIP, SRTP counted both ways.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use client::api::{AnswerOptions, AutoAnswer, CallChange, CallStats, EndReason, Protection, TransportChoice};

use super::cell::place;
use super::clock::{elapsed, epoch, secs};
use super::host::HostId;
use super::oracle::{PathClass, Side, best_path};
use super::pair::{ALICE_HZ, BOB_HZ, Call, is_first_media};
use super::town::{Town, account, first_call};

/// How long the two talk on the promoted path.
const TALK: Duration = secs(2);

/// 20 ms packets in [`TALK`]: what each side must have got at least.
const PACKETS_LEAST: u64 = 100;

/// What came out of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneCell {
    pub class: PathClass,
    /// From dialling to the first media packet in the second direction.
    pub first_media: Duration,
    /// From dialling until the re-INVITE with the chosen path was answered.
    pub announced: Duration,
    /// Equal if and only if every byte was.
    pub hash: u64,
}

/// Alice calls Bob, each behind an edge of this kind.
///
/// # Errors
///
/// What was wrong, in a sentence that names the cell, with the end of the trace where something did not happen.
pub fn run(left: Side, right: Side, seed: u64) -> Result<PhoneCell, String> {
    let places = [place(left), place(right)];
    talk(Town::new(seed), places, best_path(left, right)).map_err(|what| format!("{left} and {right}: {what}"))
}

fn talk(mut town: Town, places: [super::world::Place; 2], expected: PathClass) -> Result<PhoneCell, String> {
    let (alice, bob) = (town.phone("alice", &places[0]), town.phone("bob", &places[1]));
    for (phone, user, hz) in [(alice, "alice", ALICE_HZ), (bob, "bob", BOB_HZ)] {
        let mut account = account(user, TransportChoice::Tls, hz);
        account.auto_answer = Some(AutoAnswer { after_ms: 0, options: AnswerOptions::default() });
        town.register(phone, account)?;
    }
    let mut call = Call { town, alice, bob };
    let dialled = call.town.sim.now;
    call.announced()?;
    let announced = call.town.sim.now.saturating_duration_since(dialled);
    call.town.sim.run_for(TALK);
    call.check_sound()?;
    let firsts = [alice, bob].map(|phone| first_media(&call, phone));
    let [Some(to_alice), Some(to_bob)] = firsts else { return Err(format!("a side got no media: {firsts:?}")) };
    let class = final_class(&call)?;
    if class != expected {
        return Err(format!("the call goes by {class}, the oracle says {expected}"));
    }
    call.end()?;
    check_media(&call).map_err(|what| what + &story(&call))?;
    call.check_nothing_left()?;
    let first_media = to_alice.max(to_bob).saturating_duration_since(dialled);
    Ok(PhoneCell { class, first_media, announced, hash: call.town.sim.trace.hash() })
}

/// The changes of a phone's call with their times.
fn changes(call: &Call, phone: HostId) -> impl Iterator<Item = (Instant, &CallChange)> {
    let program = call.town.phone_at(phone);
    first_call(program).into_iter().flat_map(|id| program.call_events(id))
}

fn first_media(call: &Call, phone: HostId) -> Option<Instant> {
    changes(call, phone).find(|(_, change)| is_first_media(change)).map(|(at, _)| at)
}

/// The class of the path that both sides are on: the worse end, as nobody tells how the other side reaches its relay.
fn final_class(call: &Call) -> Result<PathClass, String> {
    let mut paths = Vec::new();
    for phone in [call.alice, call.bob] {
        let last = changes(call, phone).filter_map(|(_, change)| match change {
            CallChange::PathChanged { path, .. } => Some(path),
            _ => None,
        });
        paths.push(last.last().ok_or("a side never had a path")?);
    }
    let (here, there) = (paths[0], paths[1]);
    if here.local.address != there.remote.address || here.remote.address != there.local.address {
        return Err(format!("I2: {} and {} are not two ends of one pair", here.name, there.name));
    }
    let class = |name: &str| match name {
        "host-host" => PathClass::Direct,
        _ if name.contains("(tcp)") || name.contains("(tls)") => PathClass::RelayTcp,
        _ if name.contains("relay") => PathClass::RelayUdp,
        _ => PathClass::Reflexive,
    };
    Ok(class(&here.name).max(class(&there.name)))
}

/// What both phones told of the call, but for the figures of each second.
fn story(call: &Call) -> String {
    let mut text = String::new();
    for (name, phone) in [("alice", call.alice), ("bob", call.bob)] {
        for (at, change) in changes(call, phone).filter(|(_, change)| !matches!(change, CallChange::Stats { .. })) {
            let told = serde_json::to_string(change).unwrap_or_default();
            let _ = write!(text, "\n{} {name} {told}", elapsed(epoch(), at));
        }
    }
    text
}

/// After the call: both hung up as they should, media was protected, and what one sent the other got.
fn check_media(call: &Call) -> Result<(), String> {
    let stats = |phone: HostId, wanted: &EndReason| -> Result<CallStats, String> {
        let srtp = |change: &CallChange| match change {
            CallChange::MediaStarted { protection, .. } => *protection == Protection::Srtp,
            _ => false,
        };
        if !changes(call, phone).any(|(_, change)| srtp(change)) {
            return Err("media was never protected".to_owned());
        }
        let ended = changes(call, phone).find_map(|(_, change)| match change {
            CallChange::Ended { reason, stats, .. } => Some((reason, stats.as_ref().clone())),
            _ => None,
        });
        match ended {
            Some((reason, stats)) if reason == wanted => Ok(stats),
            other => Err(format!("the call did not end as it should: {other:?}")),
        }
    };
    let alice = stats(call.alice, &EndReason::LocalHangup)?;
    let bob = stats(call.bob, &EndReason::RemoteHangup)?;
    for (name, from, to) in [("alice", &bob, &alice), ("bob", &alice, &bob)] {
        // Some are still under way when the call ends.
        let missing = from.sent_packets.saturating_sub(to.received_packets);
        if to.received_packets < PACKETS_LEAST || to.lost_packets + to.duplicate_packets > 0 || missing > 10 {
            return Err(format!("{name} got {to:?} of {} packets", from.sent_packets));
        }
    }
    Ok(())
}
