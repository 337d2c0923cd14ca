//! One connectivity check, RFC 8445 §7.2.

use std::fmt;

/// Why a pair failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFailure {
    /// No response within the time of the transaction.
    NoAnswer,
    /// The response came from another address than the request went to (RFC 8445 §7.2.5.2.1).
    Asymmetric,
    /// An error response other than 487.
    Status(u16),
    /// It works, but the policy forbids its local side.
    Policy,
    /// The relay did not permit the peer's address (RFC 8656 §9).
    Permission,
    /// The relay or socket under it is gone.
    BaseLost,
    /// Valid once, but consent ran out (RFC 7675 §5.1).
    ConsentLost,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer"),
            Self::Asymmetric => f.write_str("answered from another address"),
            Self::Status(code) => write!(f, "refused with {code}"),
            Self::Policy => f.write_str("works, but the path policy forbids it"),
            Self::Permission => f.write_str("the relay does not permit this peer"),
            Self::BaseLost => f.write_str("its socket or relay is gone"),
            Self::ConsentLost => f.write_str("consent ran out"),
        }
    }
}
