//! A sine of constant level, and the ringback tone.

use crate::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ, sample};

/// A sine whose phase runs on from frame to frame.
#[derive(Debug, Clone)]
pub struct Sine {
    amplitude: f32,
    step: f32,
    phase: f32,
}

impl Sine {
    /// `level_dbfs` is the RMS relative to full scale: -3 is the loudest sine.
    pub fn new(hz: f32, level_dbfs: f32) -> Self {
        let amplitude = (10.0_f32.powf(level_dbfs / 20.0) * std::f32::consts::SQRT_2).min(1.0);
        let step = hz.clamp(0.0, 20_000.0) * std::f32::consts::TAU / sample::count(u64::from(SAMPLE_RATE_HZ));
        Self { amplitude, step, phase: 0.0 }
    }

    /// The next sample.
    pub fn next_sample(&mut self) -> i16 {
        let value = self.phase.sin() * self.amplitude;
        self.phase = (self.phase + self.step) % std::f32::consts::TAU;
        sample::to_i16(value)
    }

    /// The next 20 ms.
    pub fn frame(&mut self) -> Frame {
        std::array::from_fn(|_| self.next_sample())
    }
}

/// Ringback of most of Europe: 425 Hz, 1 s on, 4 s off (ITU-T E.180).
#[derive(Debug, Clone)]
pub struct Ringback {
    sine: Sine,
    at: u32,
}

impl Default for Ringback {
    fn default() -> Self {
        Self { sine: Sine::new(425.0, -20.0), at: 0 }
    }
}

impl Ringback {
    /// The next 20 ms. The tone begins and ends within 5 ms, so that it does not click.
    pub fn frame(&mut self) -> Frame {
        const ON: u32 = SAMPLE_RATE_HZ;
        const PERIOD: u32 = 5 * SAMPLE_RATE_HZ;
        const RAMP: u32 = SAMPLE_RATE_HZ / 200;
        let mut frame = [0; FRAME_SAMPLES];
        for value in &mut frame {
            let gain = self.at.min(ON.saturating_sub(self.at)).min(RAMP);
            let tone = f32::from(self.sine.next_sample());
            *value = sample::round_i16(tone * sample::count(u64::from(gain)) / sample::count(u64::from(RAMP)));
            self.at = (self.at + 1) % PERIOD;
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_has_its_frequency_and_level_across_frames() {
        let mut sine = Sine::new(1_000.0, -20.0);
        let sound: Vec<i16> = (0..50).flat_map(|_| sine.frame()).collect();
        let crossings = sound.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((999..=1_000).contains(&crossings), "{crossings}");
        assert!((sample::level_dbfs(&sound) + 20.0).abs() < 0.05);
    }

    #[test]
    fn ringback_is_one_second_on_and_four_off() {
        let mut ringback = Ringback::default();
        let levels: Vec<bool> = (0..500).map(|_| sample::level_dbfs(&ringback.frame()) > -40.0).collect();
        assert_eq!(levels.iter().filter(|on| **on).count(), 100);
        assert!(levels[..50].iter().all(|on| *on) && levels[250..300].iter().all(|on| *on) && !levels[60]);
    }
}
