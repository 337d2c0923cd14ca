//! Bytes from anybody.

use super::*;

#[test]
fn random_packets_never_panic_and_disturb_no_call() {
    for (name, protect) in [("clear", false), ("protected", true)] {
        let configure = |side: usize, config: &mut Config| {
            tone(side, config);
            if protect {
                protected(side, config);
            }
        };
        let mut pair = Pair::talking(configure, [constant(10), constant(10)], 1);
        let mut random = Random::new(5);
        for round in 0..3_000 {
            pair.run_for(ms(1));
            let payload = hostile_packet(&mut random, round, &pair);
            let component = if random.below(3) == 0 { Component::Rtcp } else { Component::Rtp };
            let now = pair.now;
            pair.ends[1].session.handle_input(now, Input::Packet { component, payload: &payload });
        }
        assert!(pair.ends[1].session.streams.len() <= 4, "case: {name}");
        if protect {
            let at = pair.ends[1].heard.len();
            pair.run_for(secs(1));
            assert!((sample::level_dbfs(&pair.ends[1].heard[at..]) + 12.0).abs() < 1.0, "case: {name}");
            assert_eq!((pair.stats(1).lost, pair.digits(1).as_str()), (0, ""), "case: {name}");
        }
    }
}

/// Noise, noise with a plausible header, and real packets with some bytes changed or cut off.
fn hostile_packet(random: &mut Random, round: usize, pair: &Pair) -> Vec<u8> {
    let length = random.below(200);
    let mut bytes = random.bytes(length);
    match round % 3 {
        0 => {}
        1 => {
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x3f | 0x80;
            }
        }
        _ => {
            let sent = &pair.ends[0].sent;
            bytes = sent[random.below(sent.len())].2.clone();
            bytes.truncate(random.below(bytes.len() + 40));
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len().min(24));
                    bytes[at] = random.bytes(1)[0];
                }
            }
        }
    }
    bytes
}

#[test]
fn a_peer_with_our_ssrc_makes_us_leave_it_with_a_bye() {
    let configure = |_: usize, config: &mut Config| config.ssrc = Some(0x1234);
    let mut pair = Pair::talking(configure, [constant(10), constant(10)], 1);
    pair.run_for(secs(2));
    for side in 0..2 {
        let changed = pair.ends[side].events.iter().filter(|event| matches!(event, Event::SsrcChanged { .. })).count();
        assert!(changed <= 2, "side {side}");
    }
    let ssrcs = [0, 1].map(|side| pair.ends[side].session.ssrc());
    assert!(ssrcs[0] != ssrcs[1], "{ssrcs:x?}");
    let byes = pair.ends.iter().flat_map(|end| &end.sent).filter_map(|(_, _, bytes)| Heard::parse(bytes));
    assert!(byes.flat_map(|heard| heard.byes).any(|ssrc| ssrc == 0x1234));
}

#[test]
fn our_own_packets_coming_back_do_not_make_us_flee_forever() {
    let now = crate::testing::epoch();
    let mut session = Session::new(now, Config::new(now), [1; 32]).unwrap();
    session.start_sending(now);
    for tick in 0..200 {
        let at = now + FRAME * tick;
        session.handle_input(at, Input::Timeout);
        let mut back = Vec::new();
        while let output = session.poll_output()
            && !matches!(output, Output::Timeout(_))
        {
            if let Output::Packet { component, payload } = output {
                back.push((component, payload));
            }
        }
        for (component, payload) in back {
            session.handle_input(at, Input::Packet { component, payload: &payload });
        }
    }
    assert_eq!(session.counters.collisions, 4);
}

#[test]
fn unknown_payload_types_are_counted_and_leave_no_hole() {
    let mut pair = Pair::talking(tone, [constant(10), constant(10)], 1);
    pair.run_for(secs(1));
    pair.ends[0].session.formats.send.payload_type = 77;
    pair.run_for(ms(100));
    pair.ends[0].session.formats.send.payload_type = 111;
    pair.run_for(secs(1));
    let stats = pair.stats(1);
    assert_eq!((stats.unreadable, stats.lost), (5, 0));
}

#[test]
fn before_a_key_is_known_nothing_is_played() {
    let mut pair = Pair::talking(protected, [constant(10), constant(10)], 1);
    pair.ends[1].session.set_remote_keys(pair.now, vec![]).unwrap();
    pair.run_for(ms(100));
    let mut stranger = Pair::talking(
        |side, config| {
            tone(side, config);
            config.protection = Protection::Sdes { local: key(7), remote: vec![] };
        },
        [constant(10), constant(10)],
        1,
    );
    stranger.run_for(secs(1));
    assert!(stranger.ends[1].heard.iter().all(|value| *value == 0));
    assert!(stranger.stats(1).rejected > 40 && stranger.stats(1).received == 0);
}
