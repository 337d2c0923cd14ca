//! The order of SRV records, RFC 2782 "Usage rules".

use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;

use super::Srv;

/// Lowest priority first; inside a priority drawn by weight, records of weight 0 first in the running sums so that
/// they have a small chance. Where all weights are 0 the order is left open, and shuffled here.
pub(super) fn in_order(mut records: Vec<Srv>, rng: &mut ChaCha20Rng) -> Vec<Srv> {
    let mut ordered = Vec::with_capacity(records.len());
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    while let Some(priority) = records.first().map(|record| record.priority) {
        let behind = records.partition_point(|record| record.priority == priority);
        let rest = records.split_off(behind);
        let mut group = std::mem::replace(&mut records, rest);
        while !group.is_empty() {
            let total: u32 = group.iter().map(|record| u32::from(record.weight)).sum();
            let chosen = if total == 0 {
                rng.random_range(0..group.len())
            } else {
                let draw = rng.random_range(0..=total);
                let mut sum = 0;
                let reaches = |record: &Srv| {
                    sum += u32::from(record.weight);
                    sum >= draw
                };
                group.iter().position(reaches).unwrap_or(0)
            };
            ordered.push(group.remove(chosen));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5061, target: target.to_owned() }
    }

    #[test]
    fn priorities_come_in_order_and_weights_decide_a_thousand_draws() {
        let records = vec![srv(20, 0, "backup"), srv(10, 60, "a"), srv(10, 40, "b"), srv(10, 0, "zero")];
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let mut firsts = [0; 3];
        for _ in 0..1000 {
            let order = in_order(records.clone(), &mut rng);
            assert_eq!(order.last().unwrap().target, "backup");
            assert_eq!(order.len(), 4);
            let slot = ["a", "b", "zero"].iter().position(|name| *name == order[0].target).unwrap();
            firsts[slot] += 1;
        }
        assert!((540..=660).contains(&firsts[0]), "{firsts:?}");
        assert!((340..=460).contains(&firsts[1]), "{firsts:?}");
        assert!((1..=40).contains(&firsts[2]), "weight 0 has a small chance: {firsts:?}");
    }

    #[test]
    fn records_without_weight_are_shuffled_and_the_seed_decides() {
        let records = vec![srv(0, 0, "a"), srv(0, 0, "b"), srv(0, 0, "c")];
        let draw = |seed| in_order(records.clone(), &mut ChaCha20Rng::from_seed([seed; 32]));
        assert_eq!(draw(1), draw(1));
        let different = (0..20).map(draw).any(|order| order != draw(0));
        assert!(different);
    }
}
