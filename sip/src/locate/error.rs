//! Why no server was found, with the evidence.

use std::fmt;

use super::{Answer, Asked, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocateErrorKind {
    /// DNS could not be asked. Nothing is known about the domain, so nothing else is tried in its place.
    DnsFailed,
    /// The domain has neither SRV records nor an address.
    NoAddress,
    /// The domain says that it has no SIP service (SRV target `.`).
    NotOffered,
    /// Servers were found, none could be reached.
    AllFailed,
}

/// Complete in itself: its text names what was asked or tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateError {
    pub kind: LocateErrorKind,
    /// The domain or server that was looked for.
    pub domain: String,
    pub asked: Vec<Asked>,
    /// The targets in the order they failed, with their causes.
    pub tried: Vec<(Target, String)>,
}

impl std::error::Error for LocateError {}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = &self.domain;
        match self.kind {
            LocateErrorKind::DnsFailed => {
                let failed = |asked: &&Asked| matches!(asked.answer, Some(Answer::Failed(_)));
                let cause = self.asked.iter().find_map(|asked| match &asked.answer {
                    Some(Answer::Failed(cause)) => Some(cause.as_str()),
                    Some(_) | None => None,
                });
                let names = list(self.asked.iter().filter(failed));
                write!(f, "DNS gave no answer for {domain} ({}; asked: {names})", cause.unwrap_or("no cause"))
            }
            LocateErrorKind::NoAddress => {
                write!(f, "no server for {domain} in DNS: none of {} exists", list(self.asked.iter()))
            }
            LocateErrorKind::NotOffered => write!(f, "{domain} says in DNS that it offers no SIP service"),
            LocateErrorKind::AllFailed => {
                write!(f, "no server of {domain} could be reached: ")?;
                for (position, (target, cause)) in self.tried.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(
                        f,
                        "{separator}{} ({}, {}): {cause}",
                        target.address,
                        target.host,
                        target.transport.via_name()
                    )?;
                }
                Ok(())
            }
        }
    }
}

fn list<'a>(asked: impl Iterator<Item = &'a Asked>) -> String {
    asked.map(|asked| format!("{} {}", asked.kind, asked.name)).collect::<Vec<_>>().join(", ")
}
