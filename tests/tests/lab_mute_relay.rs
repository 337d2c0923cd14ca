//! One relay of two is mute: the built program's calls are up within a second, also right after registering, when nobody has
//! found out yet which one it is.

use std::time::Duration;

use serde_json::Value;
use tests::lab::edge::{Lab, text};
use tests::lab::phone::Phone;

/// Calls; their median counts, because other tests run beside this one.
const RUNS: usize = 5;
const STEP: Duration = Duration::from_secs(20);
/// From dialling to media both ways.
const UP_MAX_MS: u64 = 1000;

/// Whether what a side gathered is a relay candidate of the living server, and for the mute one its cause.
fn is_as_it_should(gathered: &Value, mute: &str) -> bool {
    let list = |key: &str| gathered[key].as_array().cloned().unwrap_or_default();
    let is_mute = |server: &Value| server["server"].as_str().is_some_and(|address| address.contains(mute));
    let (dead, alive): (Vec<Value>, Vec<Value>) = list("servers").into_iter().partition(is_mute);
    !dead.is_empty()
        && dead.iter().all(|server| server["failure"].is_string())
        && !alive.is_empty()
        && alive.iter().all(|server| server["failure"].is_null())
        && list("candidates").iter().any(|candidate| candidate["kind"] == "relay")
}

/// One call right after both sides have registered: milliseconds from dialling to the answer and to media both ways.
fn call() -> Result<[u64; 2], String> {
    let mut lab = Lab::start(None, &["--relays", "2"])?;
    lab.control("relay1 mute")?;
    let about = lab.process.wait_line("what it is", STEP, |line| line.starts_with('{'))?;
    let about: Value = serde_json::from_str(&about).map_err(|error| format!("{error} in {about}"))?;
    let mute = about["relays"][0]["udp"].as_str().ok_or_else(|| format!("no relay in {about}"))?;
    let mut bot = Phone::start(&["-c", &text(&lab.account("echo")), "bot", "--json", "--ring", "0s"]);
    bot.event("credentials-received", STEP)?;
    let to = lab.aor("echo")?;
    let alice = text(&lab.account("alice"));
    let mut phone = Phone::start(&["-c", &alice, "call", &to, "--tune", "--duration", "1s", "--json"]);
    let created = phone.event("created", STEP)?;
    let talking = phone.event_with("\"state\":\"talking\"", STEP)?;
    let heard = phone.event_with("\"first-media\",\"direction\":\"received\"", STEP)?;
    phone.event_with("\"first-media\",\"direction\":\"sent\"", STEP)?;
    for (side, name) in [(&mut phone, "the caller"), (&mut bot, "the callee")] {
        let gathered = side.event("gathered", STEP)?;
        println!("{name}: gathered in {} ms", gathered["took_ms"]);
        assert!(is_as_it_should(&gathered, mute), "{name}, {mute} is mute: {gathered}");
    }
    let code = phone.exit_code(STEP)?;
    assert_eq!(code, Some(0), "{}", phone.errors());
    bot.stop()?;
    lab.stop()?;
    let at = |event: &Value| event["at_ms"].as_u64().expect("every event has its time");
    Ok([at(&talking) - at(&created), at(&heard) - at(&created)])
}

#[test]
fn with_one_relay_mute_a_call_right_after_registering_is_up_within_a_second() {
    let mut times: Vec<[u64; 2]> = (0..RUNS).map(|_| call().unwrap_or_else(|error| panic!("{error}"))).collect();
    println!("answered and heard after (ms): {times:?}");
    times.sort_by_key(|times| times.iter().max().copied());
    let median = times[RUNS / 2];
    assert!(median.iter().all(|time| *time <= UP_MAX_MS), "answered and heard after {median:?} ms");
}
