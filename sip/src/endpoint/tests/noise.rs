//! Bytes from the network never panic, and same seed means same bytes.

use proptest::prelude::*;

use super::harness::{ANSWER, OFFER, World, address, changed, config, incoming};
use crate::event::{Event, FlowId, Input, Transport};

fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let template = "INVITE sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;rport\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.0.0.1>\r\nRequire: 100rel\r\nRSeq: 1\r\nSession-Expires: 90;refresher=uac\r\nContent-Length: 0\r\n\r\n";
    let methods = prop::sample::select(vec![
        "INVITE",
        "ACK",
        "BYE",
        "CANCEL",
        "UPDATE",
        "PRACK",
        "REFER",
        "NOTIFY",
        "SIP/2.0 200 OK\r\nX:",
    ]);
    let cuts = prop::collection::vec((0..template.len(), any::<u8>()), 0..6);
    (methods, cuts, any::<bool>()).prop_map(move |(method, cuts, tagged)| {
        let mut text = template.replace("INVITE", method);
        if tagged {
            text = text.replace("<sip:bob@x>", "<sip:bob@x>;tag=b");
        }
        let mut bytes = text.into_bytes();
        for (at, byte) in cuts {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_datagram_is_survived(datagrams in prop::collection::vec(prop_oneof![any::<Vec<u8>>(), mangled()], 1..20)) {
        let mut world = World::new(Transport::Udp);
        world.add_phone(2, config("bob"), None);
        for bytes in datagrams {
            world.inject(1, 2, bytes);
            world.run(std::time::Duration::from_millis(50));
            for leg in world.events(2).iter().filter_map(incoming).map(|(leg, _)| leg) {
                let _ = world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned()));
            }
        }
        world.seconds(120);
        prop_assert_eq!(world.endpoint(2).transactions.counts().0, 0);
    }

    #[test]
    fn any_stream_is_survived(pieces in prop::collection::vec(prop_oneof![any::<Vec<u8>>(), mangled()], 1..20)) {
        let mut world = World::new(Transport::Tcp);
        world.add_phone(2, config("bob"), Some(address(1)));
        for bytes in pieces {
            world.input(address(2), Input::Stream { flow: FlowId(1), bytes: &bytes });
        }
        world.seconds(120);
    }
}

#[test]
fn the_same_seed_makes_the_same_messages() {
    let ladder = || {
        let mut world = World::pair(Transport::Udp);
        world.loss_percent = 30;
        world.invite();
        world.seconds(10);
        world.ladder
    };
    assert_eq!(ladder(), ladder());
}

#[test]
fn changed_bytes_in_a_call_are_survived() {
    for seed in 0..60 {
        let mut world = World::pair(Transport::Udp);
        world.reseed(seed);
        world.noise_percent = 40;
        world.invite();
        for step in 0..20 {
            world.run(std::time::Duration::from_millis(700));
            for event in world.events(2) {
                if let Some((leg, _)) = incoming(&event) {
                    let _ = world.with(2, |phone, now| phone.progress(now, leg, ANSWER.to_owned()));
                    let _ = world.with(2, |phone, now| phone.accept(now, leg, ANSWER.to_owned()));
                }
                if let Event::Reoffer { dialog, .. } = event {
                    let _ = world.with(2, |phone, now| phone.answer_reoffer(now, dialog, changed(ANSWER)));
                }
            }
            for event in world.events(1) {
                if let Event::Answered { dialog, .. } = event {
                    let _ = world.with(1, |phone, now| phone.reinvite(now, dialog, Some(changed(OFFER))));
                } else if let (Event::Reanswered { dialog, .. }, true) = (event, step > 5) {
                    let _ = world.with(1, |phone, now| phone.bye(now, dialog));
                }
            }
        }
        world.noise_percent = 0;
        world.seconds(3600);
    }
}
