use super::*;
use crate::codec::g711::Law;
use crate::testing::Random;

/// A packet of µ-law, `ms` long, that arrives `late` samples after the fastest.
fn packet(sequence: i64, ms: usize, late: i64) -> Packet {
    let time = sequence * i64::try_from(ms).unwrap() * MS;
    let value = |at: usize| sample::round_i16((sample::len(at) * 0.4).sin() * 8_000.0);
    let payload =
        (0..ms * 8).map(|at| Law::Mu.encode(value(at + usize::try_from(sequence).unwrap() * ms * 8))).collect();
    let content = Content::Sound { codec: Codec::Pcmu, payload };
    let whole_packet = i64::try_from(ms).unwrap() * MS;
    Packet { sequence, time, arrival: time + whole_packet + late, marker: sequence == 0, content }
}

/// Plays ten seconds of packets in order of arrival; gives the sound and the delay in ms after 8.8 s.
fn play(playout: &mut Playout, mut packets: Vec<Packet>) -> (Vec<i16>, i64) {
    packets.sort_by_key(|packet| packet.arrival);
    let mut packets = packets.into_iter().peekable();
    let mut heard = Vec::new();
    let mut delay = 0;
    for tick in 0..500 {
        let now = tick * 960 + 100;
        while packets.peek().is_some_and(|packet| packet.arrival <= now) {
            playout.insert(packets.next().unwrap());
        }
        heard.extend_from_slice(&playout.pull(now));
        if tick == 440 {
            delay = playout.delay(now + 960).map_or(0, |(delay, _)| delay / MS);
        }
    }
    (heard, delay)
}

#[test]
fn a_lost_packet_of_any_duration_is_replaced_by_as_much_sound() {
    for ms in [5, 10, 20, 30, 40, 60] {
        let mut playout = Playout::default();
        let count = i64::try_from(9_000 / ms).unwrap();
        let lost = [count / 4, count / 3, count / 2, count / 2 + 1];
        let packets = (0..count).filter(|sequence| !lost.contains(sequence)).map(|sequence| packet(sequence, ms, 0));
        let (heard, delay) = play(&mut playout, packets.collect());
        assert!((15..=45).contains(&delay), "case: {ms} ms: {delay}");
        let second = &heard[96_000..336_000];
        assert!(sample::level_dbfs(second) > -20.0, "case: {ms} ms");
        let silent = second.chunks(480).filter(|piece| sample::level_dbfs(piece) < -40.0).count();
        assert_eq!(silent, 0, "case: {ms} ms: pieces of 10 ms without sound");
    }
}

#[test]
fn on_a_terrible_network_sound_goes_on_and_the_delay_is_bounded() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut playout = Playout::default();
        let mut packets = Vec::new();
        for sequence in 0..450 {
            let late = i64::try_from(random.below(150)).unwrap() * MS;
            let copies = if random.below(5) == 0 { 0 } else { 1 + random.below(2) };
            for _ in 0..copies {
                packets.push(packet(sequence, 20, late));
            }
        }
        let (heard, delay) = play(&mut playout, packets);
        assert_eq!(heard.len(), 500 * FRAME_SAMPLES);
        assert!(sample::level_dbfs(&heard[96_000..384_000]) > -22.0, "seed {seed}");
        assert!((100..260).contains(&delay), "seed {seed}: {delay}");
    }
}

#[test]
fn a_stream_that_ends_fades_into_silence_and_costs_nothing_more() {
    let mut playout = Playout::default();
    let (heard, _) = play(&mut playout, (0..100).map(|sequence| packet(sequence, 20, 0)).collect());
    assert!(heard[150_000..].iter().all(|value| *value == 0) && playout.is_silent());
    let steps = heard[97_000..120_000].windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs());
    assert!(steps.max().unwrap() < 2_000, "no click at the end");
    assert_eq!(playout.counters.concealed, u64::from(FADED_FRAMES));
}
