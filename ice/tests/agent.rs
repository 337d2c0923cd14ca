//! Whole ICE sessions of two and more agents in virtual time.

mod net;

use ice::{CandidateType, Component, Config, Event, PathClass, Policy, Role, ServerTransport};
use net::{Kind, Net, config, ms, remote, stun, turn};

#[test]
fn two_hosts_on_one_lan_talk_directly_on_both_components() {
    let mut net = Net::new();
    let a = net.host("192.0.2.1", config(vec![]), 1);
    let b = net.host("192.0.2.2", config(vec![]), 2);
    net.gather(a);
    net.gather(b);
    net.connect(a, b, false);
    net.run(ms(1000));
    let want = [
        "reached",
        "1 host-host FirstValid",
        "2 host-host FirstValid",
        "1 host-host Promoted",
        "2 host-host Promoted",
        "concluded, announce true",
    ];
    assert_eq!(net.log(a), want);
    for component in Component::ALL {
        net.with(a, |agent, now| agent.send(now, component, &[0x80, 0, 0, 0])).unwrap();
    }
    net.run(ms(20));
    let got: Vec<Component> = net.hosts[b].data.iter().map(|(_, _, component, _)| *component).collect();
    assert_eq!(got, Component::ALL);
}
