//! Speech both ways through the lab on loopback.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::icephone;
use tests::lab::edge::{Lab, text};
use tests::lab::run::Process;
use tests::lab::speech::{samples, spoken};
use tests::recognise::similarity;

/// What the two sides say.
fn said() -> [Vec<i16>; 2] {
    spoken().each_ref().map(|file| samples(file).expect("the file was just made"))
}

#[test]
fn the_two_sentences_are_told_apart() {
    let [first, second] = said();
    for (name, said, other) in [("a", &first, &second), ("b", &second, &first)] {
        let (same, different) = (similarity(said, said), similarity(other, said));
        println!("{name}: itself {same:.3}, the other {different:.3}");
        assert!(same > 0.99, "{name}: {same}");
        assert!(different < 0.5, "{name}: {different}");
    }
}

/// One call through a lab of its own: what each side recorded.
fn call(folder: &Path, transport: &str, policy: &str) -> Result<[Vec<i16>; 2], String> {
    let lab = Lab::start(None, &[])?;
    let file = |name: &str| folder.join(format!("{transport}-{policy}-{name}.wav"));
    let speech = spoken().each_ref().map(|file| text(file));
    let recordings = ["alice", "bob"].map(|name| text(&file(name)));
    let (alice, bob) = (text(&lab.account("alice")), text(&lab.account("bob")));
    let both = ["--transport", transport, "--path", policy, "--json"];
    let bot_arguments = ["bot", "--config", &bob, "--play", &speech[1], "--record", &recordings[1]];
    let mut bot = Process::start(None, &icephone(), &[&bot_arguments[..], &both[..]].concat());
    bot.wait_line("relay credentials", Duration::from_secs(30), |line| line.contains("\"credentials-received\""))?;
    let to = lab.aor("bob")?;
    let arguments =
        ["call", &to, "--config", &alice, "--play", &speech[0], "--record", &recordings[0], "--duration", "7s"];
    let mut call = Process::start(None, &icephone(), &[&arguments[..], &both[..]].concat());
    let status = call.wait_exit(Duration::from_secs(60))?;
    if !status.success() {
        return Err(format!(
            "the call ended with {status}:\n{}\nbot:\n{}",
            call.output().join("\n"),
            bot.output().join("\n")
        ));
    }
    bot.wait_line("the end of the call", Duration::from_secs(10), |line| line.contains("\"ended\""))?;
    bot.signal(Signal::SIGINT);
    bot.wait_exit(Duration::from_secs(10))?;
    lab.stop()?;
    Ok([samples(&file("alice"))?, samples(&file("bob"))?])
}

/// Calls with each policy on both sides at once; each recording must be recognised, and not taken for the other sentence.
fn speech_goes_both_ways_over(transport: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let said = said();
    let policies = ["all", "no-host", "relay-only", "relay-tcp-only"];
    let failures: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = policies
            .iter()
            .map(|policy| {
                let (folder, said) = (folder.path(), &said);
                scope.spawn(move || judge(call(folder, transport, policy)?, said))
            })
            .collect();
        let results = policies.iter().zip(runs).map(|(policy, run)| (policy, run.join().expect("a run")));
        results
            .filter_map(|(policy, result)| result.err().map(|error| format!("{transport}, {policy}: {error}")))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Alice must have heard the second sentence, Bob the first.
fn judge([alice, bob]: [Vec<i16>; 2], said: &[Vec<i16>; 2]) -> Result<(), String> {
    for (who, heard, right, wrong) in [("alice", alice, &said[1], &said[0]), ("bob", bob, &said[0], &said[1])] {
        let (same, other) = (similarity(right, &heard), similarity(wrong, &heard));
        println!("{who}: {same:.3}, the other sentence {other:.3}");
        if same < 0.9 || other >= 0.5 {
            return Err(format!(
                "{who} recorded {} samples: {same:.3} like what was said, {other:.3} like the other",
                heard.len()
            ));
        }
    }
    Ok(())
}

#[test]
fn speech_goes_both_ways_with_each_policy_over_tls() {
    speech_goes_both_ways_over("tls");
}

#[test]
fn speech_goes_both_ways_with_each_policy_over_tcp() {
    speech_goes_both_ways_over("tcp");
}

#[test]
fn speech_goes_both_ways_with_each_policy_over_udp() {
    speech_goes_both_ways_over("udp");
}
