//! One call over UDP and one over TCP signalling, through a masquerading NAT, as tshark sees them.

use tests::lab::capture::Capture;
use tests::lab::netns::{EDGE, Network};
use tests::lab::skip;

#[test]
fn the_network_of_the_captures_translates_addresses() {
    let network = match Network::build() {
        Ok(network) => network,
        Err(reason) => return skip("the_network_of_the_captures_translates_addresses", &reason),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let capture = Capture::start(&network.edge, "eth0", &folder.path().join("edge.pcap")).expect("a capture");
    let mut ping = network.home.command(std::path::Path::new("ping"));
    let status = ping.args(["-c", "1", "-W", "5", &EDGE.to_string()]).stdout(std::process::Stdio::null()).status();
    assert!(status.expect("ping").success(), "the edge answers through the NAT");
    let packets = capture.stop().expect("the capture ends");
    let sources = packets.rows("icmp.type == 8", &["ip.src"]).expect("tshark reads it");
    assert_eq!(sources, [["203.0.113.20"]], "{}", packets.listing());
}
