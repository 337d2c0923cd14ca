//! Two whole phones and their call.

use client::api::{CallChange, CallStats, Command, MediaDirection, TransportChoice};

use super::clock::secs;
use super::host::HostId;
use super::phone::PhoneHost;
use super::tone::level_at;
use super::town::{ACCOUNT, CALL, Town, account, first_call, is_announced, is_ended, is_promoted, is_talking};
use super::world::Place;

/// The tones that the two send.
pub const ALICE_HZ: f32 = 440.0;
pub const BOB_HZ: f32 = 1000.0;

/// Two phones in a town.
pub struct Call {
    pub town: Town,
    pub alice: HostId,
    pub bob: HostId,
}

impl Call {
    /// Both phones are registered and have their relay credentials.
    ///
    /// # Errors
    ///
    /// The end of the trace, if one of them did not get that far.
    pub fn registered(seed: u64, places: [&Place; 2], transport: TransportChoice) -> Result<Self, String> {
        Self::join(Town::new(seed), places, transport)
    }

    /// As [`Self::registered`], in a town that is there already.
    ///
    /// # Errors
    ///
    /// The end of the trace, if one of them did not get that far.
    pub fn join(mut town: Town, places: [&Place; 2], transport: TransportChoice) -> Result<Self, String> {
        let (alice, bob) = (town.phone("alice", places[0]), town.phone("bob", places[1]));
        town.register(alice, account("alice", transport, ALICE_HZ))?;
        town.register(bob, account("bob", transport, BOB_HZ))?;
        Ok(Self { town, alice, bob })
    }

    /// Alice calls Bob; both talk, the path is promoted and announced.
    ///
    /// # Errors
    ///
    /// What did not happen, or what is wrong.
    pub fn announced(&mut self) -> Result<(), String> {
        self.town.dial(self.alice, "bob");
        for phone in [self.alice, self.bob] {
            self.town.wait(phone, secs(10), is_talking)?;
            self.town.wait(phone, secs(10), is_promoted)?;
            self.town.wait(phone, secs(10), is_announced)?;
        }
        Ok(())
    }

    /// Hangs up and shuts both phones down.
    ///
    /// # Errors
    ///
    /// What did not happen, or what is wrong.
    pub fn end(&mut self) -> Result<(), String> {
        self.town.command(self.alice, Command::Hangup { call: CALL });
        for phone in [self.alice, self.bob] {
            self.town.wait(phone, secs(5), is_ended)?;
            self.town.command(phone, Command::Unregister { account: ACCOUNT });
            self.town.command(phone, Command::Shutdown);
        }
        self.town.sim.run_for(secs(40));
        Ok(())
    }

    /// What came out of a phone's loudspeaker, 48 kHz mono.
    pub fn heard(&self, phone: HostId) -> &[i16] {
        let program = self.town.phone_at(phone);
        first_call(program).and_then(|call| program.heard.get(&call)).map_or(&[], Vec::as_slice)
    }

    /// The last path that a phone told of.
    pub fn path(&self, phone: HostId) -> Option<String> {
        let program: &PhoneHost = self.town.phone_at(phone);
        let paths = program.call_events(first_call(program)?).filter_map(|(_, change)| match change {
            CallChange::PathChanged { path, .. } => Some(path.name.clone()),
            _ => None,
        });
        paths.last()
    }

    /// The addresses of the last path that a phone told of.
    pub fn path_addresses(&self, phone: HostId) -> Vec<std::net::IpAddr> {
        let program: &PhoneHost = self.town.phone_at(phone);
        let Some(call) = first_call(program) else { return Vec::new() };
        let paths = program.call_events(call).filter_map(|(_, change)| match change {
            CallChange::PathChanged { path, .. } => Some(vec![path.local.address.ip(), path.remote.address.ip()]),
            _ => None,
        });
        paths.last().unwrap_or_default()
    }

    /// The last second of what a phone heard is the other one's tone and not its own.
    ///
    /// # Errors
    ///
    /// What did not happen, or what is wrong.
    pub fn check_sound(&self) -> Result<(), String> {
        for (name, phone, theirs, own) in [("alice", self.alice, BOB_HZ, ALICE_HZ), ("bob", self.bob, ALICE_HZ, BOB_HZ)]
        {
            let heard = self.heard(phone);
            let last = heard.get(heard.len().saturating_sub(48_000)..).unwrap_or_default();
            let (wanted, unwanted) = (level_at(last, theirs), level_at(last, own));
            if wanted < 500.0 || unwanted > wanted / 20.0 {
                return Err(format!("{name} hears {wanted:.0} at {theirs} Hz and {unwanted:.0} at {own} Hz"));
            }
        }
        Ok(())
    }

    /// The edge and both phones hold nothing any more.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn check_nothing_left(&self) -> Result<(), String> {
        let holdings = self.town.holdings();
        if holdings != (0, 0, (0, 0)) {
            return Err(format!("registrations, allocations and transactions left at the edge: {holdings:?}"));
        }
        for (name, phone) in [("alice", self.alice), ("bob", self.bob)] {
            let (sockets, streams) = (self.town.sim.open_sockets(phone), self.town.sim.open_streams(phone));
            // One socket is the resolver's.
            if sockets > 1 || streams > 0 {
                return Err(format!("{name} left {sockets} sockets and {streams} streams open"));
            }
        }
        Ok(())
    }

    /// The figures of each second of a phone's call.
    pub fn stats(&self, phone: HostId) -> Vec<CallStats> {
        let program: &PhoneHost = self.town.phone_at(phone);
        let Some(call) = first_call(program) else { return Vec::new() };
        let stats = program.call_events(call).filter_map(|(_, change)| match change {
            CallChange::Stats { stats } => Some(stats.as_ref().clone()),
            _ => None,
        });
        stats.collect()
    }

    /// The digits that a phone was sent.
    pub fn digits(&self, phone: HostId) -> String {
        let program: &PhoneHost = self.town.phone_at(phone);
        let Some(call) = first_call(program) else { return String::new() };
        let digits = program.call_events(call).filter_map(|(_, change)| match change {
            CallChange::Dtmf { digit } => Some(*digit),
            _ => None,
        });
        digits.collect()
    }
}

pub fn is_first_media(change: &CallChange) -> bool {
    matches!(change, CallChange::FirstMedia { direction: MediaDirection::Received, .. })
}
