//! Two sessions talk in virtual time, over lines that lose, delay and reorder.

use std::sync::Arc;

use super::*;
use crate::config::{Format, TelephoneEvent};
use crate::rtcp::packet::Heard;
use crate::rtp::packet::{Packet, is_rtcp};
use crate::srtp::sdes::{KEY_AND_SALT_BYTES_MAX, Suite};
use crate::testing::{COUNTS, Line, Pair, Random, constant, count, counting, lossy, ms, secs, strength};
use crate::{FRAME_SAMPLES, SILENCE, sample};

mod cost;
mod delay;
mod hostile;
mod path;

pub(super) fn key(value: u8) -> MasterKey {
    MasterKey::from_random(Suite::AesCm128HmacSha1_80, &[value; KEY_AND_SALT_BYTES_MAX])
}

pub(super) fn tone(_: usize, config: &mut Config) {
    config.source = Source::Tone { hz: 1_000.0 };
}

pub(super) fn protected(side: usize, config: &mut Config) {
    let keys = [key(1), key(2)];
    config.protection = Protection::Sdes { local: keys[side].clone(), remote: vec![keys[1 - side].clone()] };
}

#[test]
fn a_tone_comes_out_with_its_frequency_and_level_in_every_codec() {
    let cases = [("Opus", Formats::opus()), ("PCMU", Formats::g711(Codec::Pcmu)), ("PCMA", Formats::g711(Codec::Pcma))];
    for (name, formats) in cases {
        let configure = |side: usize, config: &mut Config| {
            tone(side, config);
            protected(side, config);
            config.formats = formats.clone();
        };
        let mut pair = Pair::talking(configure, [constant(20), constant(20)], 1);
        pair.run_for(secs(3));
        for end in &pair.ends {
            let heard = &end.heard[48_000..];
            let level = sample::level_dbfs(heard);
            assert!((level + 12.0).abs() < 1.0, "case: {name}: {level} dBFS");
            let crossings = heard.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
            let hz = sample::len(crossings) * 48_000.0 / sample::len(heard.len());
            assert!((hz - 1_000.0).abs() < 5.0, "case: {name}: {hz} Hz");
            let share = strength(heard, 1_000.0) * 2.0_f32.sqrt() / 32_768.0;
            assert!((20.0 * share.log10() + 12.0).abs() < 1.2, "case: {name}: only {share} is the tone");
        }
        let stats = pair.stats(1);
        assert_eq!(
            (stats.lost, stats.late, stats.rejected, stats.unreadable, stats.concealed),
            (0, 0, 0, 0, 0),
            "{name}"
        );
        assert!((stats.level_in_dbfs + 12.0).abs() < 1.0 && stats.mos.unwrap() > 4.3, "case: {name}: {stats:?}");
    }
}

#[test]
fn ticks_do_not_drift_and_the_first_packet_leaves_at_once() {
    let mut pair = Pair::talking(tone, [constant(5), constant(5)], 1);
    pair.run_for(secs(60));
    let rtp: Vec<_> = pair.ends[0].sent.iter().filter(|(_, _, bytes)| !is_rtcp(bytes)).collect();
    assert_eq!((rtp[0].0, rtp.len()), (Duration::ZERO, 3_001));
    assert!(rtp.iter().enumerate().all(|(at, (time, ..))| *time == FRAME * u32::try_from(at).unwrap()));
    let packets: Vec<_> = rtp.iter().map(|(_, _, bytes)| Packet::parse(bytes).unwrap()).collect();
    assert!(packets[0].marker && packets[0].sequence < 0x8000 && !packets[1].marker);
    assert!(packets.windows(2).all(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp) == 960));
}

#[test]
fn a_stalled_loop_catches_up_three_frames_and_skips_the_rest_without_shifting_the_clock() {
    let now = crate::testing::epoch();
    let mut session = Session::new(now, Config::new(now), [1; 32]).unwrap();
    session.start_sending(now);
    let timestamps = |session: &mut Session, at: Instant| {
        session.handle_input(at, Input::Timeout);
        let mut sent = Vec::new();
        loop {
            match session.poll_output() {
                Output::Packet { payload, .. } if !is_rtcp(&payload) => {
                    let packet = Packet::parse(&payload).unwrap();
                    sent.push((packet.timestamp, packet.sequence, packet.marker));
                }
                Output::Timeout(next) => return (sent, next.unwrap()),
                Output::Packet { .. } | Output::Play(_) | Output::Said(_) | Output::Event(_) => {}
            }
        }
    };
    let (first, _) = timestamps(&mut session, now);
    let (late, next) = timestamps(&mut session, now + ms(1_007));
    assert_eq!(late.len(), 3);
    assert_eq!(late[0], (first[0].0.wrapping_add(48 * 960), first[0].1 + 1, true));
    assert_eq!((late[2].0, next), (first[0].0.wrapping_add(50 * 960), now + ms(1_020)));
}

#[test]
fn before_sending_starts_nothing_is_sent_and_after_it_stops_only_reports() {
    let mut pair = Pair::new(tone, [constant(5), constant(5)], 1);
    pair.run_for(secs(1));
    assert!(pair.ends.iter().all(|end| end.sent.is_empty() && end.heard.is_empty()));
    let now = pair.now;
    pair.ends[0].session.start_sending(now);
    pair.run_for(secs(1));
    assert_eq!(pair.ends[1].events, [Event::FirstReceived { codec: Codec::Opus }]);
    assert!(pair.ends[1].heard.len() > 40 * FRAME_SAMPLES && pair.ends[0].heard.is_empty());
    assert!(pair.ends[1].sent.iter().all(|(_, _, bytes)| is_rtcp(bytes)));
    pair.ends[0].session.stop_sending();
    let before = pair.ends[0].sent.len();
    pair.run_for(secs(20));
    let after = &pair.ends[0].sent[before..];
    assert!((2..10).contains(&after.len()) && after.iter().all(|(_, _, bytes)| is_rtcp(bytes)), "{}", after.len());
}

#[test]
fn held_plays_silence_muted_says_silence_and_both_come_back() {
    let mut pair = Pair::talking(tone, [constant(10), constant(10)], 1);
    pair.run_for(secs(1));
    pair.ends[0].session.stop_receiving();
    pair.ends[0].session.set_muted(true);
    pair.run_for(ms(500));
    let at = [0, 1].map(|side| pair.ends[side].heard.len());
    pair.run_for(secs(1));
    assert!(pair.ends[0].heard[at[0]..].iter().all(|value| *value == 0));
    assert!(sample::level_dbfs(&pair.ends[1].heard[at[1]..]) < -70.0);
    let now = pair.now;
    pair.ends[0].session.start_receiving(now);
    pair.ends[0].session.set_muted(false);
    pair.run_for(ms(500));
    let at = [0, 1].map(|side| pair.ends[side].heard.len());
    pair.run_for(secs(1));
    for (end, at) in pair.ends.iter().zip(at) {
        assert!((sample::level_dbfs(&end.heard[at..]) + 12.0).abs() < 1.0);
    }
}

#[test]
fn an_echo_returns_what_was_said_once() {
    let configure = |side: usize, config: &mut Config| {
        config.source =
            if side == 0 { Source::Samples { samples: counting(100), repeat: false } } else { Source::Echo };
    };
    let mut pair = Pair::talking(configure, [constant(15), constant(15)], 1);
    pair.run_for(secs(3));
    let heard = &pair.ends[0].heard;
    let first = heard.iter().position(|value| value.abs() > 2_000).unwrap();
    assert!((60..130).contains(&(first / 48)), "the echo comes after {} ms", first / 48);
    let numbers = count(&heard[first..first + 90 * FRAME_SAMPLES]);
    let steps = numbers.windows(2).filter(|pair| (pair[0] + 1) % COUNTS == pair[1]).count();
    assert!(steps >= numbers.len() - 3, "{numbers:?}");
    assert!(pair.ends[0].events.contains(&Event::SourceEnded));
}

#[test]
fn a_recording_begins_when_sending_does() {
    let configure = |side: usize, config: &mut Config| {
        if side == 0 {
            config.source = Source::Samples { samples: counting(20), repeat: false };
        }
    };
    let mut pair = Pair::new(configure, [constant(15), constant(15)], 1);
    let now = pair.now;
    pair.ends[0].session.start_receiving(now);
    pair.run_for(secs(1));
    assert!(!pair.ends[0].events.contains(&Event::SourceEnded), "nobody has heard it");
    let now = pair.now;
    pair.ends[0].session.start_sending(now);
    pair.run_for(secs(1));
    assert!(pair.ends[0].events.contains(&Event::SourceEnded));
}

#[test]
fn a_microphone_is_heard_and_its_gaps_are_silent() {
    let configure = |side: usize, config: &mut Config| {
        config.source = if side == 0 { Source::Microphone } else { Source::Silence };
        config.tap = true;
    };
    let mut pair = Pair::talking(configure, [constant(5), constant(5)], 1);
    let mut sine = crate::audio::tone::Sine::new(700.0, -15.0);
    for _ in 0..50 {
        let now = pair.now;
        pair.ends[0].session.handle_input(now, Input::Microphone(&sine.frame()));
        pair.run_for(FRAME);
    }
    assert!((sample::level_dbfs(&pair.ends[1].heard[19_200..43_200]) + 15.0).abs() < 1.0);
    let at = pair.ends[0].said.len();
    pair.run_for(secs(1));
    assert!(pair.ends[0].said[at + 3 * FRAME_SAMPLES..].iter().all(|value| *value == 0));
}

#[test]
fn any_negotiated_codec_is_understood_at_any_packet() {
    let mut pair = Pair::talking(tone, [constant(10), constant(10)], 1);
    for codec in [Codec::Pcmu, Codec::Opus, Codec::Pcma, Codec::Pcmu] {
        pair.run_for(secs(1));
        let formats = if codec == Codec::Opus { Formats::opus() } else { Formats::g711(codec) };
        pair.ends[0].session.set_formats(formats).unwrap();
        pair.run_for(ms(200));
        let at = pair.ends[1].heard.len();
        pair.run_for(secs(1));
        let level = sample::level_dbfs(&pair.ends[1].heard[at..]);
        assert!((level + 12.0).abs() < 1.0, "{codec:?}: {level}");
        assert_eq!(pair.stats(1).remote_codec, Some(codec));
    }
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.late), (0, 0));
    assert!(stats.concealed < 12, "{stats:?}"); // the three changes
}

#[test]
fn the_numbers_of_the_receiver_are_used_for_sending() {
    let configure = |side: usize, config: &mut Config| {
        let ours = [100, 120][side];
        let theirs = [120, 100][side];
        config.formats.send.payload_type = theirs;
        config.formats.send_event = Some(TelephoneEvent { payload_type: theirs + 1, clock_hz: 48_000 });
        config.formats.receive = vec![Format { payload_type: ours, codec: Codec::Opus }];
        config.formats.receive_events = vec![TelephoneEvent { payload_type: ours + 1, clock_hz: 48_000 }];
    };
    let mut pair = Pair::talking(configure, [constant(10), constant(10)], 1);
    pair.ends[0].session.send_dtmf("5").unwrap();
    pair.run_for(secs(1));
    assert_eq!((pair.digits(1).as_str(), pair.stats(0).unreadable, pair.stats(1).unreadable), ("5", 0, 0));
}

#[test]
fn without_mux_reports_travel_on_the_second_component() {
    let mut pair = Pair::talking(|_, config| config.mux = false, [constant(10), constant(10)], 1);
    pair.run_for(secs(12));
    for end in &pair.ends {
        assert!(end.sent.iter().all(|(_, component, bytes)| (*component == Component::Rtcp) == is_rtcp(bytes)));
    }
    assert_eq!(pair.stats(0).rtt.map(|rtt| rtt.origin), Some(RttOrigin::Rtcp));
}

#[test]
fn the_round_trip_is_that_of_the_lines_and_ice_fills_in_before() {
    let mut pair = Pair::talking(protected, [constant(30), constant(50)], 1);
    let now = pair.now;
    pair.ends[0].session.set_ice_rtt(now, ms(77));
    assert_eq!(pair.stats(0).rtt, Some(Rtt { value: ms(77), origin: RttOrigin::Ice }));
    pair.run_for(secs(15));
    for side in 0..2 {
        let rtt = pair.stats(side).rtt.unwrap();
        assert_eq!(rtt.origin, RttOrigin::Rtcp);
        assert!((sample::ms(rtt.value) - 80.0).abs() < 1.0, "{rtt:?}");
    }
}

#[test]
fn reports_name_loss_and_jitter_and_the_encoder_answers_with_redundancy() {
    let mut pair = Pair::talking(protected, [lossy(20, 0.1), constant(20)], 3);
    pair.run_for(secs(40));
    let (sender, receiver) = (pair.stats(0), pair.stats(1));
    let remote = sender.remote_loss_percent.unwrap();
    assert!((4.0..18.0).contains(&remote) && (4.0..18.0).contains(&receiver.loss_percent), "{remote} {receiver:?}");
    assert!((150..250).contains(&receiver.lost) && receiver.late == 0, "{receiver:?}");
    assert!(receiver.recovered > 80, "{receiver:?}");
    assert!((2.0..4.3).contains(&receiver.mos.unwrap()) && pair.stats(0).mos.unwrap() > 4.3, "{receiver:?}");
}

#[test]
fn digits_come_exactly_once_both_ways_at_ten_percent_loss() {
    for seed in 0..200 {
        let (formats, clock) =
            if seed % 2 == 0 { (Formats::opus(), 48_000) } else { (Formats::g711(Codec::Pcma), 8_000) };
        let configure = |_: usize, config: &mut Config| {
            config.formats = formats.clone();
            config.source = Source::Silence;
            config.opus.complexity = 0;
        };
        assert_eq!(formats.send_event.unwrap().clock_hz, clock);
        let mut pair = Pair::talking(configure, [lossy(20, 0.1), lossy(35, 0.1)], seed);
        pair.run_for(ms(100));
        for end in &mut pair.ends {
            end.session.send_dtmf("123#").unwrap();
        }
        pair.run_for(ms(1_400));
        assert_eq!((pair.digits(0).as_str(), pair.digits(1).as_str()), ("123#", "123#"), "seed {seed}");
        assert!(pair.ends.iter().all(|end| end.events.contains(&Event::DtmfSent)), "seed {seed}");
    }
}

#[test]
fn digits_are_refused_if_the_peer_takes_none() {
    let now = crate::testing::epoch();
    let mut config = Config::new(now);
    config.formats.send_event = None;
    let mut session = Session::new(now, config, [1; 32]).unwrap();
    assert_eq!(session.send_dtmf("1"), Err(MediaError::NoTelephoneEvent));
    session.stop(now);
    assert_eq!(session.send_dtmf("1"), Err(MediaError::Stopped));
}

#[test]
fn digits_leave_no_hole_in_the_sound_around_them() {
    let mut pair = Pair::talking(tone, [constant(10), constant(10)], 1);
    pair.run_for(secs(1));
    pair.ends[0].session.send_dtmf("7").unwrap();
    pair.run_for(secs(2));
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.late, stats.unreadable), (0, 0, 0));
    assert!(stats.concealed <= 1, "{stats:?}");
    assert!(stats.delay_ms <= 40.0, "{stats:?}");
}

#[test]
fn stop_says_bye_once_and_then_nothing() {
    let mut pair = Pair::talking(protected, [constant(10), constant(10)], 1);
    pair.run_for(secs(1));
    let now = pair.now;
    pair.ends[0].session.stop(now);
    pair.run_for(secs(1));
    assert!(pair.ends[1].events.contains(&Event::RemoteBye));
    let sent = pair.ends[0].sent.len();
    pair.run_for(secs(10));
    assert_eq!(pair.ends[0].sent.len(), sent);
    assert_eq!(pair.ends[0].session.poll_output(), Output::Timeout(None));
}

#[test]
fn compound_packets_begin_with_a_report_and_name_us() {
    let mut pair = Pair::talking(tone, [constant(10), constant(10)], 1);
    pair.run_for(secs(10));
    let ssrc = pair.ends[0].session.ssrc();
    for (_, _, bytes) in pair.ends[0].sent.iter().filter(|(_, _, bytes)| is_rtcp(bytes)) {
        assert!(bytes[1] == 200 && bytes.windows(8).any(|window| window == b"icephone"));
        let heard = Heard::parse(bytes).unwrap();
        assert_eq!(heard.senders.first().map(|(ssrc, _)| *ssrc), Some(ssrc));
    }
}

#[test]
fn a_peer_that_sends_nothing_during_silence_is_understood() {
    let second = |hz| {
        (0..50)
            .flat_map({
                let mut sine = crate::audio::tone::Sine::new(hz, -12.0);
                move |_| sine.frame()
            })
            .collect::<Vec<i16>>()
    };
    let samples: Vec<i16> = [second(800.0), vec![0; 96_000], second(800.0)].concat();
    let configure = |side: usize, config: &mut Config| {
        config.source = if side == 0 {
            Source::Samples { samples: samples.clone().into(), repeat: false }
        } else {
            Source::Silence
        };
        config.opus.dtx = true;
    };
    let mut pair = Pair::talking(configure, [constant(10), constant(10)], 1);
    pair.run_for(ms(4_200));
    let stats = pair.stats(1);
    assert!(stats.sent < 180 && stats.received < 180, "{stats:?}");
    assert_eq!((stats.lost, stats.late), (0, 0), "{stats:?}");
    assert!(stats.concealed < 15, "{stats:?}");
    let heard = &pair.ends[1].heard;
    assert!((sample::level_dbfs(&heard[9_600..43_200]) + 12.0).abs() < 1.0);
    assert!(sample::level_dbfs(&heard[96_000..120_000]) < -50.0);
    assert!((sample::level_dbfs(&heard[153_600..187_200]) + 12.0).abs() < 1.0);
}

#[test]
fn sending_that_starts_late_does_not_wait_for_the_tick() {
    let mut pair = Pair::new(tone, [constant(10), constant(10)], 1);
    let now = pair.now;
    pair.ends[0].session.start_receiving(now);
    pair.run_for(ms(33));
    let now = pair.now;
    pair.ends[0].session.start_sending(now);
    pair.run_for(ms(50));
    let sent: Vec<_> = pair.ends[0].sent.iter().map(|(at, ..)| *at).collect();
    assert_eq!(sent, [ms(33), ms(53), ms(73)]);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut pair = Pair::talking(protected, [lossy(30, 0.05), lossy(10, 0.05)], seed);
        pair.run_for(secs(5));
        pair.ends.map(|end| (end.sent, end.heard, end.events))
    };
    assert!(run(4) == run(4));
    assert!(run(4)[0].0 != run(5)[0].0);
}

#[test]
fn two_forks_are_heard_together_until_one_is_chosen() {
    let forks = [(key(2), 500.0), (key(3), 1_500.0)];
    let now = crate::testing::epoch();
    let mut config = Config::new(now);
    let remote = forks.iter().map(|(key, _)| key.clone()).collect();
    config.protection = Protection::Sdes { local: key(1), remote };
    let mut caller = Session::new(now, config, [1; 32]).unwrap();
    let mut callees: Vec<_> = forks
        .iter()
        .enumerate()
        .map(|(at, (key, hz))| {
            let mut config = Config::new(now);
            config.protection = Protection::Sdes { local: key.clone(), remote: vec![] };
            config.source = Source::Tone { hz: *hz };
            let mut session = Session::new(now, config, [u8::try_from(at).unwrap() + 7; 32]).unwrap();
            session.start_sending(now);
            session
        })
        .collect();
    let mut confirmed = Vec::new();
    let mut listen = |caller: &mut Session, callees: &mut Vec<Session>, ticks: std::ops::Range<u32>| {
        let mut heard = Vec::new();
        for tick in ticks {
            let at = now + FRAME * tick;
            for callee in callees.iter_mut() {
                callee.handle_input(at, Input::Timeout);
                while let output = callee.poll_output()
                    && !matches!(output, Output::Timeout(_))
                {
                    if let Output::Packet { component, payload } = output {
                        caller.handle_input(at, Input::Packet { component, payload: &payload });
                    }
                }
            }
            caller.handle_input(at, Input::Timeout);
            loop {
                match caller.poll_output() {
                    Output::Play(frame) => heard.extend_from_slice(&*frame),
                    Output::Event(Event::KeyConfirmed { index }) => confirmed.push(index),
                    Output::Timeout(_) => break,
                    Output::Event(_) | Output::Packet { .. } | Output::Said(_) => {}
                }
            }
        }
        heard
    };
    let both = listen(&mut caller, &mut callees, 0..100);
    assert!(strength(&both[48_000..], 500.0) > 1_000.0 && strength(&both[48_000..], 1_500.0) > 1_000.0);
    caller.set_remote_keys(now + secs(2), vec![key(3)]).unwrap();
    let one = listen(&mut caller, &mut callees, 100..200);
    assert!(strength(&one[48_000..], 500.0) < 50.0 && strength(&one[48_000..], 1_500.0) > 1_000.0);
    assert_eq!(confirmed, [0, 1]);
}

#[test]
fn recordings_of_both_sides_have_a_frame_of_each_per_tick() {
    let configure = |_: usize, config: &mut Config| config.tap = true;
    let mut pair = Pair::talking(configure, [constant(10), constant(10)], 1);
    pair.run_for(secs(2));
    for end in &pair.ends {
        assert_eq!(end.heard.len(), end.said.len());
        assert!(end.said.iter().any(|value| *value != 0) && end.heard[..FRAME_SAMPLES] == SILENCE);
    }
}
