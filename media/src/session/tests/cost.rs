//! What a call costs beside libopus alone: a measurement, run by
//! `cargo test --release -p media cost -- --ignored --nocapture`.

use super::*;
use crate::codec::{Decoder, Encoder};

/// Time this thread has spent on a processor, in seconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u32 =
        text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).map_or(0, |nanoseconds| {
            u32::try_from(nanoseconds / 1_000).unwrap() // microseconds fit for an hour
        });
    f64::from(nanoseconds) / 1e6
}

fn speech_like() -> Arc<[i16]> {
    let mut tune = crate::audio::tune::Tune::default();
    (0..500).flat_map(|_| tune.frame()).collect()
}

#[test]
#[ignore = "a measurement that needs the release profile and an idle machine"]
fn cost_of_a_call_minute_beside_libopus_alone() {
    let samples = speech_like();
    let configure = |side: usize, config: &mut Config| {
        protected(side, config);
        config.source = Source::Samples { samples: Arc::clone(&samples), repeat: true };
    };
    let before = cpu_seconds();
    let mut pair = Pair::talking(configure, [constant(20), constant(20)], 1);
    for _ in 0..60 {
        pair.run_for(secs(1));
        for end in &mut pair.ends {
            end.sent.clear();
            end.heard.clear();
        }
    }
    let session = (cpu_seconds() - before) / 2.0;
    assert_eq!(pair.stats(0).lost, 0);

    let before = cpu_seconds();
    let mut encoder = Encoder::new(Codec::Opus, OpusSettings::default()).unwrap();
    let mut decoder = Decoder::new(Codec::Opus).unwrap();
    let mut sound = Vec::new();
    for at in 0..3_000 {
        let start = at % 500 * FRAME_SAMPLES;
        let frame: &Frame = samples[start..start + FRAME_SAMPLES].try_into().unwrap();
        let payload = encoder.encode(frame).unwrap();
        sound.clear();
        decoder.decode(&payload, &mut sound).unwrap();
    }
    let libopus = cpu_seconds() - before;
    println!("CPU seconds per call minute: session {session:.3}, libopus alone {libopus:.3}");
    assert!(session < libopus * 1.25, "{session} against {libopus}");
}
