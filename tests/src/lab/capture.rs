//! What went over the wire, as tshark decodes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::netns::Namespace;
use super::run::{Process, tool};

/// A running capture on one interface.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts capturing and waits until it does.
    ///
    /// # Errors
    ///
    /// What tcpdump said.
    pub fn start(place: &Namespace, interface: &str, file: &Path) -> Result<Self, String> {
        let file = file.to_owned();
        let name = file.to_string_lossy().into_owned();
        // -Z root: else it gives its rights up and may not write there; -U: every packet is in the file at once. The kernel's
        // buffer is divided into places of the size that -s says: with the default there are eight, and packets get lost.
        let mut arguments = vec!["-i", interface, "-n", "-s", "9000", "-B", "16384", "-U", "--immediate-mode"];
        arguments.extend(["-Z", "root", "-w", &name]);
        if interface == "any" {
            arguments.extend(["-y", "LINUX_SLL2"]);
        }
        let mut process = Process::start(Some(place), Path::new("tcpdump"), &arguments);
        process.wait_line("listening line", Duration::from_secs(10), |line| line.contains("listening on"))?;
        Ok(Self { process, file })
    }

    /// Ends the capture.
    ///
    /// # Errors
    ///
    /// If tcpdump does not end, or packets are missing because this machine was too busy.
    pub fn stop(mut self) -> Result<Packets, String> {
        self.process.signal(Signal::SIGINT);
        self.process.wait_exit(Duration::from_secs(10))?;
        let dropped = self.process.output().iter().find(|line| line.ends_with("dropped by kernel"));
        if dropped.is_some_and(|line| !line.starts_with("0 ")) {
            return Err(format!("the capture {} is not whole: {dropped:?}", self.file.display()));
        }
        Ok(Packets { file: self.file, decode: Vec::new() })
    }
}

/// A captured file and how its ports are to be read.
pub struct Packets {
    file: PathBuf,
    decode: Vec<String>,
}

impl Packets {
    /// Reads a port as a protocol, for example `udp.port==5070,sip`.
    #[must_use]
    pub fn decode_as(mut self, rule: String) -> Self {
        self.decode.push(rule);
        self
    }

    /// The payloads in it.
    ///
    /// # Errors
    ///
    /// As [`super::wire::read`].
    pub fn payloads(&self) -> Result<Vec<super::wire::Packet>, String> {
        super::wire::read(&self.file)
    }

    /// The packets that `filter` lets through, as one row of `fields` each. Several values of a field are joined by `;`.
    ///
    /// # Errors
    ///
    /// What tshark said, for example about a filter it does not know.
    pub fn rows(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let file = self.file.to_string_lossy().into_owned();
        let mut arguments =
            vec!["-n", "-r", &file, "-Y", filter, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=;"];
        // Without a session description that names the port, RTP is known by its looks.
        arguments.extend(["--enable-heuristic", "rtp_udp", "--enable-heuristic", "stun_udp"]);
        for rule in &self.decode {
            arguments.extend(["-d", rule]);
        }
        for field in fields {
            arguments.extend(["-e", field]);
        }
        let text = tool("tshark", &arguments)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// How many packets `filter` lets through.
    ///
    /// # Errors
    ///
    /// As [`Self::rows`].
    pub fn count(&self, filter: &str) -> Result<usize, String> {
        Ok(self.rows(filter, &["frame.number"])?.len())
    }

    /// Everything, one line per packet, for the report of a failure.
    pub fn listing(&self) -> String {
        let file = self.file.to_string_lossy().into_owned();
        tool("tshark", &["-n", "-r", &file]).unwrap_or_else(|error| error)
    }
}
