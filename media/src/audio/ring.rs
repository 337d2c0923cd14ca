//! Lock-free rings between the engine's loop and a sound card's callback: 48 kHz mono samples, whole 20 ms frames on the
//! loop's side, whatever the card likes on the other.
//!
//! ```text
//!   card callback ─▶ Capture ─ ring ─▶ FrameReader ─▶ loop      microphone
//!   loop ─▶ FrameWriter ─ ring ─▶ Playback ─▶ card callback     loudspeaker
//! ```
//!
//! The two clocks differ by some parts per million. What piles up is skipped, what is missing is silence; both are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

/// 20 ms at 48 kHz.
pub const FRAME_SAMPLES: usize = 960;
/// Room for 200 ms: the loop is never away for longer, and sound older than that would only be delay.
const RING_SAMPLES_MAX: usize = FRAME_SAMPLES * 10;
/// Playback starts with this much in hand, so that one late frame is not heard.
const PLAYBACK_START_SAMPLES: usize = FRAME_SAMPLES * 2;
/// More than this waiting for the card is skipped down to the start level.
const PLAYBACK_SURPLUS_SAMPLES: usize = FRAME_SAMPLES * 6;

/// What went wrong on a ring since it was made.
#[derive(Debug, Default)]
pub struct RingCounters {
    /// Samples that found no room or were skipped.
    pub skipped: AtomicU64,
    /// Samples of silence played because none were there.
    pub missing: AtomicU64,
}

/// The card's end of the microphone ring.
#[derive(Debug)]
pub struct Capture {
    samples: Producer<i16>,
    counters: Arc<RingCounters>,
}

/// The loop's end of the microphone ring.
#[derive(Debug)]
pub struct FrameReader {
    samples: Consumer<i16>,
    counters: Arc<RingCounters>,
}

/// The loop's end of the loudspeaker ring.
#[derive(Debug)]
pub struct FrameWriter {
    samples: Producer<i16>,
    counters: Arc<RingCounters>,
}

/// The card's end of the loudspeaker ring.
#[derive(Debug)]
pub struct Playback {
    samples: Consumer<i16>,
    counters: Arc<RingCounters>,
    playing: bool,
}

/// Makes a microphone ring.
pub fn microphone() -> (Capture, FrameReader) {
    let (producer, consumer) = RingBuffer::new(RING_SAMPLES_MAX);
    let counters = Arc::new(RingCounters::default());
    (Capture { samples: producer, counters: Arc::clone(&counters) }, FrameReader { samples: consumer, counters })
}

/// Makes a loudspeaker ring.
pub fn loudspeaker() -> (FrameWriter, Playback) {
    let (producer, consumer) = RingBuffer::new(RING_SAMPLES_MAX);
    let counters = Arc::new(RingCounters::default());
    (
        FrameWriter { samples: producer, counters: Arc::clone(&counters) },
        Playback { samples: consumer, counters, playing: false },
    )
}

impl Capture {
    /// Takes one sample from the card.
    pub fn push(&mut self, sample: i16) {
        if self.samples.push(sample).is_err() {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl FrameReader {
    /// The next whole frame, if 20 ms are there.
    pub fn next_frame(&mut self) -> Option<[i16; FRAME_SAMPLES]> {
        if self.samples.slots() < FRAME_SAMPLES {
            return None;
        }
        let mut frame = [0; FRAME_SAMPLES];
        for sample in &mut frame {
            *sample = self.samples.pop().unwrap_or(0);
        }
        Some(frame)
    }

    /// What went wrong so far.
    pub fn counters(&self) -> &RingCounters {
        &self.counters
    }
}

impl FrameWriter {
    /// Queues one frame for the card; what finds no room is skipped.
    pub fn write(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        for sample in frame {
            if self.samples.push(*sample).is_err() {
                self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What went wrong so far.
    pub fn counters(&self) -> &RingCounters {
        &self.counters
    }
}

impl Playback {
    /// Called once at the start of each callback: skips what has piled up, waits for the start level.
    pub fn begin(&mut self) {
        let waiting = self.samples.slots();
        if waiting > PLAYBACK_SURPLUS_SAMPLES {
            let surplus = waiting.saturating_sub(PLAYBACK_START_SAMPLES);
            for _ in 0..surplus {
                let _ = self.samples.pop();
            }
            self.counters.skipped.fetch_add(surplus.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.playing = waiting >= PLAYBACK_START_SAMPLES || (self.playing && waiting > 0);
    }

    /// The next sample for the card: silence while there is nothing to play.
    pub fn next_sample(&mut self) -> i16 {
        if !self.playing {
            return 0;
        }
        self.samples.pop().unwrap_or_else(|_| {
            self.counters.missing.fetch_add(1, Ordering::Relaxed);
            0
        })
    }
}

#[cfg(test)]
mod ring_tests {
    use super::*;

    #[test]
    fn frames_come_out_of_the_microphone_ring_in_order_whatever_the_callback_size() {
        let (mut capture, mut reader) = microphone();
        let mut next = 0i16;
        let mut heard = Vec::new();
        for size in [320usize, 24, 1000, 7, 900, 640] {
            for _ in 0..size {
                capture.push(next);
                next += 1;
            }
            while let Some(frame) = reader.next_frame() {
                heard.extend(frame);
            }
        }
        assert_eq!(heard.len(), FRAME_SAMPLES * 3);
        assert!(heard.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }

    #[test]
    fn playback_waits_for_40_ms_and_plays_silence_when_the_ring_runs_dry() {
        let (mut writer, mut playback) = loudspeaker();
        writer.write(&[5; FRAME_SAMPLES]);
        playback.begin();
        assert_eq!(playback.next_sample(), 0, "20 ms are not enough to start");
        writer.write(&[5; FRAME_SAMPLES]);
        playback.begin();
        let played: Vec<i16> = (0..2 * FRAME_SAMPLES + 10).map(|_| playback.next_sample()).collect();
        assert!(played[..2 * FRAME_SAMPLES].iter().all(|sample| *sample == 5));
        assert_eq!(writer.counters().missing.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_pile_up_is_skipped_down_to_the_start_level() {
        let (mut writer, mut playback) = loudspeaker();
        for value in 0..8 {
            writer.write(&[value; FRAME_SAMPLES]);
        }
        playback.begin();
        assert_eq!(playback.next_sample(), 6, "the last 40 ms remain");
    }
}
