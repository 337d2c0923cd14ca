//! What must hold after every run, whatever its seed.
//!
//! I2 both sides name the same pair · I3 the path is what the oracle says · I5 at most two path changes per component ·
//! I7 nothing is left after the call: no timer, no socket, no stream, no allocation at the server. (I8, the same seed has
//! the same trace, compares two runs: see [`super::cell::Cell::hash`].)

use ice::Component;

use super::agent::AgentHost;
use super::cell::{Pair, class_of};
use super::edge::RelayHost;
use super::oracle::PathClass;

/// While the call is up.
///
/// # Errors
///
/// The first invariant that does not hold.
pub fn check_running(pair: &Pair, expected: PathClass) -> Result<(), String> {
    let (left, right) = (pair.agent(pair.left), pair.agent(pair.right));
    for component in [Component::Rtp, Component::Rtcp] {
        let (Some(here), Some(there)) = (left.path(component), right.path(component)) else {
            if left.path(component).is_some() != right.path(component).is_some() {
                return Err(format!("I2: only one side has a path for component {component}"));
            }
            continue;
        };
        // With a mapping per destination the other side sees an address that this side only learns from the answer.
        if here.local.addr != there.remote.addr || here.remote.addr != there.local.addr {
            return Err(format!(
                "I2: component {component} goes {} -> {} here and {} -> {} there",
                here.local.addr, here.remote.addr, there.local.addr, there.remote.addr
            ));
        }
        // The class is the worse end as far as a side knows: how the peer reaches its relay, nobody tells.
        let class = class_of(here.class).max(class_of(there.class));
        if class != expected {
            return Err(format!("I3: component {component} goes by {class}, the oracle says {expected}"));
        }
    }
    for (name, agent) in [("left", left), ("right", right)] {
        for component in [Component::Rtp, Component::Rtcp] {
            let changes = agent.path_changes(component);
            if changes.len() > 2 {
                return Err(format!("I5: {name} moved component {component} {} times: {changes:?}", changes.len()));
            }
        }
        if agent.failed() {
            return Err(format!("{name} reported a failure"));
        }
    }
    Ok(())
}

/// After both sides have closed.
///
/// # Errors
///
/// What is left.
pub fn check_closed(pair: &Pair) -> Result<(), String> {
    for (name, host) in [("left", pair.left), ("right", pair.right)] {
        let agent: &AgentHost = pair.agent(host);
        if !agent.closed() {
            return Err(format!("I7: {name} did not say that it closed"));
        }
        let (sockets, streams) = (pair.sim.open_sockets(host), pair.sim.open_streams(host));
        if sockets + streams > 0 {
            return Err(format!("I7: {name} left {sockets} sockets and {streams} streams open"));
        }
        if let Some(deadline) = pair.sim.deadline(host) {
            return Err(format!("I7: {name} still waits for {deadline:?}"));
        }
    }
    let left_over = pair.sim.program::<RelayHost>(pair.relay).allocations();
    if left_over > 0 {
        return Err(format!("I7: {left_over} allocations are left at the relay"));
    }
    Ok(())
}
