//! linphonec as a phone of the laboratory: a file of settings, commands by its standard input, sound from and to files.

use std::fs::OpenOptions;
use std::io::Write as _;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::person::{Person, Side};
use crate::lab::run::Process;

impl Person {
    /// Starts linphonec, which answers by itself if it `answers`.
    ///
    /// # Errors
    ///
    /// If its files cannot be written.
    pub fn linphone(side: &Side<'_>, answers: bool) -> Result<Self, String> {
        let error = |error: std::io::Error| format!("linphonec: {error}");
        // Without this folder it ends without a word.
        std::fs::create_dir_all(side.folder.join(".local/share/linphone")).map_err(error)?;
        let settings = side.folder.join("settings");
        std::fs::write(&settings, rc(side)).map_err(error)?;
        // A pipe with a name, open for both, so that it never ends before linphonec does.
        let pipe = side.folder.join("commands");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|error| format!("{}: {error}", pipe.display()))?;
        let input = OpenOptions::new().read(true).write(true).open(&pipe).map_err(error)?;
        let commands = input.try_clone().map_err(error)?;
        let (settings, log) = (settings.to_string_lossy(), side.folder.join("log").to_string_lossy().into_owned());
        let mut arguments = vec!["-oL", "linphonec", "-c", &settings, "-d", "6", "-l", &log];
        if answers {
            arguments.push("-a");
        }
        let place = side.lab.network.host(side.host);
        let process = Process::start_with(Some(&place), "stdbuf".as_ref(), &arguments, |command| {
            command.env("HOME", &side.folder).stdin(input);
        });
        let mut person = Self { process, input: Some(commands), folder: side.folder.clone() };
        person.say("soundcard use files")?;
        person.say(&format!("play {}", side.speech.display()))?;
        person.say(&format!("record {}", side.folder.join("heard.wav").display()))?;
        Ok(person)
    }

    /// Types a command.
    ///
    /// # Errors
    ///
    /// If it takes none.
    pub fn say(&mut self, command: &str) -> Result<(), String> {
        let Some(input) = &mut self.input else { return Err("it takes no commands".to_owned()) };
        writeln!(input, "{command}").map_err(|error| format!("{command}: {error}"))
    }
}

fn rc(side: &Side<'_>) -> String {
    let (user, transport) = (side.host, side.transport());
    let (relay_user, relay_password) = side.relay_credentials();
    let (encryption, mandatory) = if side.srtp { ("srtp", 1) } else { ("none", 0) };
    let ca = side.lab.file("ca.pem");
    format!(
        "[sip]\nsip_port=-1\nsip_tcp_port=-1\nsip_tls_port=-1\nguess_hostname=1\ndefault_proxy=0\nuse_ipv6={v6}\n\
         media_encryption={encryption}\nmedia_encryption_mandatory={mandatory}\nroot_ca={ca}\nverify_server_certs=1\n\
         register_only_when_network_is_up=0\n\
         [rtp]\naudio_rtp_port=-1\n[net]\nnat_policy_ref=relay\n\
         [nat_policy_0]\nref=relay\nstun_server=turn.lab.test\nstun_server_username={relay_user}\n\
         protocols=stun,turn,ice\n\
         [proxy_0]\nreg_proxy=<sip:sip.lab.test;transport={transport}>\nreg_identity=sip:{user}@lab.test\n\
         reg_expires=300\nreg_sendregister=1\nnat_policy_ref=relay\npublish=0\n\
         [auth_info_0]\nusername={user}\npasswd={user}-pw\nrealm=lab.test\n\
         [auth_info_1]\nusername={relay_user}\npasswd={relay_password}\nrealm=rtcmedia\n\
         [sound]\nechocancellation=0\n[video]\nenabled=0\n",
        ca = ca.display(),
        v6 = u8::from(side.is_v6())
    )
}
