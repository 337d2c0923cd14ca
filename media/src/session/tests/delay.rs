//! The delay follows the network up and down.

use super::*;

/// Jitter uniform in 0..=`jitter` until `until`, none afterwards.
fn jittery(delay: u64, jitter: f64, until: Duration) -> Line {
    Box::new(move |since, random| {
        let extra = if since < until { random.unit() * jitter / 1_000.0 } else { 0.0 };
        Some(ms(delay) + Duration::from_secs_f64(extra))
    })
}

fn mean_delay(pair: &mut Pair, time: Duration) -> f32 {
    let mut delays = Vec::new();
    for _ in 0..time.as_millis() / 100 {
        pair.run_for(ms(100));
        delays.push(pair.stats(1).delay_ms);
    }
    delays.iter().sum::<f32>() / sample::len(delays.len())
}

fn calm(side: usize, config: &mut Config) {
    config.source = if side == 0 { Source::Tune } else { Source::Silence };
    config.opus.complexity = 0;
}

#[test]
fn without_jitter_the_delay_is_below_40_ms_whatever_the_phase() {
    for offset in (0..20).step_by(3) {
        let mut pair = Pair::talking(calm, [constant(30 + offset), constant(30)], offset);
        let delay = mean_delay(&mut pair, secs(10));
        let stats = pair.stats(1);
        assert!((15.0..=40.0).contains(&delay), "offset {offset}: {delay}");
        assert_eq!((stats.late, stats.lost, stats.concealed), (0, 0, 0), "offset {offset}");
    }
}

#[test]
fn with_40_ms_of_jitter_the_delay_is_below_120_ms_late_below_1_percent_and_down_again_in_10_seconds() {
    let sources = [("tune", Source::Tune), ("tone", Source::Tone { hz: 440.0 })];
    for (name, source) in sources {
        for jitter in [40.0, 80.0] {
            for seed in 0..3 {
                let configure = |side: usize, config: &mut Config| {
                    config.source = if side == 0 { source.clone() } else { Source::Silence };
                    config.opus.complexity = 0;
                };
                let mut pair = Pair::talking(configure, [jittery(50, jitter, secs(30)), constant(50)], seed);
                pair.run_for(secs(1));
                let delay = mean_delay(&mut pair, secs(29));
                let stats = pair.stats(1);
                assert!(delay <= 120.0, "{name} {jitter} seed {seed}: {delay}");
                assert!(stats.late * 100 < stats.received, "{name} {jitter} seed {seed}: {stats:?}");
                assert!(stats.reordered > 50 && stats.lost < 5, "{name} {jitter} seed {seed}: {stats:?}");
                pair.run_for(secs(10));
                let delay = mean_delay(&mut pair, secs(5));
                assert!(delay <= 40.0, "{name} {jitter} seed {seed}: still {delay} after 10 s");
            }
        }
    }
}

#[test]
fn after_jitter_begins_in_a_calm_call_less_than_one_percent_is_late() {
    for seed in 0..5 {
        let line: Line = Box::new(|since, random| {
            let extra = if since > secs(10) { random.unit() * 0.04 } else { 0.0 };
            Some(Duration::from_secs_f64(0.03 + extra))
        });
        let mut pair = Pair::talking(calm, [line, constant(30)], seed);
        pair.run_for(secs(40));
        let stats = pair.stats(1);
        assert!(stats.late * 100 < stats.received && stats.lost < 5, "seed {seed}: {stats:?}");
    }
}

#[test]
fn an_outage_of_half_a_second_costs_no_lasting_delay() {
    // What was sent during the outage comes in one burst at its end.
    let line: Line = Box::new(|since, _| {
        let end = ms(5_500);
        let late = if since > secs(5) { end.saturating_sub(since) } else { Duration::ZERO };
        Some(late + ms(20))
    });
    let mut pair = Pair::talking(calm, [line, constant(20)], 1);
    pair.run_for(secs(20));
    assert!(mean_delay(&mut pair, secs(2)) <= 40.0, "{:?}", pair.stats(1));
}

#[test]
fn clocks_that_differ_by_200_ppm_are_followed_for_minutes() {
    for sign in [1.0, -1.0] {
        // A sender whose clock is off looks like a line whose delay grows or shrinks.
        let line: Line =
            Box::new(move |since, _| Some(Duration::from_secs_f64(0.1 + sign * since.as_secs_f64() * 2e-4)));
        let mut pair = Pair::talking(calm, [line, constant(20)], 1);
        pair.run_for(secs(110));
        let delay = mean_delay(&mut pair, secs(10));
        let stats = pair.stats(1);
        assert!((10.0..=45.0).contains(&delay), "sign {sign}: {delay}");
        assert!(stats.lost == 0 && stats.late == 0 && stats.concealed < 10, "sign {sign}: {stats:?}");
    }
}
