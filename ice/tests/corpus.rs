//! The fuzz targets of `tests/fuzz` on their corpora and on damaged copies of them, without libFuzzer.
//!
//! `FUZZ_SECONDS=600 cargo nextest run --release -p ice --test corpus` goes on for as long with further copies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test may stop where it is surprised"
)]

#[path = "../../tests/fuzz/bodies.rs"]
mod bodies;

use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Damaged copies of the whole corpus in an ordinary run, so that it stays within a second.
const COPIES: usize = 3000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Bits flipped, bytes set, cut, doubled, or joined with another file's.
fn damage(rng: &mut ChaCha20Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            4 => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                bytes.extend_from_slice(&other[rng.random_range(0..=other.len())..]);
            }
            _ => {
                let from = rng.random_range(0..=at);
                let piece = bytes[from..at].to_vec();
                bytes.extend(piece);
            }
        }
        bytes.truncate(4096);
    }
    bytes
}

#[expect(clippy::disallowed_methods, reason = "FUZZ_SECONDS are seconds of the clock")]
fn replay(target: &str, body: fn(&[u8]), copies: usize) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 5, "{target} has a corpus");
    for file in &corpus {
        body(file);
    }
    let seconds: Option<u64> = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| (Instant::now() + Duration::from_secs(seconds), seconds));
    let mut rng = ChaCha20Rng::seed_from_u64(until.map_or(1, |(_, seconds)| seconds));
    let mut tried = 0_usize;
    while tried < copies || until.is_some_and(|(end, _)| Instant::now() < end) {
        let bytes = damage(&mut rng, &corpus);
        let outcome = std::panic::catch_unwind(|| body(&bytes));
        assert!(outcome.is_ok(), "{target} panics on {}", hex(&bytes));
        tried += 1;
    }
    if until.is_some() {
        println!("{target}: {tried} damaged copies, no finding");
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[test]
fn stun_messages_of_strangers_are_read_within_their_bounds() {
    replay("stun", bodies::stun, COPIES);
}

#[test]
fn channel_data_and_frames_of_strangers_are_cut_the_same_however_they_arrive() {
    replay("channel", bodies::channel, COPIES);
}

#[test]
fn candidate_lines_of_strangers_are_written_as_they_were_read() {
    replay("candidate", bodies::candidate, COPIES);
}

#[test]
fn an_agent_survives_any_scenario_and_gives_everything_back() {
    replay("scenario", bodies::scenario, COPIES / 3);
}
