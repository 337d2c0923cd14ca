//! baresip as a phone of the laboratory: a folder of files, a source that plays one, and what it heard as another.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::person::{Person, Side};
use crate::lab::run::Process;

/// ICE needs them all; `aubridge` is a loudspeaker that nobody hears, `sndfile` writes down what it would play.
const MODULES: [&str; 9] = ["opus", "g711", "stun", "turn", "ice", "srtp", "aufile", "aubridge", "sndfile"];
const APPLICATIONS: [&str; 3] = ["account", "contact", "menu"];

impl Person {
    /// Starts baresip; `dial` is whom it calls as soon as it can, else it answers by itself.
    ///
    /// # Errors
    ///
    /// If its files cannot be written.
    pub fn baresip(side: &Side<'_>, dial: Option<&str>) -> Result<Self, String> {
        let write = |name: &str, text: &str| {
            std::fs::write(side.folder.join(name), text).map_err(|error| format!("baresip's {name}: {error}"))
        };
        write("config", &config(side))?;
        write("contacts", "")?;
        write("accounts", &account(side))?;
        let folder = side.folder.to_string_lossy().into_owned();
        // Line by line, also into a pipe.
        let mut arguments = vec!["-oL".to_owned(), "baresip".to_owned(), "-f".to_owned(), folder, "-s".to_owned()];
        if let Some(whom) = dial {
            arguments.extend(["-e".to_owned(), format!("/dial {whom}")]);
        }
        let place = side.lab.network.host(side.host);
        let process = Process::start_with(Some(&place), "stdbuf".as_ref(), &arguments, |command| {
            command.env("HOME", &side.folder);
        });
        Ok(Self { process, input: None, folder: side.folder.clone() })
    }

    /// The file of what baresip heard; a re-INVITE may begin another one.
    pub(super) fn dumps(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_heard = |path: &PathBuf| path.to_string_lossy().ends_with("-dec.wav");
        let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_heard).collect();
        files.sort();
        files
    }
}

fn config(side: &Side<'_>) -> String {
    let mut text = String::from("poll_method epoll\nmodule_path /usr/lib/baresip/modules\n");
    text.push_str(if side.is_v6() {
        "sip_listen [::]:0\nnet_af ipv6\nprefer_ipv6 yes\n"
    } else {
        "sip_listen 0.0.0.0:0\n"
    });
    for rate in ["ausrc_srate 48000", "auplay_srate 48000", "ausrc_channels 1", "auplay_channels 1"] {
        let _ = writeln!(text, "{rate}");
    }
    let _ = writeln!(text, "audio_source aufile,{}", side.speech.display());
    let _ = writeln!(text, "audio_player aubridge,nobody\naudio_alert aubridge,nobody");
    let _ = writeln!(text, "snd_path {}", side.folder.display());
    let _ = writeln!(text, "sip_cafile {}", side.lab.file("ca.pem").display());
    for module in MODULES {
        let _ = writeln!(text, "module {module}.so");
    }
    for application in APPLICATIONS {
        let _ = writeln!(text, "module_app {application}.so");
    }
    text
}

fn account(side: &Side<'_>) -> String {
    let (user, transport) = (side.host, side.transport());
    let (relay_user, relay_password) = side.relay_credentials();
    let srtp = if side.srtp { ";mediaenc=srtp-mand" } else { "" };
    format!(
        "<sip:{user}@lab.test;transport={transport}>;auth_user={user};auth_pass={user}-pw;regint=300;medianat=ice\
         ;stunserver=\"turn:turn.lab.test:3478\";stunuser={relay_user};stunpass={relay_password}\
         ;audio_codecs=opus/48000/2,pcmu;answermode=auto{srtp};outbound=\"sip:sip.lab.test;transport={transport}\"\n"
    )
}

/// How long its checks may last before it sends anything: each wave of unanswered ones takes some seconds.
pub const PATIENCE: Duration = Duration::from_secs(14);
