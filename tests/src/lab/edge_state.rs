//! What the servers still hold: kamailio's registrations, asked over its own socket, and coturn's allocations, from its log.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::pause;
use super::run::now;
use super::servers::{NetLab, Service};

/// The longest answer of kamailio that is read.
const ANSWER_BYTES_MAX: usize = 65_536;

/// What is left after a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Address of record and contact.
    pub registrations: Vec<String>,
    /// Sessions by the name of their relay.
    pub allocations: Vec<String>,
}

impl NetLab {
    /// What the servers hold now.
    ///
    /// # Errors
    ///
    /// If kamailio does not answer.
    pub fn held(&self) -> Result<Held, String> {
        let mut allocations = Vec::new();
        for (name, service) in [("turn", Service::Relay), ("turn2", Service::SpareRelay)] {
            let open = open_sessions(&self.log_of(service));
            allocations.extend(open.into_iter().map(|session| format!("{name} {session}")));
        }
        Ok(Held { registrations: self.registrations()?, allocations })
    }

    /// Waits until the servers hold nothing.
    ///
    /// # Errors
    ///
    /// What they still hold after `limit`.
    pub fn wait_released(&self, limit: Duration) -> Result<(), String> {
        self.wait_until(limit, |held| *held == Held::default())
    }

    /// Waits until nobody is registered.
    ///
    /// # Errors
    ///
    /// Who still is after `limit`.
    pub fn wait_unregistered(&self, limit: Duration) -> Result<(), String> {
        self.wait_until(limit, |held| held.registrations.is_empty())
    }

    fn wait_until(&self, limit: Duration, done: impl Fn(&Held) -> bool) -> Result<(), String> {
        let until = now() + limit;
        loop {
            let held = self.held()?;
            if done(&held) {
                return Ok(());
            }
            if now() > until {
                return Err(format!("left at the edge: {held:?}"));
            }
            pause(until);
        }
    }

    /// Address of record and contact of every registration.
    ///
    /// # Errors
    ///
    /// If kamailio does not answer.
    pub fn registrations(&self) -> Result<Vec<String>, String> {
        let answer = self.ask_kamailio("ul.dump")?;
        let mut found = Vec::new();
        collect(&answer, "", &mut found);
        Ok(found)
    }

    /// One request of kamailio's JSON-RPC.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn ask_kamailio(&self, method: &str) -> Result<Value, String> {
        let error = |error: std::io::Error| format!("kamailio, {method}: {error}");
        let own = tempfile::Builder::new().prefix("ask-").tempdir_in(self.network.folder()).map_err(error)?;
        let socket = UnixDatagram::bind(own.path().join("socket")).map_err(error)?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).map_err(error)?;
        let request = json!({ "jsonrpc": "2.0", "method": method, "id": 1 }).to_string();
        socket.send_to(request.as_bytes(), self.file("rpc.sock")).map_err(error)?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let length = socket.recv(&mut answer).map_err(error)?;
        serde_json::from_slice(&answer[..length]).map_err(|error| format!("kamailio, {method}: {error}"))
    }
}

/// Every `Address` below an `AoR`, wherever it is nested.
fn collect(value: &Value, aor: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let aor = fields.get("AoR").and_then(Value::as_str).unwrap_or(aor).to_owned();
            if let Some(address) = fields.get("Address").and_then(Value::as_str) {
                found.push(format!("{aor} {address}"));
            }
            for field in fields.values() {
                collect(field, &aor, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, aor, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Sessions with an allocation that coturn's log names as new and not as deleted.
fn open_sessions(log: &str) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("session ") else { continue };
        let Some((session, what)) = rest.split_once(": ") else { continue };
        if what.starts_with("new,") {
            open.insert(session.to_owned());
        } else if what.starts_with("delete:") || what.starts_with("closed") {
            open.remove(session);
        }
    }
    open
}
