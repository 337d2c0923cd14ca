//! Sentences spoken by a machine, and the question whether a recording holds them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::run::tool;
use crate::recognise::similarity;

/// What the caller says, and what the callee says.
pub const SENTENCES: [&str; 2] = [
    "The quick brown fox jumps over the lazy dog while seven wizards watch.",
    "Please bring sixteen green bottles to the harbour before Thursday evening.",
];

/// The sentences as 48 kHz mono files, made once for all programs.
///
/// # Panics
///
/// Without espeak-ng and sox.
pub fn spoken() -> &'static [PathBuf; 2] {
    static FILES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = super::root().join("target/spoken");
        std::fs::create_dir_all(&folder).expect("a folder");
        [0, 1].map(|n| {
            let file = folder.join(format!("{n}.wav"));
            if !file.exists() {
                speak(&folder, &file, SENTENCES[n]);
            }
            file
        })
    })
}

/// Another program may make the same file: it appears whole or not at all.
fn speak(folder: &Path, file: &Path, sentence: &str) {
    let own = tempfile::tempdir_in(folder).expect("a folder");
    let at = |name: &str| own.path().join(name).to_string_lossy().into_owned();
    tool("espeak-ng", &["-v", "en-us", "-s", "150", "-w", &at("raw.wav"), sentence]).expect("espeak-ng speaks");
    tool("sox", &[&at("raw.wav"), "-r", "48000", "-c", "1", "-b", "16", &at("ready.wav")]).expect("sox resamples");
    std::fs::rename(at("ready.wav"), file).expect("the file gets its name");
}

/// The samples of a 48 kHz mono file.
///
/// # Errors
///
/// If it cannot be read, or has another rate.
pub fn samples(file: &Path) -> Result<Vec<i16>, String> {
    let error = |error: hound::Error| format!("{}: {error}", file.display());
    let mut reader = hound::WavReader::open(file).map_err(error)?;
    if reader.spec().sample_rate != 48_000 {
        return Err(format!("{}: {} Hz", file.display(), reader.spec().sample_rate));
    }
    reader.samples::<i16>().collect::<Result<_, _>>().map_err(error)
}

/// How much a recording is like the sentence that was said, and like the other one, `-1.0..=1.0`.
///
/// # Errors
///
/// If the recording cannot be read.
pub fn likeness(recording: &Path, said: usize) -> Result<(f64, f64), String> {
    static SENT: OnceLock<[Vec<i16>; 2]> = OnceLock::new();
    let sent = SENT.get_or_init(|| spoken().each_ref().map(|file| samples(file).expect("we made it")));
    let heard = samples(recording)?;
    Ok((similarity(&sent[said], &heard), similarity(&sent[1 - said], &heard)))
}
