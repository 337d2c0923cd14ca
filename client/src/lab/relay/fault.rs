//! Misbehaviour on purpose: what a client must survive, and the diagnosis must name.

use std::net::SocketAddr;

use ice::stun::Method;

/// Faults waiting to be used up; tests inject a handful.
const FAULTS_MAX: usize = 64;

/// The next requests of a method are answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub method: Method,
    /// STUN error code, 300..=699. 438 comes with a fresh nonce.
    pub code: u16,
    /// How many requests; `u32::MAX` = all.
    pub times: u32,
    /// ALTERNATE-SERVER of a 300, which is given before authentication as servers do.
    pub alternate: Option<SocketAddr>,
}

impl Fault {
    /// An error to every request of this method.
    pub fn always(method: Method, code: u16) -> Self {
        Self { method, code, times: u32::MAX, alternate: None }
    }

    /// An error to the next request of this method.
    pub fn once(method: Method, code: u16) -> Self {
        Self { times: 1, ..Self::always(method, code) }
    }

    /// 300 to every Allocate.
    pub fn redirect(to: SocketAddr) -> Self {
        Self { alternate: Some(to), ..Self::always(Method::ALLOCATE, 300) }
    }
}

/// How the server misbehaves.
#[derive(Debug, Default)]
pub struct Faults {
    /// Reads and never answers; nothing is relayed either.
    pub is_mute: bool,
    /// Answers requests, but relays nothing.
    pub is_blackhole: bool,
    errors: Vec<Fault>,
}

impl Faults {
    /// Adds errors to come.
    pub fn inject(&mut self, fault: Fault) {
        if self.errors.len() < FAULTS_MAX {
            self.errors.push(fault);
        }
    }

    /// Behave from now on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The error that this request meets; `is_admitted` tells whether its credentials were seen and good.
    pub(super) fn strike(&mut self, method: Method, is_admitted: bool) -> Option<Fault> {
        let is_meant = |fault: &Fault| fault.method == method && (fault.code != 300) == is_admitted;
        let at = self.errors.iter().position(is_meant)?;
        let fault = self.errors.get_mut(at)?;
        let struck = *fault;
        if fault.times != u32::MAX {
            fault.times = fault.times.saturating_sub(1);
        }
        if fault.times == 0 {
            self.errors.remove(at);
        }
        Some(struck)
    }
}
