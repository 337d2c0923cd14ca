use super::*;
use crate::event::SocketId;
use std::time::Duration;

fn candidate(foundation: &str, component: Component, addr: &str, priority: u32) -> Candidate {
    Candidate {
        foundation: foundation.to_owned(),
        component,
        transport: CandidateTransport::Udp,
        priority,
        addr: addr.parse().unwrap(),
        kind: CandidateType::Host,
        related: None,
    }
}

fn local(foundation: &str, component: Component, addr: &str, priority: u32, socket: u32) -> LocalCandidate {
    let candidate = candidate(foundation, component, addr, priority);
    let base_addr = candidate.addr;
    let base = Base::Socket(SocketId(socket));
    LocalCandidate { candidate, base, base_addr, relay: None, local_preference: 65535 }
}

/// Two interfaces on our side, one address on theirs, both components.
fn two_by_one() -> Checklist {
    use Component::{Rtcp, Rtp};
    let mut list = Checklist::new(Role::Controlling);
    list.add_remote(candidate("r", Rtp, "192.0.2.9:1", 100));
    list.add_remote(candidate("r", Rtcp, "192.0.2.9:2", 99));
    let ours = [
        local("a", Rtp, "10.0.0.1:1", 200, 1),
        local("a", Rtcp, "10.0.0.1:2", 199, 2),
        local("b", Rtp, "10.0.1.1:1", 150, 3),
        local("b", Rtcp, "10.0.1.1:2", 149, 4),
    ];
    list.form(&ours);
    list
}

fn states(list: &Checklist) -> Vec<PairState> {
    list.pairs().map(|(_, pair)| pair.state).collect()
}

fn ready(_: &Pair) -> Readiness {
    Readiness::Ready
}

#[test]
fn one_pair_of_each_foundation_waits_at_first_the_lowest_component() {
    use PairState::{Frozen, Waiting};
    assert_eq!(states(&two_by_one()), [Waiting, Waiting, Frozen, Frozen]);
}

#[test]
fn checks_go_by_priority_and_a_success_unfreezes_its_foundation() {
    use PairState::{Frozen, InProgress, Waiting};
    let mut list = two_by_one();
    let first = list.take_next(ready).unwrap();
    assert_eq!(list.get(first).unwrap().local.candidate.addr.to_string(), "10.0.0.1:1");
    list.get_mut(first).unwrap().state = InProgress;
    assert_eq!(states(&list), [InProgress, Waiting, Frozen, Frozen]);
    let rtt = Duration::from_millis(5);
    list.get_mut(first).unwrap().state = PairState::Succeeded { rtt };
    list.unfreeze_like(first);
    assert_eq!(states(&list), [PairState::Succeeded { rtt }, Waiting, Waiting, Frozen]);
}

#[test]
fn a_failed_foundation_lets_its_next_pair_be_checked() {
    use PairState::{Failed, Waiting};
    let mut list = two_by_one();
    for id in [PairId(0), PairId(1)] {
        list.get_mut(id).unwrap().state = Failed(CheckFailure::NoAnswer);
    }
    let next = list.take_next(ready).unwrap();
    assert_eq!(list.get(next).unwrap().component(), Component::Rtcp);
    assert_eq!(states(&list), [Failed(CheckFailure::NoAnswer), Failed(CheckFailure::NoAnswer), Waiting, Waiting]);
}

#[test]
fn triggered_checks_go_first_and_nominations_before_them() {
    let mut list = two_by_one();
    list.trigger(PairId(3), false);
    list.trigger(PairId(1), false);
    list.trigger(PairId(2), true);
    let order: Vec<PairId> = std::iter::from_fn(|| {
        let id = list.take_next(ready)?;
        list.get_mut(id)?.state = PairState::InProgress;
        Some(id)
    })
    .collect();
    assert_eq!(order, [PairId(2), PairId(3), PairId(1), PairId(0)]);
}

#[test]
fn a_pair_without_permission_lets_others_go_first() {
    let mut list = two_by_one();
    let slow = |pair: &Pair| {
        if pair.local.candidate.foundation == "a" { Readiness::Pending } else { Readiness::Ready }
    };
    let next = list.take_next(slow).unwrap();
    assert_eq!(list.get(next).unwrap().local.candidate.foundation, "b");
}

#[test]
fn only_like_addresses_are_paired() {
    let v4 = candidate("1", Component::Rtp, "192.0.2.1:1", 1);
    let v6 = candidate("1", Component::Rtp, "[2001:db8::1]:1", 1);
    let link = candidate("1", Component::Rtp, "[fe80::1]:1", 1);
    let rtcp = candidate("1", Component::Rtcp, "192.0.2.1:2", 1);
    let tcp = Candidate {
        transport: CandidateTransport::Tcp(TcpType::Passive),
        ..candidate("1", Component::Rtp, "192.0.2.1:1", 1)
    };
    let portless = candidate("1", Component::Rtp, "192.0.2.1:0", 1);
    let cases = [
        ("v4 and v4", &v4, &v4, true),
        ("v4 and v6", &v4, &v6, false),
        ("v6 and v6", &v6, &v6, true),
        ("global and link-local", &v6, &link, false),
        ("link-local and link-local", &link, &link, true),
        ("component 1 and 2", &v4, &rtcp, false),
        ("UDP and TCP", &v4, &tcp, false),
        ("port 0", &v4, &portless, false),
    ];
    for (name, local, remote, want) in cases {
        assert_eq!(can_pair(local, remote), want, "case: {name}");
    }
}

#[test]
fn a_signalled_candidate_replaces_what_a_check_had_taught() {
    let mut list = Checklist::new(Role::Controlled);
    let learnt =
        Candidate { kind: CandidateType::PeerReflexive, ..candidate("prflx+1", Component::Rtp, "192.0.2.9:1", 7) };
    assert!(list.add_remote(learnt.clone()));
    list.form(&[local("a", Component::Rtp, "10.0.0.1:1", 200, 1)]);
    assert!(list.add_remote(candidate("r", Component::Rtp, "192.0.2.9:1", 100)));
    assert!(!list.add_remote(learnt), "and is not replaced by it again");
    let (_, pair) = list.pairs().next().unwrap();
    assert_eq!((pair.remote.foundation.as_str(), pair.remote.kind), ("r", CandidateType::Host));
}

#[test]
fn more_than_100_pairs_are_pruned_but_never_the_last_relay() {
    let mut list = Checklist::new(Role::Controlling);
    for index in 0..40_u16 {
        let addr = format!("192.0.2.{}:{}", index + 1, 1000 + index);
        list.add_remote(candidate("r", Component::Rtp, &addr, 1000 + u32::from(index)));
    }
    let mut ours: Vec<LocalCandidate> =
        (0..4_u32).map(|i| local("a", Component::Rtp, &format!("10.0.{i}.1:1"), 5000 + i, i)).collect();
    let mut relay = local("z", Component::Rtp, "203.0.113.10:1", 1, 9);
    relay.candidate.kind = CandidateType::Relayed;
    ours.push(relay);
    list.form(&ours);
    assert_eq!(list.pairs().count(), PAIRS_MAX);
    assert_eq!(list.dropped_pairs, 5 * 40 - PAIRS_MAX);
    assert!(list.pairs().any(|(_, pair)| pair.local.candidate.kind == CandidateType::Relayed));
}

#[test]
fn a_role_switch_changes_every_priority() {
    let mut list = two_by_one();
    let before: Vec<u64> = list.pairs().map(|(_, pair)| pair.priority).collect();
    list.set_role(Role::Controlled);
    let after: Vec<u64> = list.pairs().map(|(_, pair)| pair.priority).collect();
    assert!(before.iter().zip(&after).all(|(b, a)| b == &(a + 1)), "ours is the larger one: the bonus goes");
}
