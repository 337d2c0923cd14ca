//! Speech both ways through the lab on loopback.

use std::path::{Path, PathBuf};

use tests::lab::run::tool;
use tests::recognise::similarity;

const SENTENCES: [&str; 2] = [
    "The quick brown fox jumps over the lazy dog while seven wizards watch.",
    "Please bring sixteen green bottles to the harbour before Thursday evening.",
];

/// A spoken sentence as a 48 kHz mono file.
fn speak(folder: &Path, name: &str, sentence: &str) -> PathBuf {
    let (raw, file) = (folder.join(format!("{name}-raw.wav")), folder.join(format!("{name}.wav")));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    tool("espeak-ng", &["-v", "en-us", "-s", "150", "-w", &text(&raw), sentence]).expect("espeak-ng speaks");
    tool("sox", &[text(&raw).as_str(), "-r", "48000", "-c", "1", "-b", "16", &text(&file)]).expect("sox resamples");
    file
}

fn samples(file: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(reader.spec().sample_rate, 48_000, "{}", file.display());
    reader.samples::<i16>().map(|sample| sample.expect("a sample")).collect()
}

#[test]
fn the_two_sentences_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] =
        [("a", SENTENCES[0]), ("b", SENTENCES[1])].map(|(name, text)| samples(&speak(folder.path(), name, text)));
    for (name, said, other) in [("a", &first, &second), ("b", &second, &first)] {
        let (same, different) = (similarity(said, said), similarity(other, said));
        println!("{name}: itself {same:.3}, the other {different:.3}");
        assert!(same > 0.99, "{name}: {same}");
        assert!(different < 0.5, "{name}: {different}");
    }
}
