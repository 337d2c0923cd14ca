//! CSeq (RFC 3261 §20.16), RSeq and RAck (RFC 3262 §7).

use std::fmt;
use std::str::FromStr;

use super::syntax;
use crate::error::ParseError;
use crate::message::Method;

/// `number method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    pub method: Method,
}

impl CSeq {
    pub fn new(number: u32, method: Method) -> Self {
        Self { number, method }
    }
}

impl FromStr for CSeq {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (number, method) =
            text.trim().split_once([' ', '\t']).ok_or_else(|| ParseError::bad("CSeq is not a number and a method"))?;
        let number = syntax::number::<u32>(number).ok().filter(|n| *n < 1 << 31);
        let number = number.ok_or_else(|| ParseError::bad("CSeq number is not below 2^31"))?;
        Ok(Self { number, method: method.trim().parse()? })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// Which reliable provisional response a PRACK acknowledges: RSeq and CSeq of that response (RFC 3262 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    pub rseq: u32,
    pub cseq: CSeq,
}

impl FromStr for RAck {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (rseq, cseq) = text
            .trim()
            .split_once([' ', '\t'])
            .ok_or_else(|| ParseError::bad("RAck is not two numbers and a method"))?;
        Ok(Self { rseq: syntax::number(rseq)?, cseq: cseq.parse()? })
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rseq, self.cseq)
    }
}
