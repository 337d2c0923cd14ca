//! Recordings: what each call hears, as 48 kHz mono WAV, written by one thread so that a slow disk never stops a call.
//!
//! The header is brought up to date every second: a recording is readable even if the program is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::api::CallId;
use crate::core::{FRAME_SAMPLES, Frame};

/// Frames waiting for the disk: 40 s of one call. A disk that is slower than that has failed.
const FRAMES_MAX: usize = 2000;
/// Frames between two updates of the header.
const HEADER_EVERY: u32 = 50;
const RATE: u32 = 48_000;
const HEADER_BYTES: u32 = 44;

/// Where recordings go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordTo {
    /// The first call to this file, later ones beside it with their id in the name.
    File(PathBuf),
    /// Every call to `c2.wav`, `c4.wav`, … in this folder.
    Folder(PathBuf),
}

impl RecordTo {
    /// A path that is a folder gets one file per call.
    pub fn new(path: PathBuf) -> Self {
        if path.is_dir() { Self::Folder(path) } else { Self::File(path) }
    }
}

enum Job {
    Frame(CallId, Box<Frame>),
    End(CallId),
}

/// The writing thread's handle. Dropping it waits until everything is on disk.
#[derive(Debug)]
pub struct Recorder {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Recorder {
    /// Starts recording to `to`. A single file is created at once, so that a wrong path is known before the call.
    ///
    /// # Errors
    ///
    /// A sentence that names the file.
    pub fn start(to: RecordTo) -> Result<Self, String> {
        let (jobs, queue) = sync_channel(FRAMES_MAX);
        let failure = Arc::new(Mutex::new(None));
        let first = match &to {
            RecordTo::File(path) => Some(WavFile::create(path).map_err(|error| sentence(path, &error))?),
            RecordTo::Folder(_) => None,
        };
        let mut files = Files { to, first, open: BTreeMap::new(), failure: Arc::clone(&failure) };
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || files.run(&queue))
            .map_err(|error| format!("cannot start the recording thread: {error}"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), failure })
    }

    /// Appends what `call` hears.
    pub fn write(&self, call: CallId, frame: &Frame) {
        if let Some(jobs) = &self.jobs
            && let Err(TrySendError::Full(_)) = jobs.try_send(Job::Frame(call, Box::new(*frame)))
        {
            fail(&self.failure, "the disk is too slow to record to".to_owned());
        }
    }

    /// Completes the file of `call`.
    pub fn end(&self, call: CallId) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.try_send(Job::End(call));
        }
    }

    /// The first thing that went wrong, one sentence; stays readable after the recorder is gone.
    pub fn failure(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.failure)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn fail(failure: &Mutex<Option<String>>, text: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}

fn sentence(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull => "free some space or record elsewhere",
        io::ErrorKind::NotFound => "create the folder first",
        io::ErrorKind::PermissionDenied => "record where you may write",
        _ => "check the path",
    };
    format!("cannot write the recording {}: {error}; {advice}", path.display())
}

struct Files {
    to: RecordTo,
    first: Option<WavFile>,
    open: BTreeMap<CallId, (PathBuf, Option<WavFile>)>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Files {
    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Frame(call, frame) => self.append(call, &frame),
                Job::End(call) => {
                    if let Some((path, Some(file))) = self.open.remove(&call) {
                        self.finish(&path, file);
                    }
                }
            }
        }
        for (path, file) in std::mem::take(&mut self.open).into_values() {
            if let Some(file) = file {
                self.finish(&path, file);
            }
        }
    }

    fn append(&mut self, call: CallId, frame: &Frame) {
        let (path, file) = match self.open.entry(call) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let (path, file) = create(&self.to, call, &mut self.first);
                let file = file.map_err(|error| fail(&self.failure, sentence(&path, &error))).ok();
                entry.insert((path, file))
            }
        };
        if let Some(writer) = file
            && let Err(error) = writer.append(frame)
        {
            fail(&self.failure, sentence(path, &error));
            *file = None;
        }
    }

    fn finish(&self, path: &Path, mut file: WavFile) {
        if let Err(error) = file.write_header() {
            fail(&self.failure, sentence(path, &error));
        }
    }
}

fn create(to: &RecordTo, call: CallId, first: &mut Option<WavFile>) -> (PathBuf, io::Result<WavFile>) {
    let path = match (to, first.take()) {
        (RecordTo::File(path), Some(file)) => return (path.clone(), Ok(file)),
        (RecordTo::File(path), None) => {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            path.with_file_name(format!("{stem}-{call}.wav"))
        }
        (RecordTo::Folder(folder), _) => folder.join(format!("{call}.wav")),
    };
    let file = WavFile::create(&path);
    (path, file)
}

/// RIFF/WAVE, PCM, 16 bit, mono, 48 kHz.
#[derive(Debug)]
struct WavFile {
    file: BufWriter<File>,
    data_bytes: u32,
    until_header: u32,
}

impl WavFile {
    fn create(path: &Path) -> io::Result<Self> {
        let mut wav = Self { file: BufWriter::new(File::create(path)?), data_bytes: 0, until_header: HEADER_EVERY };
        wav.write_header()?;
        Ok(wav)
    }

    fn append(&mut self, frame: &[i16; FRAME_SAMPLES]) -> io::Result<()> {
        for sample in frame {
            self.file.write_all(&sample.to_le_bytes())?;
        }
        // 2^32 bytes are 12 hours; what comes after is in the file but not in its header.
        self.data_bytes = self.data_bytes.saturating_add(u32::try_from(2 * FRAME_SAMPLES).unwrap_or(0));
        self.until_header = self.until_header.saturating_sub(1);
        if self.until_header == 0 {
            self.until_header = HEADER_EVERY;
            self.write_header()?;
        }
        Ok(())
    }

    fn write_header(&mut self) -> io::Result<()> {
        let mut header = Vec::new();
        header.extend(b"RIFF");
        header.extend(self.data_bytes.saturating_add(HEADER_BYTES - 8).to_le_bytes());
        header.extend(b"WAVEfmt ");
        header.extend(16u32.to_le_bytes());
        header.extend(1u16.to_le_bytes()); // PCM
        header.extend(1u16.to_le_bytes()); // mono
        header.extend(RATE.to_le_bytes());
        header.extend((RATE * 2).to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(16u16.to_le_bytes());
        header.extend(b"data");
        header.extend(self.data_bytes.to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.flush()
    }
}

#[cfg(test)]
mod record_tests {
    use super::*;

    #[test]
    fn a_recording_holds_every_frame_and_a_second_call_gets_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.wav");
        let recorder = Recorder::start(RecordTo::new(path.clone())).unwrap();
        for value in 0..120 {
            recorder.write(CallId(2), &[value; FRAME_SAMPLES]);
        }
        recorder.end(CallId(2));
        recorder.write(CallId(4), &[9; FRAME_SAMPLES]);
        drop(recorder);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 44 + 120 * 1920);
        assert_eq!(&bytes[40..44], &(120u32 * 1920).to_le_bytes());
        assert_eq!(&bytes[bytes.len() - 2..], &119i16.to_le_bytes());
        assert_eq!(std::fs::metadata(folder.path().join("b-c4.wav")).unwrap().len(), 44 + 1920);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_known_before_the_call() {
        let error = Recorder::start(RecordTo::new("/nowhere/b.wav".into())).unwrap_err();
        assert_eq!(
            error,
            "cannot write the recording /nowhere/b.wav: No such file or directory (os error 2); create the folder first"
        );
    }

    #[test]
    fn a_full_disk_is_reported_once_and_the_call_goes_on() {
        let full = Path::new("/dev/full");
        let started = Recorder::start(RecordTo::File(full.to_owned()));
        let error = match started {
            Err(error) => error,
            Ok(recorder) => {
                let failure = recorder.failure();
                recorder.write(CallId(1), &[1; FRAME_SAMPLES]);
                drop(recorder);
                failure.lock().unwrap().clone().unwrap()
            }
        };
        assert!(error.contains("No space left on device"), "{error}");
    }
}
