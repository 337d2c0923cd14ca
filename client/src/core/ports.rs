//! Who owns which socket, stream and question, and the queue of outputs.
//!
//! One id space serves signalling and media. `sip` and `ice` number their flows, sockets and streams themselves; this table maps
//! them onto the ids that the driver sees.

use std::collections::{BTreeMap, VecDeque};

use sip::event::FlowId;

use super::io::{ListenerId, Output, RecordKind, ResolveId, SocketId, StreamId};
use crate::api::{AccountChange, AccountId, CallChange, CallId, EngineChange, EventBody};

/// Whose ICE agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AgentOwner {
    Call(CallId),
    /// The probe that tries the relays of an account outside of calls.
    Probe(AccountId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOwner {
    Sip(AccountId),
    Ice(AgentOwner, ice::SocketId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamOwner {
    Sip(AccountId),
    Ice(AgentOwner, ice::StreamId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerOwner {
    Sip(AccountId),
    Ice(AgentOwner, ice::TcpId),
}

/// The ids in use and what is to be done next.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    last_id: u64,
    sockets: BTreeMap<SocketId, SocketOwner>,
    streams: BTreeMap<StreamId, StreamOwner>,
    listeners: BTreeMap<ListenerId, ListenerOwner>,
    questions: BTreeMap<ResolveId, AccountId>,
    ice_sockets: BTreeMap<(AgentOwner, ice::SocketId), SocketId>,
    ice_streams: BTreeMap<(AgentOwner, ice::StreamId), StreamId>,
    ice_listeners: BTreeMap<(AgentOwner, ice::TcpId), ListenerId>,
    /// Streams that came in for agents so far: their ids count from 2^31.
    accepted_for_ice: u32,
    outputs: VecDeque<Output>,
}

impl Ports {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn call_event(&mut self, call: CallId, change: CallChange) {
        self.push(Output::Event(EventBody::Call { call, change: Box::new(change) }));
    }

    pub(crate) fn account_event(&mut self, account: AccountId, change: AccountChange) {
        self.push(Output::Event(EventBody::Account { account, change: Box::new(change) }));
    }

    pub(crate) fn engine_event(&mut self, change: EngineChange) {
        self.push(Output::Event(EventBody::Engine(Box::new(change))));
    }

    /// A socket for signalling.
    pub(crate) fn sip_socket(&mut self, account: AccountId) -> SocketId {
        let id = SocketId(self.next_id());
        self.sockets.insert(id, SocketOwner::Sip(account));
        id
    }

    /// A stream for signalling.
    pub(crate) fn sip_stream(&mut self, account: AccountId) -> StreamId {
        let id = StreamId(self.next_id());
        self.streams.insert(id, StreamOwner::Sip(account));
        id
    }

    /// A listener for signalling.
    pub(crate) fn sip_listener(&mut self, account: AccountId) -> ListenerId {
        let id = ListenerId(self.next_id());
        self.listeners.insert(id, ListenerOwner::Sip(account));
        id
    }

    pub(crate) fn listener_owner(&self, id: ListenerId) -> Option<ListenerOwner> {
        self.listeners.get(&id).copied()
    }

    /// The listener failed: there is nothing to close any more.
    pub(crate) fn forget_listener(&mut self, id: ListenerId) {
        if let Some(ListenerOwner::Ice(agent, local)) = self.listeners.remove(&id) {
            self.ice_listeners.remove(&(agent, local));
        }
    }

    /// A stream that came in; its id is the driver's.
    pub(crate) fn accepted(&mut self, id: StreamId, account: AccountId) {
        self.streams.insert(id, StreamOwner::Sip(account));
    }

    /// The same for an agent, which is told another id.
    pub(crate) fn accepted_for_ice(&mut self, id: StreamId, agent: AgentOwner) -> ice::StreamId {
        let local = ice::StreamId((1 << 31) | self.accepted_for_ice);
        self.accepted_for_ice = self.accepted_for_ice.wrapping_add(1) & !(1 << 31);
        self.streams.insert(id, StreamOwner::Ice(agent, local));
        self.ice_streams.insert((agent, local), id);
        local
    }

    pub(crate) fn question(&mut self, account: AccountId, name: String, kind: RecordKind) -> ResolveId {
        let id = ResolveId(self.next_id());
        self.questions.insert(id, account);
        self.push(Output::Resolve { id, name, kind });
        id
    }

    /// Who asked; each question is answered once.
    pub(crate) fn take_question(&mut self, id: ResolveId) -> Option<AccountId> {
        self.questions.remove(&id)
    }

    pub(crate) fn socket_owner(&self, id: SocketId) -> Option<SocketOwner> {
        self.sockets.get(&id).copied()
    }

    pub(crate) fn stream_owner(&self, id: StreamId) -> Option<StreamOwner> {
        self.streams.get(&id).copied()
    }

    pub(crate) fn close_socket(&mut self, id: SocketId) {
        if let Some(owner) = self.forget_socket(id) {
            let _ = owner;
            self.push(Output::CloseSocket(id));
        }
    }

    pub(crate) fn close_stream(&mut self, id: StreamId) {
        if self.forget_stream(id).is_some() {
            self.push(Output::CloseStream(id));
        }
    }

    /// The socket failed: there is nothing to close any more.
    pub(crate) fn forget_socket(&mut self, id: SocketId) -> Option<SocketOwner> {
        let owner = self.sockets.remove(&id)?;
        if let SocketOwner::Ice(agent, local) = owner {
            self.ice_sockets.remove(&(agent, local));
        }
        Some(owner)
    }

    /// The stream has ended: there is nothing to close any more.
    pub(crate) fn forget_stream(&mut self, id: StreamId) -> Option<StreamOwner> {
        let owner = self.streams.remove(&id)?;
        if let StreamOwner::Ice(agent, local) = owner {
            self.ice_streams.remove(&(agent, local));
        }
        Some(owner)
    }

    /// Passes on what an ICE agent wants from the outside. Media, events and time-outs are for its owner and come back.
    pub(crate) fn carry(&mut self, agent: AgentOwner, output: ice::Output) -> Option<ice::Output> {
        match output {
            ice::Output::OpenSocket { id, bind } => {
                let socket = SocketId(self.next_id());
                self.sockets.insert(socket, SocketOwner::Ice(agent, id));
                self.ice_sockets.insert((agent, id), socket);
                self.push(Output::OpenSocket { id: socket, bind, toward: None });
            }
            ice::Output::CloseSocket(id) => {
                if let Some(socket) = self.ice_sockets.get(&(agent, id)).copied() {
                    self.close_socket(socket);
                }
            }
            ice::Output::Listen { id, bind } => {
                let listener = ListenerId(self.next_id());
                self.listeners.insert(listener, ListenerOwner::Ice(agent, id));
                self.ice_listeners.insert((agent, id), listener);
                self.push(Output::Listen { id: listener, bind, shared: true });
            }
            ice::Output::CloseListener(id) => {
                if let Some(listener) = self.ice_listeners.get(&(agent, id)).copied() {
                    self.close_listener(listener);
                }
            }
            ice::Output::OpenStream { id, from, to, tls } => {
                let stream = StreamId(self.next_id());
                self.streams.insert(stream, StreamOwner::Ice(agent, id));
                self.ice_streams.insert((agent, id), stream);
                let tls = tls.map(|name| super::io::TlsRequest { sni: name.clone(), names: vec![name] });
                self.push(Output::OpenStream { id: stream, from, to, tls });
            }
            ice::Output::CloseStream(id) => {
                if let Some(stream) = self.ice_streams.get(&(agent, id)).copied() {
                    self.close_stream(stream);
                }
            }
            ice::Output::Transmit { socket, to, payload } => {
                if let Some(socket) = self.ice_sockets.get(&(agent, socket)).copied() {
                    self.push(Output::Transmit { socket, to, payload });
                }
            }
            ice::Output::StreamSend { id, payload } => {
                if let Some(id) = self.ice_streams.get(&(agent, id)).copied() {
                    self.push(Output::StreamSend { id, payload });
                }
            }
            ice::Output::Data { .. } | ice::Output::Event(_) | ice::Output::Timeout(_) => return Some(output),
        }
        None
    }

    fn close_listener(&mut self, id: ListenerId) {
        self.forget_listener(id);
        self.push(Output::CloseListener(id));
    }

    /// Closes what an agent left open; after its end there is nothing.
    pub(crate) fn close_all_of(&mut self, agent: AgentOwner) {
        let sockets: Vec<_> =
            self.ice_sockets.iter().filter(|((owner, _), _)| *owner == agent).map(|(_, id)| *id).collect();
        let streams: Vec<_> =
            self.ice_streams.iter().filter(|((owner, _), _)| *owner == agent).map(|(_, id)| *id).collect();
        let listeners: Vec<_> =
            self.ice_listeners.iter().filter(|((owner, _), _)| *owner == agent).map(|(_, id)| *id).collect();
        for id in listeners {
            self.close_listener(id);
        }
        for id in sockets {
            self.close_socket(id);
        }
        for id in streams {
            self.close_stream(id);
        }
    }

    /// How many sockets and streams are open: zero after a shutdown.
    pub(crate) fn open(&self) -> usize {
        self.sockets.len() + self.streams.len()
    }
}

/// Signalling flows carry the number of their socket or stream.
pub(crate) fn socket_flow(id: SocketId) -> FlowId {
    FlowId(id.0)
}

pub(crate) fn stream_flow(id: StreamId) -> FlowId {
    FlowId(id.0)
}
