//! Logs: tracing to the standard error stream or a file, with the time since the start, and without secrets.
//!
//! Cores never log secrets (their types print `***`). As a second line of defence every line passes [`redact`], which
//! knows what secrets look like on the wire.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::uptime;

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo<'a> {
    /// The standard error stream.
    Stderr,
    /// Appended to a file that only its owner may read.
    File(&'a Path),
    /// Nowhere: the screen is up and no file was named.
    Nowhere,
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A mistake on the command line.
    #[error("--log-filter {directives:?} makes no sense: {cause}; write for example \"ice=trace,sip=debug\"")]
    Filter {
        /// What was given.
        directives: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The file cannot be written.
    #[error("cannot write --log-file {path}: {cause}; name a file where you may write")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        cause: String,
    },
}

/// Starts logging; the first call in a process wins.
///
/// # Errors
///
/// [`LogError`]: the filter makes no sense, or the file cannot be written.
pub fn start(verbose: u8, filter: Option<&str>, to: LogTo<'_>) -> Result<(), LogError> {
    let directives = filter.map_or_else(|| by_verbosity(verbose).to_owned(), ToOwned::to_owned);
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| LogError::Filter { directives: directives.clone(), cause: error.to_string() })?;
    let target: Target = match to {
        LogTo::Nowhere => return Ok(()),
        LogTo::Stderr => crate::cli::print::errors(),
        LogTo::File(path) => {
            let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            let failed =
                |error: io::Error| LogError::File { path: path.display().to_string(), cause: error.to_string() };
            Box::new(open.map_err(failed)?)
        }
    };
    let colour =
        to == LogTo::Stderr && io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(uptime())
        .with_ansi(colour)
        .with_writer(Redacting(Arc::new(Mutex::new(target))))
        .try_init();
    Ok(())
}

fn by_verbosity(verbose: u8) -> &'static str {
    // A certificate that is not accepted is reported by whoever connects, in one sentence.
    match verbose {
        0 => "error,rustls_platform_verifier=off",
        1 => "warn,rustls_platform_verifier=off,client=info,sip=info,ice=info,media=info,tui=info",
        2 => "warn,client=debug,sip=debug,ice=debug,media=debug,tui=debug",
        3.. => "info,client=trace,sip=trace,ice=trace,media=trace,tui=trace",
    }
}

type Target = Box<dyn Write + Send>;

#[derive(Clone)]
struct Redacting(Arc<Mutex<Target>>);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Redacting {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        target.write_all(redact(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// A text, and whether a character belongs to the secret behind it.
type Mark = (&'static str, fn(char) -> bool);

/// What stands before a secret, and the characters of which the secret is made.
const MARKS: [Mark; 6] = [
    // RFC 4568 §9.2: key and salt.
    ("inline:", is_base64),
    // RFC 8839 §5.4.
    ("ice-pwd:", is_base64),
    // [MS-AVEDGEA]: relay credentials.
    ("<password>", |c| c != '<'),
    // RFC 3261 §22.4: a digest is not the password, but it can be tried offline.
    ("response=\"", |c| c != '"'),
    ("nextnonce=\"", |c| c != '"'),
    ("password=", |c| !c.is_whitespace() && c != ',' && c != '&'),
];

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=".contains(c)
}

/// The line with everything that looks like a secret replaced by `***`.
pub fn redact(line: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(line);
    for (mark, of_secret) in MARKS {
        if clean.contains(mark) {
            clean = Cow::Owned(hide(&clean, mark, of_secret));
        }
    }
    clean
}

fn hide(line: &str, mark: &str, of_secret: fn(char) -> bool) -> String {
    let mut parts = line.split(mark);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str(mark);
        clean.push_str("***");
        // What is hidden already stays as it is.
        clean.push_str(part.trim_start_matches("***").trim_start_matches(of_secret));
    }
    clean
}

#[cfg(test)]
mod logging_tests {
    use super::*;

    #[test]
    fn a_filter_without_sense_and_a_file_that_cannot_be_written_are_told_apart() {
        let nowhere = tempfile::tempdir().unwrap().path().join("none/log");
        assert!(matches!(start(0, Some("a=b=c"), LogTo::Stderr), Err(LogError::Filter { .. })));
        assert!(matches!(start(0, None, LogTo::File(&nowhere)), Err(LogError::File { .. })));
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_of_the_line_stays() {
        let cases = [
            (
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^31",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:***|2^31",
            ),
            ("a=ice-pwd:YH75Fviy6338Vbrhrlp8Yh\\r\\na=x", "a=ice-pwd:***\\r\\na=x"),
            ("<username>u</username><password>abc=</password>", "<username>u</username><password>***</password>"),
            ("Digest username=\"bob\", response=\"66\", nc=1", "Digest username=\"bob\", response=\"***\", nc=1"),
            ("a=ice-pwd:***", "a=ice-pwd:***"),
            ("nothing to hide", "nothing to hide"),
        ];
        for (line, want) in cases {
            assert_eq!(redact(line), want);
        }
    }
}
