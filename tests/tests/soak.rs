//! Hundreds of short calls with one bot process: its memory, descriptors, threads and tasks, and what the edge holds, must not
//! grow. A relayed call that lasts longer than the credentials it began with. Minutes long, so they run with
//! `tests/run --soak` only.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::phone::{Phone, Usage};
use tests::lab::run::{Process, now};

/// Calls before the first measurement of memory: caches and buffers have their size by then.
const WARM_UP: usize = 100;
const CALLS: usize = 600;
/// Calls at once; the registrar takes 16 bindings of one user, and some are still on their way out.
const PARALLEL: usize = 10;
/// What memory may grow by from call 100 to call 600, in KiB.
const GROWTH_MAX_KIB: u64 = 2048;
const STEP: Duration = Duration::from_secs(30);

/// What the kernel and the bot itself know of its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footprint {
    usage: Usage,
    calls: u64,
    sockets: u64,
    streams: u64,
    tasks: u64,
}

/// Asks the bot what it holds.
fn footprint(bot: &mut Phone) -> Footprint {
    let seq = |line: &str| serde_json::from_str::<Value>(line).ok().and_then(|event| event["seq"].as_u64());
    let known = bot.process.output().iter().rev().find_map(|line| seq(line)).unwrap_or_default();
    bot.process.signal(Signal::SIGUSR1);
    let is_new = |line: &str| line.contains("\"event\":\"health\"") && seq(line).is_some_and(|seq| seq > known);
    let line = bot.process.wait_line("health", STEP, is_new).expect("the bot says what it holds");
    let health: Value = serde_json::from_str(&line).expect("JSON");
    let held = |key: &str| health[key].as_u64().unwrap_or_else(|| panic!("no {key} in {line}"));
    Footprint {
        usage: Usage::of(bot.process.pid()).expect("the bot runs"),
        calls: held("calls"),
        sockets: held("sockets"),
        streams: held("streams"),
        tasks: held("tasks"),
    }
}

/// One call of two seconds; what it wrote if it failed.
fn call(alice: &str, to: &str) -> Result<(), String> {
    let arguments = ["call", to, "--config", alice, "--tune", "--duration", "2s"];
    let mut process = Process::start(None, &icephone(), &arguments);
    let status = process.wait_exit(Duration::from_secs(60))?;
    if status.success() { Ok(()) } else { Err(format!("{status}\n{}", process.output().join("\n"))) }
}

fn calls(lab: &Lab, to: &str, count: usize) {
    assert_eq!(count % PARALLEL, 0, "every worker makes as many");
    let alice = text(&lab.account("alice"));
    let worker = || -> Result<(), String> { (0..count / PARALLEL).try_for_each(|_| call(&alice, to)) };
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    for result in results {
        result.unwrap_or_else(|error| panic!("a call failed: {error}"));
    }
}

/// How many calls the bot has had, and how many at once at most.
fn carried(bot: &mut Phone) -> (usize, usize) {
    let (mut all, mut running, mut most) = (0, 0_usize, 0);
    for event in bot.events() {
        match event["event"].as_str() {
            Some("created") => (all, running) = (all + 1, running + 1),
            Some("ended") => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    (all, most)
}

/// Waits until the edge holds only the bot's registration, and the bot no more than `before`.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks; the limit is what is waited for")]
fn settled(lab: &Lab, bot: &mut Phone, before: Option<Footprint>) -> Footprint {
    let until = now() + Duration::from_secs(40);
    loop {
        let list = lab.control("list").expect("a list");
        let held = |key: &str| list[key].as_array().map(Vec::len);
        let is_edge_settled = held("registrations") == Some(1) && held("allocations") == Some(0);
        let found = footprint(bot);
        let is_back = |before: Footprint| {
            found.usage.descriptors <= before.usage.descriptors
                && (found.calls, found.sockets, found.streams) == (before.calls, before.sockets, before.streams)
                && found.tasks <= before.tasks
        };
        if is_edge_settled && before.is_none_or(is_back) {
            return found;
        }
        assert!(now() < until, "the bot held {before:?} and now holds {found:?}, the edge {list}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "takes minutes; tests/run --soak"]
fn soak_six_hundred_calls_leave_a_bot_as_it_was() {
    let lab = Lab::start(None, &[]).expect("a lab");
    let mut bot = Phone::bot(&lab.account("echo"), &["--ring", "0s"]).expect("a bot");
    let to = lab.aor("echo").expect("an aor");
    // A fresh bot tries its relays; what it holds for that is given back before the first call.
    bot.event("relay-probed", STEP).expect("the relays are tried");
    let fresh = settled(&lab, &mut bot, None);
    println!("before call 1:   {fresh:?}");
    calls(&lab, &to, WARM_UP);
    let warm = settled(&lab, &mut bot, Some(fresh));
    println!("after call {WARM_UP}:  {warm:?}");
    calls(&lab, &to, CALLS - WARM_UP);
    let done = settled(&lab, &mut bot, Some(fresh));
    let (all, most) = carried(&mut bot);
    println!("after call {CALLS}:  {done:?}\n{all} calls, at most {most} at once");
    assert_eq!(all, CALLS);
    assert!((PARALLEL / 2..=PARALLEL).contains(&most), "{most} calls at once and not about {PARALLEL}");
    let (warm, done) = (warm.usage, done.usage);
    assert!(done.rss_kib <= warm.rss_kib + GROWTH_MAX_KIB, "memory grew from {warm:?} to {done:?}");
    assert!(done.threads <= warm.threads, "threads grew from {warm:?} to {done:?}");
    assert_eq!(bot.stop(), Ok(Some(0)));
    lab.stop().expect("the lab ends");
}

/// Credentials of one minute: the second SERVICE comes at four fifths of their life.
const RENEWAL_MS: std::ops::RangeInclusive<u64> = 45_600..=50_400;
const RELAYED_CALL: Duration = Duration::from_secs(150);

fn at_ms(event: &Value) -> u64 {
    event["at_ms"].as_u64().expect("every event has its time")
}

/// One side of the relayed call: renewals in time, only relays in use, media without a gap.
fn check_relayed(name: &str, phone: &mut Phone) {
    let events = phone.events();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let renewals: Vec<u64> = of("credentials-received").into_iter().map(at_ms).collect();
    println!("{name}: credentials at {renewals:?} ms");
    assert!(renewals.len() >= 3, "{name}: {renewals:?}");
    for pair in renewals.windows(2) {
        assert!(RENEWAL_MS.contains(&(pair[1] - pair[0])), "{name}: credentials came at {renewals:?}");
    }
    for change in of("path-changed") {
        assert_eq!(change["path"]["local"]["kind"], "relay", "{name}: {change}");
    }
    let stats = of("stats");
    let received = |event: &Value| event["stats"]["received-packets"].as_u64().expect("a count");
    for pair in stats.windows(2) {
        let (packets, ms) = (received(pair[1]) - received(pair[0]), at_ms(pair[1]) - at_ms(pair[0]));
        assert!(packets > 0, "{name}: nothing was heard for {ms} ms before {}", pair[1]);
    }
    let last = stats.last().expect("figures");
    println!("{name}: {} figures, last {}", stats.len(), last["stats"]);
    let sent_for = RELAYED_CALL.as_secs() * 50;
    assert!(received(last) * 100 >= sent_for * 98, "{name}: {} packets of {sent_for} were heard", received(last));
}

#[test]
#[ignore = "takes minutes; tests/run --soak"]
fn soak_a_relayed_call_outlives_the_credentials_it_began_with() {
    let lab = Lab::start(None, &["--credential-minutes", "1"]).expect("a lab");
    let relayed = ["--path", "relay-only"];
    let mut bot = Phone::bot(&lab.account("echo"), &[&relayed[..], &["--ring", "0s"]].concat()).expect("a bot");
    bot.event("credentials-received", STEP).expect("relay credentials");
    let (to, alice) = (lab.aor("echo").expect("an aor"), text(&lab.account("alice")));
    let duration = format!("{}s", RELAYED_CALL.as_secs());
    let arguments = ["-c", &alice, "call", &to, "--tune", "--duration", &duration, "--json"];
    let mut phone = Phone::start(&[&arguments[..], &relayed[..]].concat());
    let code = phone.exit_code(RELAYED_CALL + STEP).expect("the call ends");
    assert_eq!(code, Some(0), "{}", phone.errors());
    check_relayed("the caller", &mut phone);
    check_relayed("the callee", &mut bot);
    assert_eq!(bot.stop(), Ok(Some(0)));
    lab.wait_empty(STEP).expect("the edge is empty");
    lab.stop().expect("the lab ends");
}
