//! A change of path loses and doubles nothing; neither does a change of key.

use super::*;

fn counting_pair(formats: &Formats, line: Line) -> Pair {
    let configure = |side: usize, config: &mut Config| {
        protected(side, config);
        config.formats = formats.clone();
        config.source = Source::Samples { samples: counting(COUNTS), repeat: true };
        config.opus.bitrate = 64_000; // each 20 ms must be recognisable
    };
    Pair::talking(configure, [line, constant(20)], 1)
}

fn alternating(paths: [u64; 2], period: Duration) -> Line {
    Box::new(move |since, _| Some(ms(paths[usize::try_from(since.as_millis() / period.as_millis() % 2).unwrap()])))
}

/// Numbers that do not follow the one before.
fn breaks(heard: &[i16]) -> Vec<(usize, usize, usize)> {
    let numbers = count(heard);
    let pairs = numbers.windows(2).enumerate();
    pairs.filter(|(_, pair)| (pair[0] + 1) % COUNTS != pair[1]).map(|(at, pair)| (at, pair[0], pair[1])).collect()
}

#[test]
fn twenty_switches_between_a_slow_and_a_fast_path_lose_and_double_no_frame() {
    for (name, formats) in [("Opus", Formats::opus()), ("PCMU", Formats::g711(Codec::Pcmu))] {
        let mut pair = counting_pair(&formats, alternating([60, 1], secs(3)));
        pair.run_for(secs(1));
        let at = pair.ends[1].heard.len();
        for turn in 0..20 {
            // The peer may send by the new path before we know of it, or after.
            let told = ms([1_700, 2_000, 2_300, 3_000][turn % 4]);
            pair.run_for(told);
            let now = pair.now;
            pair.ends[1].session.path_changed(now);
            pair.run_for(secs(3).saturating_sub(told));
        }
        // The call stays on the fast path, and nothing is cut to be faster than it needs to be.
        pair.lines[0] = constant(1);
        pair.run_for(secs(15));
        let stats = pair.stats(1);
        assert_eq!((stats.lost, stats.late, stats.concealed, stats.recovered), (0, 0, 0, 0), "case: {name}");
        assert_eq!(breaks(&pair.ends[1].heard[at..]), [], "case: {name}");
    }
}

#[test]
fn without_being_told_of_the_change_nothing_is_lost_either() {
    let mut pair = counting_pair(&Formats::opus(), alternating([60, 1], ms(1_200)));
    pair.run_for(ms(30_500));
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.late, stats.concealed), (0, 0, 0));
    assert_eq!(breaks(&pair.ends[1].heard[48_000..]), []);
}

#[test]
fn the_first_move_to_a_slower_path_pauses_and_then_goes_on_with_the_next_frame() {
    let mut pair = counting_pair(&Formats::opus(), Box::new(|since, _| Some(ms(if since < secs(3) { 1 } else { 60 }))));
    pair.run_for(secs(6));
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.late), (0, 0));
    assert!((1..=4).contains(&stats.concealed), "{stats:?}");
    let numbers = count(&pair.ends[1].heard[48_000..]);
    let steps: Vec<usize> = numbers.windows(2).map(|pair| (pair[1] + COUNTS - pair[0]) % COUNTS).collect();
    let odd: Vec<usize> = (0..steps.len()).filter(|at| steps[*at] != 1).collect();
    let (first, last) = (odd[0], odd[odd.len() - 1]);
    assert!(last - first <= 4, "{odd:?}");
    // All frames but the made-up ones are there: the count has advanced by the frames played less those made up.
    let played = last + 2 - first;
    let advanced: usize = (numbers[last + 1] + COUNTS - numbers[first]) % COUNTS;
    let made_up = usize::try_from(stats.concealed).unwrap();
    assert_eq!(advanced, (played - 1) - made_up, "{:?}", &numbers[first..last + 2]);
}

#[test]
fn a_change_of_key_in_mid_stream_loses_no_packet_on_paths_of_different_speed() {
    let mut pair = counting_pair(&Formats::opus(), Box::new(|since, _| Some(ms(if since < secs(3) { 60 } else { 1 }))));
    pair.run_for(ms(2_500));
    // The new key is announced before it is used: the re-INVITE arrives while the old stream goes on.
    let now = pair.now;
    pair.ends[1].session.set_remote_keys(now, vec![key(9)]).unwrap();
    pair.run_for(ms(500));
    assert_eq!(pair.stats(1).rejected, 0);
    pair.ends[0].session.set_local_key(Some(key(9))).unwrap();
    pair.run_for(secs(3));
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.late, stats.rejected, stats.concealed), (0, 0, 0, 0));
    assert_eq!(breaks(&pair.ends[1].heard[48_000..]), []);
    assert!(pair.ends[1].events.contains(&Event::KeyConfirmed { index: 0 }));
    // From now on the old key is worth nothing.
    pair.ends[0].session.set_local_key(Some(key(1))).unwrap();
    pair.run_for(secs(1));
    assert!(pair.stats(1).rejected > 40, "{:?}", pair.stats(1));
}

#[test]
fn giving_the_same_keys_again_changes_nothing() {
    let mut pair = counting_pair(&Formats::opus(), constant(20));
    for _ in 0..10 {
        pair.run_for(ms(500));
        let now = pair.now;
        for side in 0..2 {
            pair.ends[side].session.set_local_key(Some(key([1, 2][side]))).unwrap();
            pair.ends[side].session.set_remote_keys(now, vec![key([2, 1][side])]).unwrap();
        }
    }
    let stats = pair.stats(1);
    assert_eq!((stats.lost, stats.rejected, stats.duplicated, stats.concealed), (0, 0, 0, 0));
}

#[test]
fn packets_that_come_twice_are_heard_once() {
    let mut pair = counting_pair(&Formats::opus(), constant(20));
    for _ in 0..100 {
        pair.run_for(FRAME);
        let (_, component, payload) = pair.ends[0].sent.last().cloned().unwrap();
        let now = pair.now;
        pair.ends[1].session.handle_input(now, Input::Packet { component, payload: &payload });
        pair.ends[1].session.handle_input(now, Input::Packet { component, payload: &payload });
    }
    let stats = pair.stats(1);
    assert!(stats.duplicated >= 100 && stats.lost == 0 && stats.concealed <= 2, "{stats:?}");
}
