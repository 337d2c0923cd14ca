//! What a call costs, measured on the built program over loopback: `cargo run --release -p tests --bin figures`.
//!
//! Build the program in the same profile first (`cargo build --release`). Nothing else should run beside it.
//!
//! * Time from the INVITE to the first RTP packet, both ways: each end's own clock, from its INVITE (sent or received) to the
//!   first packet it heard; the slower of the two ends counts.
//! * Processor time of the calling end of a running call, beside libopus alone with the same settings and sound.
//! * Resident memory of the calling end in that call.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use media::audio::tune::Tune;
use media::codec::{Decoder, Encoder};
use media::config::{Codec, OpusSettings};
use serde_json::Value;
use tests::lab::edge::Lab;
use tests::lab::phone::{Phone, Usage, cpu_time, own_cpu_time};
use tests::lab::run::now;

/// Every figure is the median of so many.
const RUNS: usize = 20;
/// One measurement of processor time; 20 of them in one call.
const WINDOW: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(30);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn at_ms(event: &Value) -> f64 {
    event["at_ms"].as_f64().expect("every event has its time")
}

/// Milliseconds from an end's INVITE to the first RTP it hears.
fn heard_after(phone: &mut Phone, call: u64, invite: &str) -> f64 {
    phone.event_with(&format!("\"call\":{call},\"event\":\"first-media\",\"direction\":\"received\""), STEP).unwrap();
    let events = phone.events();
    let of_call = |wanted: &dyn Fn(&Value) -> bool| {
        events.iter().find(|event| event["call"] == call && wanted(event)).map(at_ms).expect("the event is there")
    };
    let heard = of_call(&|event| event["event"] == "first-media" && event["direction"] == "received");
    heard - of_call(&|event| event["event"] == invite)
}

/// One call after another to the same bot; the slower end's time of each.
fn first_media(bot: &mut Phone, caller: &[&str]) -> f64 {
    let times = (0..RUNS).map(|_| {
        let seen = bot.events().len();
        let mut phone = Phone::start(caller);
        phone.event("stats", STEP).unwrap();
        let created = bot.events().into_iter().skip(seen).find(|event| event["event"] == "created");
        let call = created.and_then(|event| event["call"].as_u64()).expect("the bot was called");
        let there = heard_after(bot, call, "created");
        let here = heard_after(&mut phone, 1, "offer-sent");
        phone.stop().unwrap();
        bot.event_with(&format!("\"call\":{call},\"event\":\"ended\""), STEP).unwrap();
        there.max(here)
    });
    median(times.collect())
}

/// Processor seconds per minute of sound through the encoder and the decoder that the session uses.
fn libopus() -> f64 {
    let windows = (0..RUNS).map(|_| {
        let mut tune = Tune::default();
        let frames: Vec<_> = (0..WINDOW.as_millis() / 20).map(|_| tune.frame()).collect();
        let mut encoder = Encoder::new(Codec::Opus, OpusSettings::default()).unwrap();
        let mut decoder = Decoder::new(Codec::Opus).unwrap();
        let mut sound = Vec::new();
        let before = own_cpu_time();
        for frame in &frames {
            sound.clear();
            let payload = encoder.encode(frame).unwrap();
            decoder.decode(&payload, &mut sound).unwrap();
        }
        per_minute(own_cpu_time() - before)
    });
    median(windows.collect())
}

fn per_minute(used: Duration) -> f64 {
    used.as_secs_f64() * 60.0 / WINDOW.as_secs_f64()
}

/// Processor seconds per call-minute and resident MB of the calling end.
#[expect(clippy::disallowed_methods, reason = "what is measured over a time takes that time")]
fn running_call(edge: &Lab, caller: &[&str]) -> (f64, f64) {
    let _bot = Phone::bot(&edge.account("bob"), &[]).unwrap();
    let mut phone = Phone::start(caller);
    phone.event("announced", STEP).unwrap();
    // Paths that are not used are closed after 3 s: measure the call alone.
    phone.event_with("\"event\":\"stats\"", STEP).unwrap();
    thread::sleep(Duration::from_secs(5));
    let pid = phone.process.pid();
    let (mut processor, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (before, start) = (cpu_time(pid).unwrap(), now());
        thread::sleep(WINDOW);
        let used = cpu_time(pid).unwrap() - before;
        processor.push(used.as_secs_f64() * 60.0 / (now() - start).as_secs_f64());
        memory.push(Usage::of(pid).unwrap().rss_kib as f64 * 1024.0 / 1e6);
    }
    phone.stop().unwrap();
    (median(processor), median(memory))
}

/// An address that is free now.
fn free_address() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound").to_string()
}

fn main() {
    let edge = Lab::start(None, &[]).expect("the lab starts");
    let account = edge.account("alice").to_string_lossy().into_owned();
    let to_bob = ["-c", &account, "--no-sound", "call", "bob", "--tune", "--json"];

    let address = free_address();
    let mut direct = Phone::start(&["--listen", &address, "bot", "--json"]);
    direct.event("listening", STEP).unwrap();
    let target = format!("sip:bob@{address}");
    let direct_ms = first_media(&mut direct, &["--no-sound", "call", &target, "--tune", "--json"]);
    drop(direct);
    let mut bob = Phone::bot(&edge.account("bob"), &[]).expect("the bot registers");
    let edge_ms = first_media(&mut bob, &to_bob);
    drop(bob);

    let alone = libopus();
    let (call, memory) = running_call(&edge, &to_bob);
    println!("| figure (median of {RUNS}, loopback) | measured | best peer |");
    println!("|---|---|---|");
    println!("| INVITE to first RTP both ways, ICE + SDES, direct | {direct_ms:.0} ms | 21 ms |");
    println!("| the same through the edge, TLS, with relay candidates | {edge_ms:.0} ms | |");
    println!("| processor time of one end, Opus complexity 5, 32 kb/s, SRTP | {call:.2} s per call-minute | 0.60 |");
    println!("| libopus alone, same settings and sound | {alone:.2} s per call-minute | 0.56 |");
    println!("| call beside libopus | {:.2} | {:.2} |", call / alone, 0.60 / 0.56);
    println!("| resident memory of one phone in a call | {memory:.1} MB | 15 MB |");
}
