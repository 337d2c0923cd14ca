//! Calls between two icephones through real servers and real NATs.

use std::time::Duration;

use tests::lab::measured_call::CallPlan;
use tests::lab::media_path::Way;
use tests::lab::network::{Host, Plan};
use tests::lab::servers::{NetLab, Offer};
use tests::lab::skip;

#[test]
fn two_homes_talk_directly() {
    let lab = match NetLab::build(Plan::default(), &Offer::default()) {
        Ok(lab) => lab,
        Err(reason) => return skip("two_homes_talk_directly", &reason),
    };
    let measured = lab.call(&CallPlan::between(Host::Alice, Host::Bob)).unwrap_or_else(|error| panic!("{error}"));
    for end in &measured.ends {
        println!(
            "{} to {:?} ({}): first {:?} ms, final {:?} ms, {} received, {} lost, {} repeated, {:.0} ms, {} KiB, {:?}",
            end.way,
            end.remote,
            end.says,
            end.first_rtp_ms,
            end.final_path_ms,
            end.received,
            end.lost,
            end.repeated,
            end.cpu_ms,
            end.rss_kib,
            end.likeness
        );
    }
    measured.check_speech(0.9).unwrap_or_else(|error| panic!("{error}"));
    for end in &measured.ends {
        assert_eq!((end.way, end.lost), (Way::Direct, 0));
    }
    lab.wait_released(Duration::from_secs(10)).unwrap_or_else(|error| panic!("{error}"));
}
