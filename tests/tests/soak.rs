//! Hundreds of calls with one bot process: nothing may grow and nothing may be left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::lab::edge::Lab;
use tests::lab::phone::{Phone, Usage};
use tests::lab::run::now;

/// Calls before the first look: caches, buffers and the allocator's arenas have their size then.
const WARM: usize = 100;
const CALLS: usize = 600;
/// Calls at once.
const AT_ONCE: usize = 20;
/// How much the bot may grow between the looks.
const GROWTH_KIB_MAX: u64 = 2048;
/// For one call of 2 s, with its registration before and after.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// What a call leaves for a while (RFC 3261 §17: transactions end after at most 32 s) is gone after this.
const SETTLED_LIMIT: Duration = Duration::from_secs(45);

/// What the bot and the edge hold, apart from memory.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    registrations: usize,
    allocations: usize,
    streams: u64,
}

fn held(edge: &Lab, bot: u32) -> Held {
    let usage = Usage::of(bot).unwrap();
    let list = edge.control("list").unwrap();
    let count = |key: &str| list.get(key).and_then(Value::as_array).map_or(usize::MAX, Vec::len);
    Held {
        descriptors: usage.descriptors,
        threads: usage.threads,
        registrations: count("registrations"),
        allocations: count("allocations"),
        streams: list["streams"].as_u64().unwrap(),
    }
}

/// Waits until the bot has tried its relays and given them back; what it holds then.
fn idle(edge: &Lab, bot: u32) -> Held {
    let until = now() + SETTLED_LIMIT;
    let mut last = held(edge, bot);
    loop {
        thread::sleep(Duration::from_secs(1));
        let next = held(edge, bot);
        if next == last && (next.registrations, next.allocations) == (1, 0) {
            return next;
        }
        assert!(now() < until, "the bot does not come to rest: {next:?}");
        last = next;
    }
}

/// Waits until the bot and the edge hold what they held before.
fn wait_settled(edge: &Lab, bot: u32, before: &Held) {
    let until = now() + SETTLED_LIMIT;
    loop {
        let after = held(edge, bot);
        if after == *before {
            return;
        }
        assert!(
            now() < until,
            "{SETTLED_LIMIT:?} after the last call it holds\n{after:?}, before the first one\n{before:?}"
        );
        // Only a pause between looks: what is waited for has its own limit.
        thread::sleep(Duration::from_millis(200));
    }
}

fn call_all(edge: &Lab, count: usize) {
    let started = AtomicUsize::new(0);
    let account = edge.account("alice").to_string_lossy().into_owned();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while started.fetch_add(1, Ordering::Relaxed) < count {
                    let call = ["-c", &account, "--no-sound", "call", "bob", "--tune", "--duration", "2s", "--json"];
                    let mut phone = Phone::start(&call);
                    let code = phone.exit_code(CALL_LIMIT).unwrap();
                    let output = phone.process.output().join("\n");
                    assert_eq!(code, Some(0), "{}\n{output}", phone.errors());
                }
            });
        }
    });
}

#[test]
#[ignore = "takes minutes: tests/run --soak"]
fn soak_six_hundred_calls_leave_one_bot_as_it_was() {
    let edge = Lab::start(None, &[]).unwrap();
    let mut bot = Phone::bot(&edge.account("bob"), &["--ring", "200ms", "--calls-max", "100"]).unwrap();
    // Each relay transport has been tried, and its allocation is gone.
    bot.event_with("\"event\":\"relay-probed\"", Duration::from_secs(20)).unwrap();
    let pid = bot.process.pid();
    let before = idle(&edge, pid);
    let start = now();
    call_all(&edge, WARM);
    wait_settled(&edge, pid, &before);
    let warm = Usage::of(pid).unwrap();
    call_all(&edge, CALLS - WARM);
    wait_settled(&edge, pid, &before);
    let end = Usage::of(pid).unwrap();
    println!(
        "RSS after {WARM} calls {} KiB, after {CALLS} calls {} KiB, {:?}; {before:?}",
        warm.rss_kib,
        end.rss_kib,
        now() - start
    );
    assert!(end.rss_kib <= warm.rss_kib + GROWTH_KIB_MAX, "it grew from {warm:?} to {end:?}");
    assert_eq!(bot.stop().unwrap(), Some(0), "{}", bot.errors());
    edge.wait_empty(Duration::from_secs(10)).unwrap();
    edge.stop().unwrap();
}
