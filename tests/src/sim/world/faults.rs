//! What happens to hosts and edges in the middle of a run: programs that die, freeze and start again, addresses that change.

use std::net::IpAddr;

use super::{Happening, Member, Sim};
use crate::sim::host::{HostId, Input, Output, Program};

/// A host on which nothing runs.
struct Nothing;

impl Program for Nothing {
    fn handle(&mut self, _now: std::time::Instant, _input: Input<'_>) {}

    fn poll(&mut self) -> Output {
        Output::Timeout(None)
    }
}

impl Sim {
    /// The program of a host dies: its sockets are gone, its streams end, nobody listens.
    pub fn kill(&mut self, host: HostId) {
        let it = &mut self.hosts[host.0];
        it.program = Box::new(Nothing);
        it.deadline = None;
        it.bound.clear();
        it.sockets.clear();
        let step = it.streams.kill();
        self.carry_out(host, step);
    }

    /// Another program starts on a host whose program has died.
    pub fn start<P: Program>(&mut self, host: HostId, program: P) {
        self.hosts[host.0].program = Box::new(program);
        self.drain(host);
    }

    /// The program of a host gets no processor time until it is thawed; what comes in waits for it.
    pub fn freeze(&mut self, host: HostId) {
        self.hosts[host.0].frozen = Some(Vec::new());
    }

    pub fn thaw(&mut self, host: HostId) {
        for happening in self.hosts[host.0].frozen.take().unwrap_or_default() {
            self.queue.push(self.now, happening);
        }
        let overdue = self.hosts[host.0].deadline.is_some_and(|at| at <= self.now);
        if overdue {
            self.hosts[host.0].deadline = Some(self.now);
            self.queue.push(self.now, Happening::Wake(host));
        }
    }

    /// Keeps what is for a frozen program.
    pub(super) fn keep_for_later(&mut self, happening: Happening) -> Option<Happening> {
        let (Happening::Deliver(host, _) | Happening::Wake(host)) = &happening else { return Some(happening) };
        match &mut self.hosts[host.0].frozen {
            Some(kept) => {
                kept.push(happening);
                None
            }
            None => Some(happening),
        }
    }

    /// A host gets another address in its network; what was bound to the old one can neither send nor receive.
    pub fn readdress(&mut self, host: HostId) -> IpAddr {
        let realm = self.hosts[host.0].realm;
        let (old, new) = (self.address(host), self.free_address(realm));
        self.realms[realm.0].members.remove(&old);
        self.realms[realm.0].members.insert(new, Member::Host(host));
        self.hosts[host.0].addresses = vec![new];
        new
    }

    /// The edge of a host gets another address outside, and forgets what it had mapped.
    pub fn readdress_edge(&mut self, host: HostId) -> IpAddr {
        let id = self.realms[self.hosts[host.0].realm.0].gateway.expect("the host is behind an edge");
        let outer = self.edges[id.0].outer;
        let (old, new) = (self.edges[id.0].nat.external(), self.free_address(outer));
        self.realms[outer.0].members.remove(&old);
        self.realms[outer.0].members.insert(new, Member::Edge(id));
        self.edges[id.0].nat.readdress(new);
        new
    }
}
