//! Why something was refused, failed or ended: typed, complete in itself, and a sentence that says what failed,
//! where, and what to do.

use serde::{Deserialize, Serialize};

use super::{AccountId, CallId, IceReport};

/// A command that makes no sense now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "error")]
pub enum CommandError {
    #[error("there is no call {call}")]
    UnknownCall { call: CallId },
    #[error("there is no such account")]
    UnknownAccount,
    #[error("account {account} exists already; remove it first, its calls end with it")]
    AccountExists { account: AccountId },
    #[error("call {call} exists already")]
    CallExists { call: CallId },
    #[error("call {call} is {state}: {needed}")]
    WrongState { call: CallId, state: String, needed: String },
    #[error("{target:?} is not an address that can be called: {problem}")]
    BadTarget { target: String, problem: String },
    #[error("{digits:?} holds something other than 0-9, *, #, A-D")]
    BadDigits { digits: String },
    #[error("{limit} calls are running already; hang one up first")]
    TooManyCalls { limit: u32 },
}

/// Why a registration did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "error")]
pub enum RegistrationError {
    #[error("no name server answered for {domain}; check the network or set dns")]
    NoNameServer { domain: String },
    #[error("DNS knows no SIP server for {domain} (asked: {asked}); check the domain or set edge", asked = asked.join(", "))]
    NoServer { domain: String, asked: Vec<String> },
    #[error("cannot connect to {server}: {cause}; check that the server runs and the port is open")]
    CannotConnect { server: String, cause: String },
    #[error("the certificate of {server} was refused: {cause}; check tls.ca and the server's name")]
    Certificate { server: String, cause: String },
    #[error("{server} did not answer within {waited_s} s; check the server")]
    NoAnswer { server: String, waited_s: u64 },
    #[error("{server} refused the password of {user} ({status}); check auth-user and the password")]
    Credentials { server: String, user: String, status: u16 },
    #[error("{server} refused to register {aor}: {status} {phrase}; ask whoever runs the server")]
    Refused { server: String, aor: String, status: u16, phrase: String },
}

/// Why a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum EndReason {
    #[error("we hung up")]
    LocalHangup,
    #[error("the other side hung up")]
    RemoteHangup,
    /// An incoming call that its caller gave up.
    #[error("the caller gave up")]
    Cancelled,
    /// An incoming call that another endpoint of ours answered.
    #[error("answered elsewhere")]
    AnsweredElsewhere,
    /// An incoming call we refused.
    #[error("we refused the call ({status})")]
    Declined { status: u16 },
    #[error("{target} is busy ({status} {phrase}); try again later")]
    Busy { target: String, status: u16, phrase: String },
    #[error("{target} did not answer within {waited_s} s; try again later")]
    NoAnswer { target: String, waited_s: u64 },
    #[error("{target} is not known there ({status} {phrase}); check the address")]
    UnknownUser { target: String, status: u16, phrase: String },
    #[error("the call to {target} was refused: {status} {phrase}; ask the other side")]
    Rejected { target: String, status: u16, phrase: String },
    #[error("the password was refused for the call to {target} ({status})")]
    Credentials { target: String, status: u16 },
    #[error("{target} cannot be reached: {cause}; check the address and the network")]
    Unreachable { target: String, cause: String },
    /// No pair of candidates worked (RFC 8445 §8.1.2).
    #[error("no media path: none of {pairs} pairs worked; {advice}", pairs = report.pairs.len())]
    NoPath { report: Box<IceReport>, advice: String },
    /// Media had a path and lost it (RFC 7675 §5.1).
    #[error("the media path was lost and could not be repaired")]
    PathLost { report: Box<IceReport> },
    #[error("no relay can be used, but the policy allows nothing else: {cause}; try --path all, or check the relay")]
    NoRelay { cause: String, report: Box<IceReport> },
    #[error("nothing in common to talk with: {problem}; check srtp and the codecs of both sides")]
    NotAcceptable { problem: String },
    #[error("the session timer ran out (RFC 4028 §10): the peer is gone")]
    SessionExpired,
    #[error("the signalling connection was lost: {cause}")]
    SignallingLost { cause: String },
    #[error("internal error: {what}")]
    Internal { what: String },
}
