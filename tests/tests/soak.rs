//! Hundreds of short calls with one bot process: its memory, descriptors and threads, and what the edge holds, must not
//! grow. Minutes long, so it runs with `tests/run --soak` only.

use std::thread;
use std::time::Duration;

use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::run::Process;

/// Calls before the first measurement of memory: caches and buffers have their size by then.
const WARM_UP: usize = 100;
const CALLS: usize = 600;
/// Calls at once; the registrar takes 16 bindings of one user, and some are still on their way out.
const PARALLEL: usize = 10;
/// What memory may grow by from call 100 to call 600, in kB.
const GROWTH_MAX_KB: u64 = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footprint {
    rss_kb: u64,
    descriptors: usize,
    threads: usize,
}

fn footprint(pid: u32) -> Footprint {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the bot runs");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let rss_kb = rss.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    Footprint { rss_kb, descriptors: count("fd"), threads: count("task") }
}

/// One call of two seconds; what it wrote if it failed.
fn call(alice: &str, to: &str) -> Result<(), String> {
    let arguments = ["call", to, "--config", alice, "--tune", "--duration", "2s"];
    let mut process = Process::start(None, &icephone(), &arguments);
    let status = process.wait_exit(Duration::from_secs(60))?;
    if status.success() { Ok(()) } else { Err(format!("{status}\n{}", process.output().join("\n"))) }
}

fn calls(lab: &Lab, to: &str, count: usize) {
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

/// Waits until the edge holds only what it held before: the bot's registration and its probes.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks; the limit is what is waited for")]
fn settled(lab: &Lab, before: &serde_json::Value) {
    let count = |list: &serde_json::Value, key: &str| list[key].as_array().map(Vec::len);
    let until = tests::lab::run::now() + Duration::from_secs(40);
    loop {
        let list = lab.control("list").expect("a list");
        let same = ["registrations", "allocations"].iter().all(|key| count(&list, key) == count(before, key));
        if same {
            return;
        }
        assert!(tests::lab::run::now() < until, "the edge held {before} and now holds {list}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "takes minutes; tests/run --soak"]
fn soak_six_hundred_calls_leave_a_bot_as_it_was() {
    let lab = Lab::start(None, &[]).expect("a lab");
    let echo = text(&lab.account("echo"));
    let mut bot = Process::start(None, &icephone(), &["bot", "--config", &echo, "--ring", "0s", "--json"]);
    bot.wait_line("credentials", Duration::from_secs(30), |line| line.contains("\"credentials-received\""))
        .expect("a bot");
    let to = lab.aor("echo").expect("an aor");
    // A fresh bot tries its relays; what it holds for that is given back before the first call.
    let probed = |line: &str| line.contains("\"relay-probed\"");
    bot.wait_line("probed relay", Duration::from_secs(30), probed).expect("the relays are tried");
    let before = serde_json::json!({ "registrations": ["the bot"], "allocations": [] });
    settled(&lab, &before);
    let fresh = footprint(bot.pid());
    calls(&lab, &to, WARM_UP);
    settled(&lab, &before);
    let warm = footprint(bot.pid());
    calls(&lab, &to, CALLS - WARM_UP);
    settled(&lab, &before);
    let done = footprint(bot.pid());
    println!("before: {fresh:?}\nafter {WARM_UP}: {warm:?}\nafter {CALLS}: {done:?}");
    assert!(done.rss_kb <= warm.rss_kb + GROWTH_MAX_KB, "memory grew from {warm:?} to {done:?}");
    assert!(done.descriptors <= fresh.descriptors, "descriptors grew from {fresh:?} to {done:?}");
    assert!(done.threads <= warm.threads, "threads grew from {warm:?} to {done:?}");
    lab.stop().expect("the lab ends");
}
