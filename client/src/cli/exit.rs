//! Exit codes: stable, documented, one per outcome, so that scripts and CI need not read text.

use crate::api::{CommandError, EndReason, RegistrationError};

/// How a run ended, as the shell sees it. Below 126, because the shell owns the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// All went well.
    Success = 0,
    /// A fault of icephone itself.
    Internal = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Configuration, secret, or a file: unreadable WAV, full disk.
    Config = 3,
    /// DNS: no server answered, or no such name.
    Dns = 10,
    /// TLS: certificate not accepted.
    Tls = 11,
    /// Cannot connect.
    Connect = 12,
    /// Password refused.
    Credentials = 13,
    /// Registration refused for another reason.
    Registration = 14,
    /// A relay is needed and none is offered.
    NoRelay = 20,
    /// A relay is needed and none could be used.
    RelayRefused = 21,
    /// The call was refused.
    Refused = 30,
    /// The callee is busy.
    Busy = 31,
    /// Nobody answered.
    NoAnswer = 32,
    /// The call was given up before it was answered.
    Cancelled = 33,
    /// No pair of candidates worked.
    NoPath = 40,
    /// The path is not the one that was asked for.
    WrongPath = 41,
    /// One-way or no sound.
    NoMedia = 42,
    /// Quality below the threshold.
    Quality = 43,
    /// What was heard is not what was expected.
    Content = 44,
    /// The path was lost during the call.
    PathLost = 45,
    /// A sound card that was asked for does not work.
    Device = 50,
    /// Time ran out.
    Timeout = 124,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl ExitCode {
    /// All codes with their meaning, for the help text and the tests.
    pub const TABLE: [(Self, &'static str); 23] = [
        (Self::Success, "all went well"),
        (Self::Internal, "a fault of icephone itself"),
        (Self::Usage, "the command line makes no sense"),
        (Self::Config, "configuration, secret, unreadable WAV, full disk"),
        (Self::Dns, "DNS: no server answered, or no such name"),
        (Self::Tls, "TLS: certificate not accepted"),
        (Self::Connect, "cannot connect"),
        (Self::Credentials, "password refused"),
        (Self::Registration, "registration refused"),
        (Self::NoRelay, "a relay is needed and none is offered"),
        (Self::RelayRefused, "a relay is needed and none could be used"),
        (Self::Refused, "the call was refused"),
        (Self::Busy, "busy"),
        (Self::NoAnswer, "nobody answered"),
        (Self::Cancelled, "given up before it was answered"),
        (Self::NoPath, "no media path: all checks failed"),
        (Self::WrongPath, "the path is not the one asked for"),
        (Self::NoMedia, "one-way or no sound"),
        (Self::Quality, "quality below the threshold"),
        (Self::Content, "content is not what was expected"),
        (Self::PathLost, "the path was lost during the call"),
        (Self::Device, "sound card"),
        (Self::Interrupted, "interrupted"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Dns => 10,
            Self::Tls => 11,
            Self::Connect => 12,
            Self::Credentials => 13,
            Self::Registration => 14,
            Self::NoRelay => 20,
            Self::RelayRefused => 21,
            Self::Refused => 30,
            Self::Busy => 31,
            Self::NoAnswer => 32,
            Self::Cancelled => 33,
            Self::NoPath => 40,
            Self::WrongPath => 41,
            Self::NoMedia => 42,
            Self::Quality => 43,
            Self::Content => 44,
            Self::PathLost => 45,
            Self::Device => 50,
            Self::Timeout => 124,
            Self::Interrupted => 130,
        }
    }

    /// Why a registration did not come about.
    pub fn of_registration(error: &RegistrationError) -> Self {
        match error {
            RegistrationError::NoNameServer { .. } | RegistrationError::NoServer { .. } => Self::Dns,
            RegistrationError::Certificate { .. } => Self::Tls,
            RegistrationError::CannotConnect { .. } | RegistrationError::NoAnswer { .. } => Self::Connect,
            RegistrationError::Credentials { .. } => Self::Credentials,
            RegistrationError::Refused { .. } => Self::Registration,
        }
    }

    /// Why a call ended; `both_ways`: sound was sent and received.
    pub fn of_call(reason: &EndReason, both_ways: bool) -> Self {
        match reason {
            EndReason::LocalHangup | EndReason::RemoteHangup if both_ways => Self::Success,
            EndReason::LocalHangup | EndReason::RemoteHangup => Self::NoMedia,
            EndReason::Cancelled | EndReason::AnsweredElsewhere | EndReason::Declined { .. } => Self::Cancelled,
            EndReason::Busy { .. } => Self::Busy,
            EndReason::NoAnswer { .. } => Self::NoAnswer,
            EndReason::UnknownUser { .. } | EndReason::Rejected { .. } | EndReason::NotAcceptable { .. } => {
                Self::Refused
            }
            EndReason::Credentials { .. } => Self::Credentials,
            EndReason::Unreachable { cause, .. } => Self::of_unreachable(cause),
            EndReason::NoPath { .. } => Self::NoPath,
            EndReason::PathLost { .. } | EndReason::SessionExpired => Self::PathLost,
            EndReason::NoRelay { report, .. } if report.servers.is_empty() => Self::NoRelay,
            EndReason::NoRelay { .. } => Self::RelayRefused,
            EndReason::SignallingLost { .. } => Self::Connect,
            EndReason::Internal { .. } => Self::Internal,
        }
    }

    /// Why a command was refused.
    pub fn of_command(error: &CommandError) -> Self {
        match error {
            CommandError::BadTarget { .. } | CommandError::BadDigits { .. } => Self::Usage,
            CommandError::UnknownCall { .. }
            | CommandError::UnknownAccount
            | CommandError::AccountExists { .. }
            | CommandError::CallExists { .. }
            | CommandError::WrongState { .. }
            | CommandError::TooManyCalls { .. } => Self::Internal,
        }
    }

    /// A target that cannot be reached is a matter of DNS, of TLS or of the connection; the cause says which.
    fn of_unreachable(cause: &str) -> Self {
        if cause.contains("DNS") || cause.contains("name server") || cause.contains("no such name") {
            Self::Dns
        } else if cause.contains("certificate") {
            Self::Tls
        } else {
            Self::Connect
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

#[cfg(test)]
mod exit_tests {
    use super::*;
    use crate::api::IceReport;

    #[test]
    fn every_code_is_listed_once_in_order_with_the_number_of_its_name() {
        let numbers: Vec<u8> = ExitCode::TABLE.iter().map(|(code, _)| code.code()).collect();
        let want = [0, 1, 2, 3, 10, 11, 12, 13, 14, 20, 21, 30, 31, 32, 33, 40, 41, 42, 43, 44, 45, 50, 130];
        assert_eq!(numbers, want);
    }

    #[test]
    fn every_end_of_a_call_has_its_code() {
        let target = || "sip:bob@example.test".to_owned();
        let phrase = String::new;
        let report = Box::<IceReport>::default;
        let mut tried = report();
        tried.servers.push(crate::api::ServerOutcome {
            server: "192.0.2.1:3478".to_owned(),
            transport: crate::api::RelayTransport::Udp,
            failure: None,
            took_ms: 1,
        });
        let cases = [
            (EndReason::LocalHangup, 0),
            (EndReason::RemoteHangup, 0),
            (EndReason::Cancelled, 33),
            (EndReason::AnsweredElsewhere, 33),
            (EndReason::Declined { status: 486 }, 33),
            (EndReason::Busy { target: target(), status: 486, phrase: phrase() }, 31),
            (EndReason::NoAnswer { target: target(), waited_s: 60 }, 32),
            (EndReason::UnknownUser { target: target(), status: 404, phrase: phrase() }, 30),
            (EndReason::Rejected { target: target(), status: 603, phrase: phrase() }, 30),
            (EndReason::Credentials { target: target(), status: 407 }, 13),
            (EndReason::Unreachable { target: target(), cause: "connection refused".to_owned() }, 12),
            (EndReason::Unreachable { target: target(), cause: "no DNS server answered".to_owned() }, 10),
            (EndReason::Unreachable { target: target(), cause: "certificate refused: expired".to_owned() }, 11),
            (EndReason::NoPath { report: report(), advice: phrase() }, 40),
            (EndReason::PathLost { report: report() }, 45),
            (EndReason::NoRelay { cause: phrase(), report: report() }, 20),
            (EndReason::NoRelay { cause: phrase(), report: tried }, 21),
            (EndReason::NotAcceptable { problem: phrase() }, 30),
            (EndReason::SessionExpired, 45),
            (EndReason::SignallingLost { cause: phrase() }, 12),
            (EndReason::Internal { what: phrase() }, 1),
        ];
        for (reason, code) in cases {
            assert_eq!(ExitCode::of_call(&reason, true).code(), code, "{reason:?}");
        }
        assert_eq!(ExitCode::of_call(&EndReason::RemoteHangup, false).code(), 42);
    }

    #[test]
    fn every_failed_registration_has_its_code() {
        let (server, domain, cause) = (|| "s".to_owned(), || "d".to_owned(), || "c".to_owned());
        let cases = [
            (RegistrationError::NoNameServer { domain: domain() }, 10),
            (RegistrationError::NoServer { domain: domain(), asked: Vec::new() }, 10),
            (RegistrationError::CannotConnect { server: server(), cause: cause() }, 12),
            (RegistrationError::Certificate { server: server(), cause: cause() }, 11),
            (RegistrationError::NoAnswer { server: server(), waited_s: 5 }, 12),
            (RegistrationError::Credentials { server: server(), user: "u".to_owned(), status: 401 }, 13),
            (RegistrationError::Refused { server: server(), aor: "a".to_owned(), status: 404, phrase: cause() }, 14),
        ];
        for (error, code) in cases {
            assert_eq!(ExitCode::of_registration(&error).code(), code, "{error}");
        }
    }
}
