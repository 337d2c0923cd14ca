//! Between calls and sound cards: opens the cards while there is a call, mixes what the calls play, hands the
//! microphone to each of them, and records.
//!
//! Cards open on a thread of their own (it may take a second) and close when the last call ends. Without a card the
//! call goes on: it hears nothing and sends silence on the session's clock (the null device), and a notice says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use media::audio::device::{self, DeviceError, DeviceInfo, DeviceOptions, Devices};
use tokio::sync::Notify;

use super::clock;
use super::record::Recorder;
use super::ringer::Ringer;
use crate::api::{CallChange, CallId, CallState, Direction};
use crate::core::{FRAME_SAMPLES, Frame};

/// Frames of one call waiting to be mixed: 80 ms, then the oldest go.
const MIX_MAX: usize = 4;

/// Whether sound cards are used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SoundChoice {
    /// Never: bots and tests.
    #[default]
    Null,
    /// While there is a call; `None` is the system's default card.
    Cards {
        /// Part of the input's name.
        input: Option<String>,
        /// Part of the output's name.
        output: Option<String>,
        /// The microphone is a file or a tune: only the output opens.
        output_only: bool,
    },
}

type Opening = mpsc::Receiver<Result<Devices, DeviceError>>;

/// The sound of one engine.
#[derive(Debug)]
pub struct Sound {
    choice: SoundChoice,
    devices: Option<Devices>,
    opening: Option<Opening>,
    wake: Arc<Notify>,
    calls: BTreeMap<CallId, VecDeque<Frame>>,
    heard: VecDeque<(CallId, Frame)>,
    ringer: Ringer,
    recorder: Option<Recorder>,
    recording_failure: Arc<Mutex<Option<String>>>,
    recording_failure_told: bool,
    notices: Vec<String>,
    null_told: bool,
}

impl Sound {
    /// No card is opened before the first call.
    pub fn new(choice: SoundChoice, recorder: Option<Recorder>) -> Self {
        let recording_failure = recorder.as_ref().map(Recorder::failure).unwrap_or_default();
        Self {
            choice,
            devices: None,
            opening: None,
            wake: Arc::new(Notify::new()),
            calls: BTreeMap::new(),
            heard: VecDeque::new(),
            ringer: Ringer::new(),
            recorder,
            recording_failure,
            recording_failure_told: false,
            notices: Vec::new(),
            null_told: false,
        }
    }

    /// Resolves when the microphone has something, or a card has opened.
    pub fn woken(&self) -> impl Future<Output = ()> + use<> {
        let wake = Arc::clone(&self.wake);
        async move { wake.notified().await }
    }

    /// When the next frame of ringing is due. All else needs no clock here: cards wake the loop, and without cards
    /// sessions keep their own time.
    pub fn deadline(&self) -> Option<Instant> {
        self.loudspeaker_is_open().then(|| self.ringer.deadline()).flatten()
    }

    fn loudspeaker_is_open(&self) -> bool {
        self.devices.as_ref().is_some_and(|devices| devices.loudspeaker.is_some())
    }

    /// Plays the ringing that is due.
    pub fn ring(&mut self, now: Instant) {
        while let Some((call, frame)) = self.ringer.next_frame(now) {
            self.queue(call, &frame);
        }
    }

    /// Follows the calls: cards are open exactly while there is one.
    pub fn follow(&mut self, call: CallId, change: &CallChange) {
        self.ringer.follow(clock::now(), call, change);
        match change {
            CallChange::Created { direction: Direction::Outgoing, .. }
            | CallChange::State { state: CallState::EarlyMedia | CallState::Ringing | CallState::Talking } => {
                self.calls.entry(call).or_default();
                self.open();
            }
            CallChange::Ended { .. } => {
                self.calls.remove(&call);
                if let Some(recorder) = &self.recorder {
                    recorder.end(call);
                }
                if self.calls.is_empty() {
                    self.devices = None;
                    self.opening = None;
                }
            }
            _ => {}
        }
    }

    /// Plays and records 20 ms of one call.
    pub fn play(&mut self, _now: Instant, call: CallId, frame: &Frame) {
        if let Some(recorder) = &self.recorder {
            recorder.write(call, frame);
        }
        self.queue(call, frame);
    }

    fn queue(&mut self, call: CallId, frame: &Frame) {
        let Some(writer) = self.devices.as_mut().and_then(|devices| devices.loudspeaker.as_mut()) else {
            return;
        };
        let Some(queue) = self.calls.get_mut(&call) else { return };
        queue.push_back(*frame);
        if queue.len() > MIX_MAX {
            queue.pop_front();
        }
        // Each call plays once in 20 ms: when one is a frame ahead, the others have had their turn.
        let ahead = queue.len() > 1;
        if ahead || self.calls.values().all(|queue| !queue.is_empty()) {
            let frames: Vec<Frame> = self.calls.values_mut().filter_map(VecDeque::pop_front).collect();
            writer.write(&mix(&frames));
        }
    }

    /// The next microphone frame and the call it is for.
    pub fn next_frame(&mut self, _now: Instant) -> Option<(CallId, Frame)> {
        self.finish_opening();
        if self.heard.is_empty() {
            let frame = self.devices.as_mut()?.microphone.as_mut()?.next_frame()?;
            self.heard.extend(self.calls.keys().map(|call| (*call, frame)));
        }
        self.heard.pop_front()
    }

    /// Other cards from now on; says why not if the engine was told to use none.
    pub fn use_devices(&mut self, input: Option<String>, output: Option<String>) -> Option<String> {
        let SoundChoice::Cards { output_only, .. } = self.choice else {
            return Some("sound cards are not used by this engine".to_owned());
        };
        self.choice = SoundChoice::Cards { input, output, output_only };
        self.devices = None;
        self.opening = None;
        if !self.calls.is_empty() {
            self.open();
        }
        None
    }

    /// What the user should read, once.
    pub fn take_notices(&mut self) -> Vec<String> {
        let faults: Vec<String> =
            self.devices.as_ref().map(|devices| devices.faults.try_iter().collect()).unwrap_or_default();
        self.notices.extend(faults);
        if !self.recording_failure_told
            && let Ok(failure) = self.recording_failure.lock()
            && let Some(text) = &*failure
        {
            self.recording_failure_told = true;
            self.notices.push(text.clone());
        }
        std::mem::take(&mut self.notices)
    }

    /// Closes the cards and completes the recordings.
    pub fn close(&mut self) {
        self.devices = None;
        self.opening = None;
        self.recorder = None;
    }

    fn open(&mut self) {
        let SoundChoice::Cards { input, output, output_only } = &self.choice else { return };
        if self.devices.is_some() || self.opening.is_some() || self.null_told {
            return;
        }
        let (done, opening) = mpsc::channel();
        let wake = Arc::clone(&self.wake);
        let waker = Arc::clone(&self.wake);
        let options = DeviceOptions {
            input: input.clone(),
            output: output.clone(),
            output_only: *output_only,
            wake: Arc::new(move || waker.notify_one()),
        };
        tokio::task::spawn_blocking(move || {
            let _ = done.send(quietly(|| device::open(&options)));
            wake.notify_one();
        });
        self.opening = Some(opening);
    }

    fn finish_opening(&mut self) {
        let Some(outcome) = self.opening.as_ref().and_then(|opening| opening.try_recv().ok()) else {
            return;
        };
        self.opening = None;
        match outcome {
            Ok(devices) => {
                self.notices.push(format!("sound: {}; use a headset, echo is not cancelled", devices.description));
                self.devices = Some(devices);
            }
            Err(error) => {
                // Said once: the next call would only say the same.
                self.null_told = true;
                let has_microphone = !matches!(self.choice, SoundChoice::Cards { output_only: true, .. });
                let silence = if has_microphone { "; silence is sent" } else { "" };
                self.notices.push(format!("{error}{silence}"));
            }
        }
    }
}

fn mix(frames: &[Frame]) -> Frame {
    let mut mixed = [0i16; FRAME_SAMPLES];
    for frame in frames {
        for (sum, sample) in mixed.iter_mut().zip(frame) {
            *sum = sum.saturating_add(*sample);
        }
    }
    mixed
}

/// All sound cards, the default ones first.
///
/// # Errors
///
/// [`DeviceError`]: there is no sound system, or it was not built in.
pub fn list_devices() -> Result<Vec<DeviceInfo>, DeviceError> {
    quietly(device::list)
}

/// Runs `work` with the standard error stream pointing nowhere: ALSA writes there while it looks for cards, straight
/// into whatever is on the screen.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    // One at a time: a second one would take "nowhere" for the stream to restore.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let saved = nix::unistd::dup(std::io::stderr());
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null");
    let (Ok(saved), Ok(nowhere)) = (saved, nowhere) else {
        return work();
    };
    let redirected = nix::unistd::dup2_stderr(&nowhere).is_ok();
    let outcome = work();
    if redirected {
        let _ = nix::unistd::dup2_stderr(&saved);
    }
    outcome
}

#[cfg(test)]
mod sound_tests {
    use super::*;

    #[test]
    fn several_calls_are_added_and_loud_ones_do_not_wrap() {
        let quiet = [100; FRAME_SAMPLES];
        let loud = [32_700; FRAME_SAMPLES];
        assert_eq!(mix(&[quiet, quiet]), [200; FRAME_SAMPLES]);
        assert_eq!(mix(&[loud, loud]), [i16::MAX; FRAME_SAMPLES]);
        assert_eq!(mix(&[]), [0; FRAME_SAMPLES]);
    }

    #[tokio::test]
    async fn without_cards_nothing_opens_and_devices_cannot_be_chosen() {
        let mut sound = Sound::new(SoundChoice::Null, None);
        sound.follow(CallId(1), &CallChange::State { state: CallState::Talking });
        assert!(sound.opening.is_none());
        assert!(sound.use_devices(None, None).is_some());
    }
}
