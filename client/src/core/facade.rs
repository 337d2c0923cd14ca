//! The facade: accounts and calls behind one pair of functions, and the routing between them.
//!
//! ```text
//!   Input ─▶ owner of the socket, stream, question ─▶ Account (sip::Endpoint) ─▶ events ─▶ Call
//!                                                └──▶ Call (Flow: ice, media) ─▶ events ─▶ Call
//!   afterwards: everything that was touched is drained until it is quiet, and its next deadline noted
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use media::NtpTime;
use media::srtp::sdes::{KEY_AND_SALT_BYTES_MAX, MasterKey, Suite};
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::account::{Account, News};
use super::call::{Call, CallSeeds, Cx};
use super::flow::{FlowOutput, earlier};
use super::io::{Input, Output};
use super::ports::{AgentOwner, ListenerOwner, Ports, SocketOwner, StreamOwner};
use crate::api::{AccountChange, AccountId, CallId, EndReason, EngineChange};

/// A shutdown that is not complete by then ends all the same.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What a core is given once.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Sent as `User-Agent` and `Server`.
    pub user_agent: String,
    /// Seconds since 1970 at the instant of construction: for RTCP and for credentials made from the time.
    pub unix_time: Duration,
}

/// Accounts and calls as one state machine.
#[derive(Debug)]
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) wall: (Instant, NtpTime),
    pub(super) started: Instant,
    pub(super) rng: ChaCha20Rng,
    pub(super) ports: Ports,
    pub(super) accounts: BTreeMap<AccountId, Account>,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) interfaces: Vec<IpAddr>,
    /// The last id given to an incoming call; they are even.
    last_call: u64,
    touched_accounts: BTreeSet<AccountId>,
    touched_calls: BTreeSet<CallId>,
    account_deadlines: BTreeMap<AccountId, Instant>,
    call_deadlines: BTreeMap<CallId, Instant>,
    /// Accounts that are removed once they are unregistered.
    pub(super) leaving: BTreeSet<AccountId>,
    pub(super) stop_at: Option<Instant>,
    stopped: bool,
}

impl Core {
    /// A core without accounts. The same seed, configuration and inputs give the same outputs.
    pub fn new(now: Instant, config: CoreConfig, seed: [u8; 32]) -> Self {
        Self {
            wall: (now, NtpTime::from_unix(config.unix_time)),
            config,
            started: now,
            rng: ChaCha20Rng::from_seed(seed),
            ports: Ports::default(),
            accounts: BTreeMap::new(),
            calls: BTreeMap::new(),
            interfaces: Vec::new(),
            last_call: 0,
            touched_accounts: BTreeSet::new(),
            touched_calls: BTreeSet::new(),
            account_deadlines: BTreeMap::new(),
            call_deadlines: BTreeMap::new(),
            leaving: BTreeSet::new(),
            stop_at: None,
            stopped: false,
        }
    }

    /// Tells the core what happened.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Command(command) => self.command(now, command),
            Input::Interfaces(addresses) => self.interfaces_came(now, addresses),
            Input::Woken => self.woken(now),
            Input::Resolved { id, answer } => {
                if let Some(account) = self.ports.take_question(id) {
                    self.with_account(account, |account, ports| account.resolved(now, id, &answer, ports));
                }
            }
            Input::Microphone { call, frame } => {
                if let Some(flow) = self.calls.get_mut(&call).and_then(|call| call.flow.as_mut()) {
                    flow.microphone(now, frame);
                    self.touched_calls.insert(call);
                }
            }
            Input::Timeout => self.time_is_up(now),
            Input::Datagram { .. }
            | Input::SocketOpened { .. }
            | Input::SocketFailed { .. }
            | Input::SendFailed { .. } => {
                self.socket_input(now, input);
            }
            Input::StreamOpened { .. }
            | Input::StreamAccepted { .. }
            | Input::Listening { .. }
            | Input::ListenFailed { .. }
            | Input::StreamData { .. }
            | Input::StreamClosed { .. } => {
                self.stream_input(now, input);
            }
        }
        self.settle(now);
    }

    /// What the core wants done; drain until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.ports.pop().unwrap_or_else(|| {
            let accounts = self.account_deadlines.values().min().copied();
            let calls = self.call_deadlines.values().min().copied();
            Output::Timeout(earlier(earlier(accounts, calls), self.stop_at))
        })
    }

    /// Calls that are not over.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Sockets and streams in use: what must be nothing after [`EngineChange::Stopped`].
    pub fn open_lines(&self) -> usize {
        self.ports.open()
    }

    fn socket_input(&mut self, now: Instant, input: Input<'_>) {
        let (Input::Datagram { socket: id, .. }
        | Input::SocketOpened { id, .. }
        | Input::SocketFailed { id, .. }
        | Input::SendFailed { socket: id, .. }) = input
        else {
            return;
        };
        let Some(owner) = self.ports.socket_owner(id) else { return };
        match (owner, input) {
            (SocketOwner::Sip(account), Input::Datagram { from, payload, .. }) => {
                self.with_account(account, |account, _| account.datagram(now, id, from, payload));
            }
            (SocketOwner::Sip(account), Input::SocketOpened { local, .. }) => {
                self.with_account(account, |account, ports| account.socket_opened(now, id, local, ports));
            }
            (SocketOwner::Sip(account), Input::SocketFailed { cause, .. }) => {
                self.with_account(account, |account, ports| account.socket_failed(now, id, &cause, ports));
            }
            (SocketOwner::Ice(agent, socket), Input::Datagram { from, payload, .. }) => {
                self.ice_input(now, agent, ice::Input::Datagram { socket, from, payload });
            }
            (SocketOwner::Ice(agent, id), Input::SocketOpened { local, .. }) => {
                self.ice_input(now, agent, ice::Input::SocketOpened { id, local });
            }
            (SocketOwner::Ice(agent, socket), Input::SendFailed { to, cause, .. }) => {
                self.ice_input(now, agent, ice::Input::SendFailed { socket, to, cause });
            }
            (SocketOwner::Ice(agent, local), Input::SocketFailed { cause, .. }) => {
                self.ports.forget_socket(id);
                self.ice_input(now, agent, ice::Input::SocketFailed { id: local, cause });
            }
            (SocketOwner::Sip(_) | SocketOwner::Ice(..), _) => {}
        }
    }

    fn stream_input(&mut self, now: Instant, input: Input<'_>) {
        let input = match input {
            Input::StreamAccepted { listener, id, local, remote } => {
                return self.stream_accepted(now, listener, id, (local, remote));
            }
            Input::Listening { id, local } => return self.listening(now, id, local),
            Input::ListenFailed { id, cause } => return self.listen_failed(now, id, cause),
            other => other,
        };
        let (Input::StreamOpened { id, .. } | Input::StreamData { id, .. } | Input::StreamClosed { id, .. }) = input
        else {
            return;
        };
        let Some(owner) = self.ports.stream_owner(id) else { return };
        match (owner, input) {
            (StreamOwner::Sip(account), Input::StreamOpened { local, .. }) => {
                self.with_account(account, |account, ports| account.stream_opened(now, id, local, ports));
            }
            (StreamOwner::Sip(account), Input::StreamData { bytes, .. }) => {
                self.with_account(account, |account, _| account.stream_data(now, id, bytes));
            }
            (StreamOwner::Sip(account), Input::StreamClosed { cause, .. }) => {
                self.with_account(account, |account, ports| account.stream_closed(now, id, &cause, ports));
            }
            (StreamOwner::Ice(agent, id), Input::StreamOpened { local, remote, .. }) => {
                self.ice_input(now, agent, ice::Input::StreamOpened { id, local, remote });
            }
            (StreamOwner::Ice(agent, id), Input::StreamData { bytes, .. }) => {
                self.ice_input(now, agent, ice::Input::StreamData { id, bytes });
            }
            (StreamOwner::Ice(agent, local), Input::StreamClosed { cause, .. }) => {
                self.ports.forget_stream(id);
                self.ice_input(now, agent, ice::Input::StreamClosed { id: local, cause: cause.to_string() });
            }
            (StreamOwner::Sip(_) | StreamOwner::Ice(..), _) => {}
        }
    }

    /// A stream that came in belongs to whoever listens there.
    fn stream_accepted(
        &mut self,
        now: Instant,
        listener: super::ListenerId,
        id: super::StreamId,
        (local, remote): (std::net::SocketAddr, std::net::SocketAddr),
    ) {
        match self.ports.listener_owner(listener) {
            Some(ListenerOwner::Sip(owner)) if self.accounts.contains_key(&owner) => {
                self.ports.accepted(id, owner);
                self.with_account(owner, |account, _| account.stream_accepted(now, id, local, remote));
            }
            Some(ListenerOwner::Ice(agent, listener)) => {
                let id = self.ports.accepted_for_ice(id, agent);
                self.ice_input(now, agent, ice::Input::StreamAccepted { listener, id, local, remote });
            }
            Some(ListenerOwner::Sip(_)) | None => self.ports.push(Output::CloseStream(id)),
        }
    }

    fn listening(&mut self, now: Instant, id: super::ListenerId, local: std::net::SocketAddr) {
        if let Some(ListenerOwner::Ice(agent, id)) = self.ports.listener_owner(id) {
            self.ice_input(now, agent, ice::Input::Listening { id, local });
        }
    }

    fn listen_failed(&mut self, now: Instant, id: super::ListenerId, cause: String) {
        let owner = self.ports.listener_owner(id);
        self.ports.forget_listener(id);
        match owner {
            Some(ListenerOwner::Ice(agent, id)) => self.ice_input(now, agent, ice::Input::ListenFailed { id, cause }),
            Some(ListenerOwner::Sip(_)) => self.ports.engine_event(EngineChange::Notice { text: cause }),
            None => {}
        }
    }

    fn ice_input(&mut self, now: Instant, agent: AgentOwner, input: ice::Input<'_>) {
        match agent {
            AgentOwner::Call(id) => {
                if let Some(flow) = self.calls.get_mut(&id).and_then(|call| call.flow.as_mut()) {
                    flow.handle_ice(now, input);
                    self.touched_calls.insert(id);
                }
            }
            AgentOwner::Probe(id) => self.with_account(id, |account, ports| {
                if let Some(probe) = account.registration.desk.probe_mut() {
                    probe.handle_input(now, input);
                    account.drain_probe(now, ports);
                }
            }),
        }
    }

    pub(super) fn with_account(&mut self, id: AccountId, act: impl FnOnce(&mut Account, &mut Ports)) {
        if let Some(account) = self.accounts.get_mut(&id) {
            act(account, &mut self.ports);
            self.touched_accounts.insert(id);
        }
    }

    pub(super) fn with_call(&mut self, now: Instant, id: CallId, act: impl FnOnce(&mut Call, &mut Cx<'_>)) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(account) = self.accounts.get_mut(&call.account) else { return };
        self.touched_accounts.insert(call.account);
        self.touched_calls.insert(id);
        act(call, &mut Cx { now, ports: &mut self.ports, account, wall: self.wall });
    }

    /// Adds a call that `make` builds; `None` if it decided against it.
    pub(super) fn add_call(
        &mut self,
        now: Instant,
        account: AccountId,
        id: CallId,
        make: impl FnOnce(&mut Cx<'_>, CallSeeds) -> Option<Call>,
    ) {
        let seeds = self.seeds();
        let Some(of) = self.accounts.get_mut(&account) else { return };
        self.touched_accounts.insert(account);
        let call = make(&mut Cx { now, ports: &mut self.ports, account: of, wall: self.wall }, seeds);
        if let Some(call) = call {
            self.calls.insert(id, call);
            self.touched_calls.insert(id);
        }
    }

    fn seeds(&mut self) -> CallSeeds {
        let mut key = [0; KEY_AND_SALT_BYTES_MAX];
        self.rng.fill(&mut key[..]);
        CallSeeds {
            ice: self.rng.random(),
            media: self.rng.random(),
            key: MasterKey::from_random(Suite::AesCm128HmacSha1_80, &key),
            origin: u64::from(self.rng.random::<u32>()),
            cname: format!("{:016x}", self.rng.random::<u64>()),
        }
    }

    /// The next even number.
    pub(super) fn next_call(&mut self) -> CallId {
        self.last_call += 2;
        CallId(self.last_call)
    }

    fn interfaces_came(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        let known = std::mem::replace(&mut self.interfaces, addresses.clone());
        let ids: Vec<_> = self.accounts.keys().copied().collect();
        for id in ids {
            self.with_account(id, |account, ports| account.interfaces_changed(now, &addresses, ports));
        }
        if !known.is_empty() && known != addresses {
            let calls: Vec<_> = self.calls.keys().copied().collect();
            for call in calls {
                self.with_call(now, call, Call::network_changed);
            }
            self.ports.engine_event(EngineChange::InterfacesChanged { addresses });
        }
    }

    /// The host has slept.
    fn woken(&mut self, now: Instant) {
        for id in self.accounts.keys().copied().collect::<Vec<_>>() {
            self.with_account(id, |account, ports| account.reconnect(now, "this host was suspended", ports));
        }
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.with_call(now, call, Call::woken);
        }
    }

    fn time_is_up(&mut self, now: Instant) {
        let due: Vec<_> = self.account_deadlines.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.with_account(id, |account, ports| account.handle_timeout(now, ports));
        }
        let due: Vec<_> = self.call_deadlines.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if let Some(flow) = &mut call.flow {
                flow.handle_timeout(now);
            }
            self.touched_calls.insert(id);
            // Fifty times a second it is the media alone: no reason to look through the account.
            if call.deadline().is_some_and(|at| at <= now) {
                self.with_call(now, id, Call::handle_timeout);
            }
        }
    }

    /// Drains everything that was touched until it is quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(id) = self.touched_calls.pop_first() {
                self.drain_call(now, id);
            } else if let Some(id) = self.touched_accounts.pop_first() {
                self.drain_account(now, id);
            } else {
                break;
            }
        }
        self.stop_if_done(now);
    }

    fn drain_account(&mut self, now: Instant, id: AccountId) {
        loop {
            let Some(account) = self.accounts.get_mut(&id) else {
                self.account_deadlines.remove(&id);
                return;
            };
            if let Some(news) = account.news.pop_front() {
                self.account_news(now, id, news);
                continue;
            }
            let output = account.endpoint.poll_output();
            match account.carry(now, output, &mut self.ports) {
                Some(sip::event::Output::Event(event)) => self.sip_event(now, id, event),
                Some(sip::event::Output::Timeout(at)) => {
                    match earlier(at, account.deadline()) {
                        Some(at) => self.account_deadlines.insert(id, at),
                        None => self.account_deadlines.remove(&id),
                    };
                    break;
                }
                Some(sip::event::Output::Transmit { .. } | sip::event::Output::CloseFlow(_)) | None => {}
            }
        }
        self.leave_if_done(id);
    }

    fn account_news(&mut self, now: Instant, id: AccountId, news: News) {
        match news {
            News::Hop(call, hop) => self.with_call(now, call, |call, cx| call.hop_ready(cx, hop)),
            News::Ready => {
                for call in self.calls_of(id) {
                    self.with_call(now, call, |call, cx| {
                        if call.hop.is_none() && call.is_waiting() && cx.account.has_edge() {
                            call.route(cx, None);
                        } else {
                            call.gather_if_ready(cx, false);
                            call.signalling_is_back(cx);
                        }
                    });
                }
            }
            News::TransferOver { asked_in, answered } => self.transfer_over(now, asked_in, answered),
            News::Unusable(why) => {
                for call in self.calls_of(id) {
                    let why = why.clone();
                    self.with_call(now, call, |call, cx| {
                        if call.hop.is_none() && call.is_waiting() {
                            call.hop_ready(cx, Err(why));
                        }
                    });
                }
            }
        }
    }

    pub(super) fn calls_of(&self, account: AccountId) -> Vec<CallId> {
        self.calls.values().filter(|call| call.account == account).map(|call| call.id).collect()
    }

    fn drain_call(&mut self, now: Instant, id: CallId) {
        let mut flow_at = None;
        while let Some(call) = self.calls.get_mut(&id) {
            let Some(flow) = call.flow.as_mut() else { break };
            match flow.poll(now) {
                FlowOutput::Ice(output) => drop(self.ports.carry(call.agent_owner(), output)),
                FlowOutput::IceEvent(event) => self.with_call(now, id, |call, cx| call.handle_ice_event(cx, event)),
                FlowOutput::MediaEvent(event) => {
                    self.with_call(now, id, |call, cx| call.handle_media_event(cx, &event));
                }
                FlowOutput::Play(frame) => self.ports.push(Output::Play { call: id, frame }),
                FlowOutput::Timeout(at) => {
                    flow_at = at;
                    break;
                }
            }
        }
        self.touched_calls.remove(&id);
        let Some(call) = self.calls.get(&id) else {
            self.call_deadlines.remove(&id);
            return;
        };
        if call.over {
            self.ports.close_all_of(AgentOwner::Call(id));
            self.calls.remove(&id);
            self.call_deadlines.remove(&id);
            return;
        }
        match earlier(flow_at, call.deadline()) {
            Some(at) => self.call_deadlines.insert(id, at),
            None => self.call_deadlines.remove(&id),
        };
    }

    /// Hangs up and unregisters everything; [`EngineChange::Stopped`] comes after at most 3 s.
    pub(super) fn stop(&mut self, now: Instant) {
        if self.stopped || self.stop_at.is_some() {
            return; // asked twice
        }
        self.stop_at = Some(now + STOP_PATIENCE);
        let calls: Vec<_> = self.calls.keys().copied().collect();
        for call in calls {
            self.with_call(now, call, |call, cx| call.end(cx, EndReason::LocalHangup));
        }
        let accounts: Vec<_> = self.accounts.keys().copied().collect();
        for account in accounts {
            self.with_account(account, |account, ports| account.unregister(now, ports));
        }
    }

    fn stop_if_done(&mut self, now: Instant) {
        let Some(latest) = self.stop_at.filter(|_| !self.stopped) else { return };
        let quiet = self.calls.is_empty() && self.accounts.values().all(Account::is_unregistered);
        if !quiet && now < latest {
            return;
        }
        for call in std::mem::take(&mut self.calls).into_keys() {
            self.ports.close_all_of(AgentOwner::Call(call));
        }
        for (id, mut account) in std::mem::take(&mut self.accounts) {
            account.close(&mut self.ports);
            self.ports.close_all_of(AgentOwner::Probe(id));
        }
        self.account_deadlines.clear();
        self.call_deadlines.clear();
        self.stop_at = None;
        self.stopped = true;
        self.ports.engine_event(EngineChange::Stopped);
    }

    fn leave_if_done(&mut self, id: AccountId) {
        let done = self.accounts.get(&id).is_some_and(Account::is_unregistered) && self.calls_of(id).is_empty();
        if !self.leaving.contains(&id) || !done {
            return;
        }
        self.leaving.remove(&id);
        if let Some(mut account) = self.accounts.remove(&id) {
            account.close(&mut self.ports);
            self.ports.close_all_of(AgentOwner::Probe(id));
        }
        self.account_deadlines.remove(&id);
        self.ports.account_event(id, AccountChange::Removed);
    }
}
