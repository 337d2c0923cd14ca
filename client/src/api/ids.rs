//! Identities, chosen by the caller so that no command needs a reply.

use serde::{Deserialize, Serialize};

/// One account, numbered by whoever adds it; prints as `acc1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub u32);

/// One call: odd numbers are chosen by the user interface, even ones by the engine for incoming calls
/// (the division of RFC 9113 §5.1.1, so that both sides can count without asking). Prints as `c3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl CallId {
    /// Whether the user interface chose this id (the call is an outgoing one).
    pub fn is_callers(self) -> bool {
        self.0 % 2 == 1
    }
}

impl std::fmt::Display for AccountId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "acc{}", self.0)
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}", self.0)
    }
}
