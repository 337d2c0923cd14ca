//! What the user asks for, checked against what makes sense now.

use std::time::Instant;

use rand::RngExt as _;

use super::account::{Account, AccountSetup};
use super::call::Call;
use super::dial::parse_target;
use super::facade::Core;
use super::flow::Flow;
use super::phase;
use crate::api::{
    AccountConfig, AccountId, CallChange, CallId, CallState, Command, CommandError, DialOptions, EndReason,
    EngineChange,
};

impl Core {
    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        if let Err(error) = self.obey(now, &command) {
            self.ports.engine_event(EngineChange::Refused { command: Box::new(command), error });
        }
    }

    fn obey(&mut self, now: Instant, command: &Command) -> Result<(), CommandError> {
        match command {
            Command::AddAccount { account, config } => self.add_account(now, *account, config)?,
            Command::RemoveAccount { account } => self.remove_account(now, *account)?,
            Command::Register { account } => {
                self.known(*account)?;
                self.with_account(*account, |account, ports| account.register(now, ports));
            }
            Command::Unregister { account } => {
                self.known(*account)?;
                self.with_account(*account, |account, ports| account.unregister(now, ports));
            }
            Command::Dial { call, account, to, options } => self.dial(now, *call, *account, to, options)?,
            Command::Answer { call, options } => {
                self.expect(*call, "it can be answered while it rings", |call| {
                    !call.is_outgoing() && !call.is_confirmed()
                })?;
                self.with_call(now, *call, |call, cx| call.take(cx, options));
            }
            Command::Reject { call, status } => {
                self.expect(*call, "it can be refused while it rings", |call| {
                    !call.is_outgoing() && !call.is_confirmed()
                })?;
                let status = *status;
                self.with_call(now, *call, |call, cx| call.end(cx, EndReason::Declined { status }));
            }
            Command::Hangup { call } => {
                self.expect(*call, "it is over", Call::is_alive)?;
                self.with_call(now, *call, |call, cx| {
                    let declines = !call.is_outgoing() && !call.is_confirmed();
                    call.end(cx, if declines { EndReason::Declined { status: 603 } } else { EndReason::LocalHangup });
                });
            }
            Command::Hold { call } | Command::Resume { call } => {
                self.expect(*call, "it must be answered first", Call::is_confirmed)?;
                let held = matches!(command, Command::Hold { .. });
                self.with_call(now, *call, |call, cx| call.hold(cx, held));
            }
            Command::Transfer { call, to } => self.transfer(now, *call, to)?,
            Command::SendDtmf { call, digits } => self.send_dtmf(now, *call, digits)?,
            Command::SetMuted { call, muted } => {
                self.expect(*call, "it is over", Call::is_alive)?;
                self.with_call(now, *call, |call, cx| call.mute(cx, *muted));
            }
            Command::RestartIce { call } => {
                self.expect(*call, "it must be answered first", Call::is_confirmed)?;
                self.with_call(now, *call, Call::restart_ice);
            }
            Command::Shutdown => self.stop(now),
            // The driver has the devices, the engine the snapshot.
            Command::UseDevices { .. } | Command::Snapshot | Command::Health => {}
        }
        Ok(())
    }

    pub(super) fn known(&self, account: AccountId) -> Result<&Account, CommandError> {
        self.accounts.get(&account).ok_or(CommandError::UnknownAccount)
    }

    /// The call, if it is in a state that fits; else `needed` says what it would have to be.
    pub(super) fn expect(
        &self,
        id: CallId,
        needed: &str,
        fits: impl FnOnce(&Call) -> bool,
    ) -> Result<&Call, CommandError> {
        let call = self.calls.get(&id).ok_or(CommandError::UnknownCall { call: id })?;
        if fits(call) {
            return Ok(call);
        }
        Err(CommandError::WrongState { call: id, state: phase::name(call.state).to_owned(), needed: needed.to_owned() })
    }

    fn add_account(&mut self, now: Instant, id: AccountId, config: &AccountConfig) -> Result<(), CommandError> {
        if self.accounts.contains_key(&id) {
            return Err(CommandError::AccountExists { account: id });
        }
        let elapsed = now.saturating_duration_since(self.started);
        let setup = AccountSetup {
            user_agent: self.config.user_agent.clone(),
            interfaces: self.interfaces.clone(),
            unix: self.config.unix_time + elapsed,
            sip_seed: self.rng.random(),
            seed: self.rng.random(),
        };
        let account = Account::new(now, id, config.clone(), setup, &mut self.ports);
        self.accounts.insert(id, account);
        self.with_account(id, |account, ports| account.register(now, ports));
        Ok(())
    }

    fn remove_account(&mut self, now: Instant, id: AccountId) -> Result<(), CommandError> {
        self.known(id)?;
        for call in self.calls_of(id) {
            self.with_call(now, call, |call, cx| call.end(cx, EndReason::LocalHangup));
        }
        self.leaving.insert(id);
        self.with_account(id, |account, ports| account.unregister(now, ports));
        Ok(())
    }

    fn dial(
        &mut self,
        now: Instant,
        id: CallId,
        account: AccountId,
        to: &str,
        options: &DialOptions,
    ) -> Result<(), CommandError> {
        if self.calls.contains_key(&id) {
            return Err(CommandError::CallExists { call: id });
        }
        let of = self.known(account)?;
        let limit = of.config.calls_max;
        let bad = |problem| CommandError::BadTarget { target: to.to_owned(), problem };
        let target = parse_target(to, of).map_err(bad)?;
        if u32::try_from(self.calls_of(account).len()).unwrap_or(u32::MAX) >= limit {
            return Err(CommandError::TooManyCalls { limit });
        }
        self.add_call(now, account, id, |cx, seeds| Some(Call::dial(cx, id, target, options, seeds)));
        Ok(())
    }

    fn send_dtmf(&mut self, now: Instant, id: CallId, digits: &str) -> Result<(), CommandError> {
        let call = self.expect(id, "digits need media that flows", |call| {
            call.is_alive() && matches!(call.state, CallState::Talking | CallState::EarlyMedia | CallState::Held)
        })?;
        let bad = || CommandError::BadDigits { digits: digits.to_owned() };
        let is_digit = |c: char| c.is_ascii_digit() || matches!(c.to_ascii_uppercase(), '*' | '#' | 'A'..='D');
        if call.flow.is_none() || digits.is_empty() || !digits.chars().all(is_digit) {
            return Err(bad());
        }
        let mut outcome = Ok(());
        self.with_call(now, id, |call, cx| {
            let session = call.flow.as_mut().and_then(Flow::session_mut);
            outcome = session.map_or(Ok(()), |session| session.send_dtmf(digits));
            if outcome.is_ok() {
                digits
                    .chars()
                    .for_each(|digit| call.tell(cx, CallChange::DtmfSent { digit: digit.to_ascii_uppercase() }));
            }
        });
        outcome.map_err(|error| CommandError::WrongState {
            call: id,
            state: error.to_string(),
            needed: "the other side must take telephone-events".to_owned(),
        })
    }
}

impl Call {
    fn mute(&mut self, cx: &mut super::call::Cx<'_>, muted: bool) {
        if self.wishes.muted != muted {
            self.wishes.muted = muted;
            self.apply_media(cx);
            self.tell(cx, CallChange::Muted { muted });
        }
    }

    fn restart_ice(&mut self, cx: &mut super::call::Cx<'_>) {
        self.restart_due = true;
        self.next_offer(cx);
    }
}
